"""The loop learns, stops early, keeps the best, resumes exactly, and refuses to go on with a loss that is no number."""

import dataclasses

import pytest
import torch

from cifar_tasks.config import TrainConfig, configure
from cifar_tasks.errors import IntegrityError, TrainingError
from cifar_tasks.models import ImageClassifier
from cifar_tasks.training import Split, TrainingState, fit, predict_logits, score
from cifar_tasks.training.augment import steps_per_epoch

HALF = (0.5, 0.5, 0.5)


class TinyNetwork(torch.nn.Module):
    """All kinds of state that a real one has: convolution, batch norm, dropout, dense."""

    def __init__(self) -> None:
        super().__init__()
        layers = [torch.nn.Conv2d(3, 8, 3, stride=4), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Dropout(0.2)]
        self.layers = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(8 * 8 * 8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def split(count: int, seed: int) -> Split:
    """Four classes told apart by the brightness of the picture."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=random)
    noise = torch.randint(0, 30, (count, 32, 32, 3), generator=random)
    return Split((noise + labels.view(-1, 1, 1, 1) * 60).to(torch.uint8), labels)


def config(**changes) -> TrainConfig:
    defaults = {"epochs": 4, "batch_size": 32, "learning_rate": 0.1, "logit_scale": 1.0}
    return dataclasses.replace(configure("cnn", "demo", {}), **{**defaults, **changes})


def new_state(settings: TrainConfig, count: int = 256) -> TrainingState:
    torch.manual_seed(settings.seed)
    model = ImageClassifier(TinyNetwork(), HALF, HALF).to(memory_format=torch.channels_last)
    return TrainingState(model, settings, steps_per_epoch(count, settings))


def train(state: TrainingState, on_epoch=lambda state: None, validation: Split | None = None) -> TrainingState:
    fit(state, split(256, 0), validation or split(64, 1), on_epoch, lambda progress: None)
    return state


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_learns(optimizer):
    rate = 0.1 if optimizer == "sgd" else 0.01
    state = train(new_state(config(epochs=16, optimizer=optimizer, learning_rate=rate)))
    assert state.best.validation_accuracy > 0.95
    assert state.history[-1].train_loss < state.history[0].train_loss


def test_the_learning_rate_rises_and_falls():
    rates = []
    fit(new_state(config()), split(256, 0), split(64, 1), lambda s: None, lambda p: rates.append(p.learning_rate), 0.0)
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.1)
    assert 0 < peak < len(rates) / 2
    assert rates[-1] < rates[0] < max(rates)


def test_training_stops_when_validation_loss_no_longer_falls_and_keeps_the_best_weights():
    labels_of_nobody = Split(
        split(64, 1).images, torch.randint(0, 4, (64,), generator=torch.Generator().manual_seed(3))
    )
    state = train(new_state(config(epochs=50, patience=3)), validation=labels_of_nobody)
    assert state.stopped_early
    assert len(state.history) == state.best.epoch + 3
    loss, _ = score(predict_logits(state.model.eval(), labels_of_nobody.images), labels_of_nobody.labels)
    assert loss == pytest.approx(state.best.validation_loss, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_resumed_training_ends_bit_for_bit_like_an_uninterrupted_one(optimizer, killed_after):
    settings = config(optimizer=optimizer, learning_rate=0.05)
    whole = train(new_state(settings))

    kept: list[bytes] = []

    def die(state: TrainingState) -> None:
        kept.append(state.to_bytes())
        if len(state.history) == killed_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(new_state(settings), die)
    torch.manual_seed(999)  # another process would have another random state
    resumed = new_state(settings)
    resumed.load_bytes(kept[-1])
    assert len(resumed.history) == killed_after
    train(resumed)

    def timeless(state):
        return [dataclasses.replace(metrics, images_per_second=0) for metrics in state.history]

    assert timeless(resumed) == timeless(whole)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_a_checkpoint_of_another_configuration_is_refused():
    data = new_state(config()).to_bytes()
    with pytest.raises(IntegrityError, match="another configuration"):
        new_state(config(seed=1)).load_bytes(data)


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"", lambda data: b"\x80\x04pickle" * 20])
def test_bytes_that_are_no_checkpoint_are_refused(damage):
    with pytest.raises(IntegrityError, match="cannot be read"):
        new_state(config()).load_bytes(damage(new_state(config()).to_bytes()))


def test_a_loss_that_is_no_number_ends_training_and_says_where():
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) in epoch 1, step \d+, at learning rate"):
        train(new_state(config(learning_rate=1e30)))


def test_weight_decay_spares_biases_and_batch_norm():
    state = new_state(config())
    decayed, spared = state.optimizer.param_groups
    assert decayed["weight_decay"] > 0
    assert spared["weight_decay"] == 0
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in spared["params"]} == {1}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(state.model.parameters()))
