"""A trial of a study during a real training, and what its study learns of it; Optuna's own storage in memory."""

import optuna
import pytest
import torch
from optuna import TrialPruned
from optuna.exceptions import StorageInternalError
from optuna.trial import Trial, TrialState

from cifar_tasks.config import Overrides, TrainConfig, with_values
from cifar_tasks.errors import (
    ConfigError,
    LeaseLost,
    StorageError,
    StorageRefused,
    TrackingError,
    TrackingRefused,
    TrainingError,
)
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import build_classifier
from cifar_tasks.training.callbacks import Callback, Snapshot
from cifar_tasks.training.loop import Split
from cifar_tasks.training.state import TrainingState
from cifar_tasks.training.transfer import fit_classifier
from cifar_tasks.tuning.study import TrialInterrupted, pruner
from cifar_tasks.tuning.trial import TrialCallback, trial_errors, weights_digest

CONFIG = with_values(get_model("cnn").config("demo", Overrides(epochs=3, batch_size=16)), {"patience": 3})


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize", pruner=pruner())


def train(trial: Trial, config: TrainConfig = CONFIG, *others: Callback) -> TrainingState:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (32, 32, 32, 3), dtype=torch.uint8, generator=random)
    split = Split(images, (images.float().mean((1, 2, 3)) > 127.5).long())
    torch.manual_seed(0)
    model = build_classifier(config, 2, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return fit_classifier(model, config, split, split, [*others, TrialCallback(trial)])


def others_are_perfect(study: optuna.Study) -> None:
    for _ in range(3):
        trial = study.ask()
        for epoch in (1, 2, 3):
            trial.report(2.0, epoch)
            assert not trial.should_prune()
        study.tell(trial, 2.0)


def test_a_trial_reports_its_epochs_and_the_result_of_its_own_model(study):
    trial = study.ask()
    state = train(trial)
    assert study.trials[0].intermediate_values == {each.epoch: each.validation_accuracy for each in state.history}
    assert len(state.history) == 3
    assert trial.user_attrs["validation_loss"] == min(each.validation_loss for each in state.history)
    assert trial.user_attrs["weights_sha256"] == weights_digest(state.model.state_dict())


def test_epochs_of_the_head_alone_are_not_reported(study):
    state = train(study.ask(), with_values(CONFIG, {"head_epochs": 2, "head_learning_rate": 1e-9}))
    assert study.trials[0].intermediate_values == {each.epoch: each.validation_accuracy for each in state.history}


def test_a_trial_far_behind_the_others_ends_after_its_second_epoch_with_a_result(study):
    others_are_perfect(study)
    trial = study.ask()
    with pytest.raises(TrialPruned):
        train(trial)
    assert study.trials[3].intermediate_values.keys() == {1, 2}
    assert {"validation_loss", "weights_sha256"} <= trial.user_attrs.keys()


def test_a_trial_whose_last_epoch_has_ended_is_complete_and_not_pruned(study):
    others_are_perfect(study)
    assert train(study.ask(), with_values(CONFIG, {"epochs": 2})).finished


def test_a_trial_that_fails_has_no_result_even_if_its_head_was_trained(study):
    trial = study.ask()
    with pytest.raises(TrainingError):
        train(trial, with_values(CONFIG, {"learning_rate": 1e30, "head_epochs": 1, "head_learning_rate": 1e-9}))
    assert "weights_sha256" not in trial.user_attrs


class OutOfMemory(Callback):
    def on_epoch_end(self, snapshot: Snapshot) -> None:
        raise RuntimeError("out of memory")


def test_a_trial_that_fails_after_an_epoch_has_no_result(study):
    trial = study.ask()
    with pytest.raises(RuntimeError):
        train(trial, CONFIG, OutOfMemory())
    assert trial.user_attrs == {}


class GiveAway(Callback):
    """After an epoch, another worker takes this trial for lost."""

    def __init__(self, trial: Trial, epoch: int) -> None:
        self.trial, self.epoch = trial, epoch

    def on_epoch_end(self, snapshot: Snapshot) -> None:
        if len(snapshot.history) == self.epoch:
            self.trial.study.tell(self.trial, state=TrialState.FAIL)


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_trial_that_another_worker_has_now_ends_with_a_lost_lease(study, epoch):
    trial = study.ask()
    with pytest.raises(LeaseLost, match="trial 0 was given to another worker"):
        train(trial, CONFIG, GiveAway(trial, epoch))
    assert "weights_sha256" not in study.trials[0].user_attrs


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), ConfigError("hidden_units must be at least 2")])
def test_an_error_of_the_trial_s_own_is_a_failure_that_the_study_notes(study, error):
    trial = study.ask()
    with pytest.raises(TrainingError, match="trial 0 failed"), trial_errors(trial):
        raise error
    assert trial.user_attrs["error"] == f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(
    "error", [TrackingError("no MLflow"), StorageError("no S3"), LeaseLost(""), KeyboardInterrupt()]
)
def test_an_interruption_passes_through_optuna_and_notes_nothing(study, error):
    trial = study.ask()
    with pytest.raises(TrialInterrupted) as interrupted, trial_errors(trial):
        raise error
    assert interrupted.value.error is error
    assert trial.user_attrs == {}


def test_a_lost_database_is_an_interruption_worth_a_retry(study):
    with pytest.raises(TrialInterrupted) as interrupted, trial_errors(study.ask()):
        raise StorageInternalError("An exception is raised during the commit.")
    assert isinstance(interrupted.value.error, StorageError)
    assert "CIFAR_STUDIES_URL" in str(interrupted.value.error)


@pytest.mark.parametrize("refused", [StorageRefused("no such bucket"), TrackingRefused("401")])
def test_a_refusal_of_storage_or_mlflow_ends_the_worker_and_is_no_failed_trial(study, refused):
    with pytest.raises(TrialInterrupted) as interrupted, trial_errors(study.ask()):
        raise refused
    assert interrupted.value.error is refused


def test_a_pruned_trial_is_neither(study):
    trial = study.ask()
    with pytest.raises(TrialPruned), trial_errors(trial):
        raise TrialPruned
    assert trial.user_attrs == {}


def test_the_digest_of_weights_depends_on_every_value_and_on_no_order():
    weights = {"a": torch.arange(48.0).view(2, 3, 2, 4), "b": torch.ones(3)}
    other_layout = weights["a"].to(memory_format=torch.channels_last)
    assert weights_digest({"b": weights["b"], "a": other_layout}) == weights_digest(weights)
    assert weights_digest({**weights, "b": torch.tensor([1.0, 1.0, 1.0001])}) != weights_digest(weights)
    assert weights_digest({"a": weights["a"], "c": weights["b"]}) != weights_digest(weights)
