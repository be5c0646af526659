"""Learning curves and what differs in two trainings, on the page "Models", from a real MLflow."""

from types import SimpleNamespace

from models_page import trainings

from cifar_tasks.tracking import runs


def test_the_last_epoch_of_a_curve_is_its_own_and_not_the_best_one_s(client, nothing_read):
    run = client.create_run("0").info.run_id
    for epoch, accuracy in ((1, 0.3), (3, 0.4)):  # of a try whose epochs were trained again
        runs.log_metrics(client, run, {"validation_accuracy": accuracy}, step=epoch)
    for epoch, accuracy in enumerate((0.5, 0.7, 0.6), start=1):
        runs.log_metrics(client, run, {"validation_accuracy": accuracy}, step=epoch)
    runs.log_metrics(client, run, {"validation_accuracy": 0.7}, step=3)  # the saved epoch's, which MLflow then shows
    client.set_tag(run, "cifar.best_epoch", 2)
    curves = {name: points for name, _, points in trainings._curves((run, ""), ("version 1", "version 2"))}
    assert curves["version 1, validation"] == [(1, 0.5), (2, 0.7), (3, 0.6)]
    assert client.get_run(run).data.metrics["validation_accuracy"] == 0.7


def test_the_last_epoch_of_a_curve_is_the_newest_one_if_it_is_the_best(client, nothing_read):
    run = client.create_run("0").info.run_id
    for epoch, accuracy in ((1, 0.7), (2, 0.6), (1, 0.7), (2, 0.7)):
        runs.log_metrics(client, run, {"validation_accuracy": accuracy}, step=epoch)
    client.set_tag(run, "cifar.best_epoch", 2)
    curves = {name: points for name, _, points in trainings._curves((run, ""), ("version 1", "version 2"))}
    assert curves["version 1, validation"] == [(1, 0.7), (2, 0.7)]


def test_parameters_and_data_that_differ_stand_beside_each_other(client, nothing_read):
    versions = []
    for rate, dataset, only in (("0.1", "a" * 64, {"flip": "True"}), ("0.2", "b" * 64, {})):
        run = client.create_run("0").info.run_id
        for name, value in {"epochs": "3", "learning_rate": rate, **only}.items():
            client.log_param(run, name, value)
        tags = {"cifar.dataset": dataset, "cifar.resize": "squash", "cifar.model": rate}
        versions.append(SimpleNamespace(run_id=run, tags=tags))
    assert trainings.differences(*versions).value == [
        ("dataset version", "a" * 64, "b" * 64),
        ("flip", "True", "–"),
        ("learning_rate", "0.1", "0.2"),
    ]
    assert trainings.differences(versions[0], versions[0]).value == []
