"""The loop learns, stops early, keeps the best, resumes exactly, and refuses to go on with a loss that is no number."""

import dataclasses
import time
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.errors import IntegrityError, TrainingError
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import ImageClassifier
from cifar_tasks.training import device, loop
from cifar_tasks.training.augment import steps_per_epoch
from cifar_tasks.training.callbacks import Callback, Progress, Snapshot
from cifar_tasks.training.logits import compute_logits
from cifar_tasks.training.loop import Split, fit
from cifar_tasks.training.state import EpochMetrics, TrainingState

HALF = (0.5, 0.5, 0.5)


class TinyNetwork(torch.nn.Module):
    """All kinds of state that a real one has: convolutions, batch norm, dropout, dense."""

    def __init__(self) -> None:
        super().__init__()
        layers = [torch.nn.Conv2d(3, 8, 3, stride=4), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Dropout(0.2)]
        layers += [torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU()]
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
    return with_values(get_model("cnn").recipes["demo"], {**defaults, **changes})


def new_state(settings: TrainConfig, count: int = 256) -> TrainingState:
    torch.manual_seed(settings.seed)
    model = ImageClassifier(TinyNetwork(), HALF, HALF).to(memory_format=torch.channels_last)
    return TrainingState(model, settings, steps_per_epoch(count, settings))


def train(state: TrainingState, *callbacks: Callback, validation: Split | None = None) -> TrainingState:
    fit(state, split(256, 0), validation or split(64, 1), callbacks)
    return state


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_training_is_resumed_with_the_threads_that_it_began_with(threads):
    torch.set_num_threads(2)
    checkpoint = new_state(config()).to_bytes()
    torch.set_num_threads(1)
    new_state(config()).load_bytes(checkpoint)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.1), ("adamw", 0.01), ("muon", 0.1)])
@pytest.mark.parametrize("sam_radius", [0, 0.1])
def test_training_learns(optimizer, rate, sam_radius):
    state = train(new_state(config(epochs=16, optimizer=optimizer, learning_rate=rate, sam_radius=sam_radius)))
    assert state.best.validation_accuracy > 0.95
    assert state.history[-1].train_loss < state.history[0].train_loss


def test_sharpness_aware_steps_change_the_last_epochs_only():
    plain = train(new_state(config()))
    aware = train(new_state(config(sam_radius=0.5, sam_share=0.5)))
    losses = [[metrics.train_loss for metrics in state.history] for state in (plain, aware)]
    assert losses[0][:2] == losses[1][:2]
    assert all(one != other for one, other in zip(losses[0][2:], losses[1][2:], strict=True))
    assert all(torch.isfinite(value).all() for value in aware.model.state_dict().values())


def test_the_learning_rate_rises_and_falls(monkeypatch):
    monkeypatch.setattr(loop, "LOG_SECONDS", 0.0)
    rates = []

    class Rates(Callback):
        def on_step(self, progress: Progress) -> None:
            rates.append(progress.learning_rate)

    fit(new_state(config(warmup_fraction=0.25)), split(256, 0), split(64, 1), [Rates()])
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
    loss = F.cross_entropy(compute_logits(state.model.eval(), labels_of_nobody.images), labels_of_nobody.labels).item()
    assert loss == pytest.approx(state.best.validation_loss, abs=1e-6)


@pytest.mark.parametrize(("optimizer", "sam_radius"), [("sgd", 0), ("adamw", 0), ("muon", 0), ("muon", 0.1)])
@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_resumed_training_ends_bit_for_bit_like_an_uninterrupted_one(optimizer, sam_radius, killed_after):
    settings = config(optimizer=optimizer, learning_rate=0.05, sam_radius=sam_radius, sam_share=0.5)
    whole = train(new_state(settings))

    kept: list[bytes] = []

    class Die(Callback):
        def on_epoch_end(self, snapshot: Snapshot) -> None:
            kept.append(snapshot.checkpoint)
            if len(snapshot.history) == killed_after:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(new_state(settings), Die())
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


