"""What a study's MLflow run shows."""

import csv
import html
import io

import pytest
from optuna.trial import TrialState

from cifar_tasks.tuning import charts
from tests.names import NASTY_NAMES
from tests.unit.tuning.test_study import study_of, trial


def test_the_table_has_one_row_per_trial_and_reads_back_as_csv():
    study = study_of(trial(0.5), trial(0.2, TrialState.PRUNED), trial(0.1, TrialState.FAIL, error="NaN"))
    rows = list(csv.DictReader(io.StringIO(charts.table(study))))
    assert [(row["number"], row["state"]) for row in rows] == [("0", "COMPLETE"), ("1", "PRUNED"), ("2", "FAIL")]
    assert next(iter(rows[0])) == "number"
    assert float(rows[0]["value"]) == 0.5
    assert float(rows[1]["params_learning_rate"]) == 0.2
    assert rows[2]["user_attrs_error"] == "NaN"


def test_the_page_holds_four_charts_and_needs_nothing_from_elsewhere():
    page = charts.page(study_of(trial(0.1), trial(0.2), trial(0.4)))
    assert page.count('class="plotly-graph-div"') == 4
    assert page.count("plotly.js v") >= 1
    assert "<script src=" not in page


def test_a_study_of_one_completed_trial_has_no_importances_but_a_page():
    assert charts.page(study_of(trial(0.5))).count('class="plotly-graph-div"') == 3


def test_a_study_in_which_every_trial_failed_has_a_page_too():
    assert "cnn-test" in charts.page(study_of(trial(0.5, TrialState.FAIL)))


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_the_name_of_a_study_is_text(name):
    study = study_of(trial(0.1))
    study.study_name = name
    page = charts.page(study)
    assert page[: page.index("</title>")] == f"<!doctype html><meta charset=utf-8><title>{html.escape(name)}"
