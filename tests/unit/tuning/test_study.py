"""Which results are believed, what counts against the budget, and what a study shows."""

import csv
import io
import time
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from cifar_tasks.errors import SearchError
from cifar_tasks.tuning import Budget, charts, study_name
from cifar_tasks.tuning.study import begun, check_distinct, may_begin

SPACE = {"learning_rate": FloatDistribution(1e-5, 1.0, log=True), "crop_padding": IntDistribution(0, 4)}


def trial(rate: float, padding: int = 2, state: TrialState = TrialState.COMPLETE, **changes: Any) -> FrozenTrial:
    found = {"accuracy": rate, "validation_loss": 2 - rate, "weights_sha256": f"{rate}", **changes}
    return create_trial(
        state=state,
        value=found["accuracy"] if state is TrialState.COMPLETE else None,
        params={"learning_rate": rate, "crop_padding": padding} if state is not TrialState.WAITING else None,
        distributions=SPACE if state is not TrialState.WAITING else None,
        user_attrs=found if state is not TrialState.WAITING else None,
        system_attrs={"retry_history": changes["retry_history"]} if "retry_history" in changes else None,
        intermediate_values={1: found["accuracy"]},
    )


def study_of(*trials: FrozenTrial) -> optuna.Study:
    study = optuna.create_study(direction="maximize", study_name="cnn-test")
    study.add_trials(trials)
    return study


def test_results_of_different_models_are_believed():
    check_distinct([trial(0.1), trial(0.2), trial(0.3, state=TrialState.FAIL)])


def test_equal_accuracies_alone_can_be_chance():
    check_distinct([trial(0.1, accuracy=0.8303), trial(0.2, accuracy=0.8303)])


@pytest.mark.parametrize("name", ["validation_loss", "weights_sha256"])
def test_one_result_of_two_configurations_is_an_error_that_names_the_trials(name):
    trials = study_of(trial(0.1), trial(0.2), trial(0.3, **{name: trial(0.1).user_attrs[name]})).trials
    with pytest.raises(SearchError, match="trials 0 and 2 have different parameters"):
        check_distinct(trials)


def test_one_configuration_may_give_one_result_twice():
    check_distinct([trial(0.1), trial(0.1)])


def test_a_pruned_trial_with_the_result_of_another_is_an_error_too():
    with pytest.raises(SearchError):
        check_distinct([trial(0.1), trial(0.2, state=TrialState.PRUNED, weights_sha256="0.1")])


def test_a_retry_does_not_count_against_the_budget():
    trials = [trial(0.1, state=TrialState.FAIL), trial(0.1, retry_history=[0]), trial(0.2)]
    assert begun(trials) == 2
    assert may_begin(trials, Budget(3))
    assert not may_begin(trials, Budget(2))


def test_a_trial_that_waits_is_begun_even_if_the_budget_is_spent():
    assert may_begin([trial(0.1), trial(0.2, state=TrialState.WAITING)], Budget(2))


def test_nothing_begins_after_the_deadline():
    assert may_begin([trial(0.1)], Budget(9, time.time() + 60))
    assert not may_begin([trial(0.1), trial(0.2, state=TrialState.WAITING)], Budget(9, time.time() - 1))


def test_a_study_is_the_same_for_the_same_data_recipe_and_code_only():
    identity = {"data": "d", "config": {"epochs": 3}, "code": "c"}
    assert study_name("cnn", identity) == study_name("cnn", dict(reversed(identity.items())))
    assert study_name("cnn", identity) != study_name("cnn", {**identity, "code": "d"})
    assert study_name("cnn", identity) != study_name("resnet50", identity)


def test_the_table_has_a_row_a_trial_and_reads_back_as_csv():
    study = study_of(trial(0.5), trial(0.2, state=TrialState.PRUNED), trial(0.1, state=TrialState.FAIL, error="NaN"))
    table = list(csv.DictReader(io.StringIO(charts.as_csv(charts.rows(study.trials)))))
    assert [row["trial"] for row in table] == ["0", "1", "2"]
    assert [row["state"] for row in table] == ["complete", "pruned", "fail"]
    assert float(table[0]["accuracy"]) == 0.5
    assert float(table[1]["learning_rate"]) == 0.2
    assert table[2]["error"] == "NaN"


def test_the_page_holds_four_charts_and_needs_nothing_from_elsewhere():
    page = charts.page(study_of(*(trial(rate, padding) for rate, padding in ((0.1, 0), (0.2, 3), (0.4, 1)))))
    assert page.count('class="plotly-graph-div"') == 4
    assert "<script src=" not in page


def test_a_study_of_one_completed_trial_has_no_importances_but_a_page():
    assert charts.page(study_of(trial(0.5))).count('class="plotly-graph-div"') == 3