def test_the_seed_decides_the_order_of_the_images():
    orders = [torch.randperm(100, generator=new_state(config(seed=seed)).order).tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def epoch(number: int, loss: float, accuracy: float) -> EpochMetrics:
    return EpochMetrics(number, 1.0, 0.5, loss, accuracy, 0.1, 100.0)


def test_the_best_epoch_has_the_lowest_loss_whatever_its_accuracy_and_is_the_earliest_of_equals():
    state = new_state(config())
    for metrics in (epoch(1, 0.9, 0.8), epoch(2, 0.7, 0.6), epoch(3, 0.7, 0.6), epoch(4, 0.8, 0.9)):
        state.record(metrics)
    assert state.best.epoch == 2


def test_all_metrics_of_an_epoch_are_named_and_bear_the_label_of_their_part():
    assert epoch(3, 0.9, 0.8).by_name("head_") == {
        "head_train_loss": 1.0,
        "head_train_accuracy": 0.5,
        "head_validation_loss": 0.9,
        "head_validation_accuracy": 0.8,
        "head_learning_rate": 0.1,
        "head_images_per_second": 100.0,
    }


@pytest.mark.parametrize("chosen", range(4))
def test_validation_counts_the_images_whose_class_has_the_highest_logit(chosen):
    validation, model = split(64, 1), new_state(config()).model
    with torch.no_grad():
        model.network.layers[-1].bias[chosen] += 1000
    mean_loss, accuracy = loop._validate(model, validation)
    assert accuracy == pytest.approx((validation.labels == chosen).float().mean().item())
    exact = F.cross_entropy(compute_logits(model.eval(), validation.images), validation.labels)
    assert mean_loss == pytest.approx(exact.item(), rel=1e-5)


def test_the_speed_of_an_epoch_is_its_images_by_its_seconds():
    class Speed(Callback):
        def on_step(self, progress: Progress) -> None:
            self.shown = progress.images_per_second

    speed, began = Speed(), time.perf_counter()
    state = train(new_state(config(epochs=1)), speed)
    slowest = 256 / (time.perf_counter() - began)
    assert slowest < state.history[0].images_per_second < 100 * slowest
    assert slowest < speed.shown < 10 * state.history[0].images_per_second


def test_a_resumed_training_keeps_the_best_weights_of_before():
    first, resumed = new_state(config()), new_state(config())
    first.record(epoch(1, 0.5, 0.9))
    best = {name: value.clone() for name, value in first.model.state_dict().items()}
    with torch.no_grad():
        for parameter in first.model.parameters():
            parameter += 1
    first.record(epoch(2, 0.6, 0.8))
    resumed.load_bytes(first.to_bytes())
    moved = resumed.model.state_dict()["network.layers.0.weight"].clone()
    resumed.restore_best_weights()
    assert not torch.equal(resumed.model.state_dict()["network.layers.0.weight"], moved)
    for name, value in best.items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_a_training_of_layers_that_share_their_weights_is_resumed():
    def new() -> TrainingState:
        state = new_state(config(epochs=1))
        network = state.model.network
        network.same = network.layers[0]
        return state

    first, resumed = train(new()), new()
    resumed.load_bytes(first.to_bytes())
    for name, value in first.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    assert resumed.model.network.same.weight is resumed.model.network.layers[0].weight


def test_a_training_that_began_on_a_cpu_is_resumed_where_there_is_a_gpu(monkeypatch):
    data = new_state(config()).to_bytes()
    resumed = new_state(config())
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        resumed.load_bytes(data)
    assert torch.equal(resumed.order.get_state(), new_state(config()).order.get_state())


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


class SmallMemory(torch.nn.Module):
    """Holds at most so many images, as a GPU does."""

    def __init__(self, network: torch.nn.Module, images: int) -> None:
        super().__init__()
        self.network, self.images, self.seen = network, images, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(len(x))
            if len(x) > self.images:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore words.")
        return self.network(x)


def without_batch_norm(settings: TrainConfig, holds: int) -> tuple[TrainingState, SmallMemory]:
    torch.manual_seed(0)
    network = SmallMemory(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32 * 32 * 3, 4)), holds)
    return TrainingState(ImageClassifier(network, HALF, HALF), settings, steps_per_epoch(256, settings)), network


