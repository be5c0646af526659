"""The learning curves of the page "Models", from a real MLflow."""

from models_page import trainings

from cifar_tasks.tracking import runs


def test_the_last_epoch_of_a_curve_is_its_own_and_not_the_best_one_s(client, tracked):
    run = client.create_run("0").info.run_id
    for epoch, accuracy in enumerate((0.5, 0.7, 0.6), start=1):
        runs.log_metrics(client, run, {"validation_accuracy": accuracy}, step=epoch)
    runs.log_metrics(client, run, {"validation_accuracy": 0.7}, step=3)  # the saved epoch's, which MLflow then shows
    curves = {name: points for name, _, points in trainings._curves((run, ""), ("version 1", "version 2"))}
    assert curves["version 1, validation"] == [(1, 0.5), (2, 0.7), (3, 0.6)]
    assert client.get_run(run).data.metrics["validation_accuracy"] == 0.7