def test_a_batch_that_memory_does_not_hold_is_halved_and_trains_the_same(caplog, monkeypatch):
    # Sums of bfloat16 would differ by their rounding.
    monkeypatch.setattr(device, "precision", lambda device: torch.float32)
    settings = config(epochs=2, batch_size=64, learning_rate=1e-3)
    whole, _ = without_batch_norm(settings, 64)
    small, memory = without_batch_norm(settings, 20)
    train(whole)
    train(small)
    assert memory.seen[:4] == [64, 32, 16, 16]
    assert set(memory.seen[2:]) == {16}
    assert small.micro_batch == 16
    assert "does not hold 64 images" in caplog.text
    for name, value in whole.model.state_dict().items():
        assert torch.allclose(small.model.state_dict()[name], value, atol=1e-6), name


@pytest.mark.parametrize(("size", "seen"), [(32, [40]), (64, [40]), (128, [16, 16, 8])])
def test_a_cpu_takes_large_images_a_few_at_a_time(size, seen):
    sizes: list[int] = []
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    model = ImageClassifier(network, (0.5,) * 3, (0.25,) * 3)
    config = with_values(get_model("cnn").recipes["demo"], {"epochs": 1, "batch_size": 40, "optimizer": "sgd"})
    images = torch.zeros(40, size, size, 3, dtype=torch.uint8)
    part = Split(images, torch.zeros(40, dtype=torch.int64))
    fit(TrainingState(model, config, 1), part, Split(images[:1], part.labels[:1]))
    assert sizes[:-1] == seen


def test_the_parts_of_a_sharpness_aware_step_count_by_their_images(monkeypatch):
    monkeypatch.setattr(device, "precision", lambda device: torch.float32)
    settings = config(epochs=1, batch_size=64, learning_rate=1e-3, sam_share=1)
    plain, _ = without_batch_norm(settings, 64)
    # So small a perturbation leaves the gradients what they are.
    parts, memory = without_batch_norm(with_values(settings, {"sam_radius": 1e-6, "sam_images": 24}), 64)
    train(plain)
    train(parts)
    assert memory.seen[:12] == [24, 24, 24, 24, 16, 16] * 2
    assert parts.history[0].train_loss == pytest.approx(plain.history[0].train_loss, abs=1e-5)
    for name, value in plain.model.state_dict().items():
        assert torch.allclose(parts.model.state_dict()[name], value, atol=1e-5), name


def test_each_part_of_a_batch_is_perturbed_by_itself(monkeypatch):
    monkeypatch.setattr(device, "precision", lambda device: torch.float32)
    settings = config(epochs=1, batch_size=64, learning_rate=1e-3, sam_share=1, sam_radius=0.5, sam_images=64)
    together, _ = without_batch_norm(settings, 64)
    apart, _ = without_batch_norm(with_values(settings, {"sam_images": 16}), 64)
    train(together)
    train(apart)
    weights = [state.model.state_dict()["network.network.1.weight"] for state in (together, apart)]
    assert not torch.allclose(*weights, atol=1e-5)


def test_a_resumed_training_knows_what_memory_holds():
    settings = config(epochs=2, batch_size=64, learning_rate=1e-3)
    first, _ = without_batch_norm(settings, 20)
    train(first)
    resumed, _ = without_batch_norm(settings, 20)
    resumed.load_bytes(first.to_bytes())
    assert resumed.micro_batch == 16


def test_an_image_that_memory_does_not_hold_ends_training_with_advice():
    state, _ = without_batch_norm(config(), 0)
    with pytest.raises(TrainingError, match=r"batch of 1 images: CUDA out of memory\. Tried .* smaller batch_size"):
        train(state)


def test_processes_that_train_together_do_not_halve_a_batch(monkeypatch):
    monkeypatch.setattr(loop.distributed, "size", lambda: 2)
    state, _ = without_batch_norm(config(), 16)
    batch = split(32, 0)
    with pytest.raises(TrainingError, match="batch of 32 images"):
        loop._forward_backward(state, state.model, batch.images, batch.labels)
    assert state.micro_batch is None
