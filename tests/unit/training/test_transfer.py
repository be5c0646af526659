"""The head learns first, on features that are computed once; the backbone does not notice."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.errors import ConfigError
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import ImageClassifier, build_classifier
from cifar_tasks.training import device, transfer
from cifar_tasks.training.augment import steps_per_epoch
from cifar_tasks.training.callbacks import Callback, Snapshot
from cifar_tasks.training.logits import compute_logits
from cifar_tasks.training.loop import Split, fit
from cifar_tasks.training.state import TrainingState
from cifar_tasks.training.transfer import (
    LastLayers,
    compute_features,
    first_trained_layer,
    fit_classifier,
    head_config,
    without_transfer,
)
from tests.unit.data.sources import peak_megabytes

GREY = (0.5, 0.5, 0.5)


def config(**changes) -> TrainConfig:
    whole = {"trained_stages": None, "input_size": 0}
    wanted = {**whole, "epochs": 1, "batch_size": 16, "head_epochs": 3, "head_learning_rate": 1e-3, **changes}
    return with_values(get_model("resnet50").recipes["demo"], wanted)


def resnet50() -> ImageClassifier:
    torch.manual_seed(0)
    return build_classifier(config(), 10, GREY, GREY)


class TinyResNet(nn.Module):
    """Named like a ResNet50, with all kinds of state that one has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8)
        self.fc = nn.Sequential(nn.Dropout(0.1), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.bn1(self.conv1(x)).relu().mean((2, 3)))


def classifier() -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(TinyResNet(), GREY, GREY).to(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def split() -> Split:
    return noise()


def noise() -> Split:
    """64 images that only a network which learns them by heart tells apart."""
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (64, 32, 32, 3), dtype=torch.uint8, generator=random)
    return Split(images, torch.randint(0, 10, (64,), generator=random))


class Notes(Callback):
    """Keeps what it is told, resumes from `checkpoints`, and may end the training."""

    def __init__(self, checkpoints: dict[str, bytes] | None = None, die_after: tuple[str, int] | None = None) -> None:
        self.checkpoints, self.die_after = dict(checkpoints or {}), die_after
        self.told: list[str] = []
        self.snapshots: list[Snapshot] = []

    def on_train_start(self, state: TrainingState) -> None:
        if checkpoint := self.checkpoints.get(state.label):
            state.load_bytes(checkpoint)
        self.told.append(f"{state.label}start")

    def on_epoch_end(self, snapshot: Snapshot) -> None:
        self.told.append(f"{snapshot.label}{len(snapshot.history)}")
        self.snapshots.append(snapshot)
        self.checkpoints[snapshot.label] = snapshot.checkpoint
        if self.die_after == (snapshot.label, len(snapshot.history)):
            raise KeyboardInterrupt

    def on_train_end(self, state: TrainingState, error: BaseException | None) -> None:
        self.told.append(f"{state.label}end")


class HeadOnFrozenBackbone(nn.Module):
    """The slow way: features are computed anew for every batch."""

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.head, self.model = model.network.fc, [model]  # in a list: not among the parameters

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = compute_features(self.model[0], "fc", images)
        return self.head.train()(features)


def train_head(head: nn.Module, settings: TrainConfig, train: Split) -> TrainingState:
    state = TrainingState(head, settings, steps_per_epoch(len(train.labels), settings))
    fit(state, train, train)
    return state


def test_cached_and_recomputed_features_give_the_same_head(split):
    cached, recomputed = resnet50(), resnet50()
    features = Split(compute_features(cached, "fc", split.images), split.labels)
    fast = train_head(cached.network.fc, head_config(config()), features)
    slow = train_head(HeadOnFrozenBackbone(recomputed), head_config(config()), split)
    for name, weight in cached.network.fc.state_dict().items():
        assert torch.allclose(weight, recomputed.network.fc.state_dict()[name], atol=1e-4), name
    assert fast.best.validation_loss == pytest.approx(slow.best.validation_loss, abs=1e-4)
    assert fast.history[-1].train_loss < fast.history[0].train_loss


def test_computing_features_says_how_far_it_is(split, monkeypatch, caplog):
    monkeypatch.setattr(transfer, "LOG_SECONDS", 0.0)
    with caplog.at_level("INFO"):
        compute_features(classifier(), "fc", split.images)
    assert caplog.messages[-1] == f"features of {len(split.images)} of {len(split.images)} images"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak of memory")
def test_memory_holds_the_features_once():
    model = ImageClassifier(nn.Sequential(nn.Identity(), nn.Flatten()), GREY, GREY, input_size=96)
    images = torch.zeros(1000, 32, 32, 3, dtype=torch.uint8)
    compute_features(model, "1", images[:64])
    Path("/proc/self/clear_refs").write_text("5")  # from here on a new peak counts
    before = peak_megabytes()
    features = compute_features(model, "1", images)
    assert peak_megabytes() - before < 1.6 * features.nbytes / 2**20


@pytest.mark.parametrize("model", ["resnet50", "cnn"])
def test_the_head_s_features_give_the_classifier_s_logits(model, split, monkeypatch):
    monkeypatch.setattr(device, "precision", lambda _: torch.float32)
    spec = get_model(model)
    torch.manual_seed(0)
    whole = build_classifier(spec.recipes["demo"], 10, GREY, GREY)
    head = spec.head(whole.network)
    features = compute_features(whole, head, split.images)
    logits = LastLayers(whole.network.get_submodule(head), whole.logit_scale)(features)
    exact = compute_logits(whole.eval(), split.images)
    assert torch.allclose(logits, exact, atol=1e-4)


def test_the_head_trains_alone_before_the_whole_network(split):
    model, notes = classifier(), Notes()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        fit_classifier(model, config(), split, split, [first := Notes(die_after=("head_", 3))])
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"network.fc.{name}" for name in model.network.fc.state_dict()}
    assert first.told == ["start", "head_start", "head_1", "head_2", "head_3", "head_end", "end"]

    fit_classifier(classifier(), config(), split, split, [notes])
    assert notes.told == [*first.told[:-1], "1", "end"]


def test_what_the_head_has_learnt_is_what_the_whole_network_predicts(split):
    model, losses = classifier(), []

    class Compare(Callback):
        def on_train_end(self, state: TrainingState, error: BaseException | None) -> None:
            if state.label:
                whole = F.cross_entropy(compute_logits(model.eval(), split.images), split.labels).item()
                losses.append((whole, state.best.validation_loss))

    fit_classifier(model, config(), split, split, [Compare()])
    ((whole, head),) = losses
    assert whole == pytest.approx(head, rel=0.02)  # features may be bfloat16's


def test_best_weights_are_in_the_model_afterwards(split):
    model = classifier()
    state = fit_classifier(model, config(epochs=2, learning_rate=0.01), split, split)
    loss = F.cross_entropy(compute_logits(model.eval(), split.images), split.labels).item()
    assert loss == pytest.approx(state.best.validation_loss, rel=1e-5)


@pytest.mark.parametrize(
    ("killed_after", "told"),
    [
        (("head_", 2), ["start", "head_start", "head_3", "head_end", "1", "2", "end"]),
        (("head_", 3), ["start", "head_start", "head_end", "1", "2", "end"]),
        (("", 1), ["start", "2", "end"]),
    ],
)
def test_a_resumed_training_repeats_no_epoch_of_either_part(split, killed_after, told):
    with pytest.raises(KeyboardInterrupt):
        fit_classifier(classifier(), config(epochs=2), split, split, [first := Notes(die_after=killed_after)])
    whole, resumed = classifier(), classifier()
    fit_classifier(whole, config(epochs=2), split, split)
    torch.manual_seed(999)  # another process has another random state
    fit_classifier(resumed, config(epochs=2), split, split, [again := Notes(first.checkpoints)])
    assert again.told == told
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_the_log_says_of_how_many_images_the_features_are_computed(split, caplog):
    train, validation = (Split(split.images[:count], split.labels[:count]) for count in (48, 16))
    with caplog.at_level("INFO"):
        fit_classifier(classifier(), config(epochs=1), train, validation)
    assert "computing the features of 64 images once" in caplog.messages


KINDS = ("resnet50", "efficientnet_lite0", "timm/resnet10t.c3_in1k")
"""torchvision's, timm's with installed weights, timm's by name."""


def whole(kind: str, **values) -> tuple[ImageClassifier, TrainConfig]:
    """A network of this kind, at the size of the images, and a short training of it without regularisation."""
    plain = {"crop_padding": 0, "flip": False, "label_smoothing": 0.0, "weight_decay": 0.0, "input_size": 0}
    plain |= {"trained_stages": None}
    wanted = with_values(get_model(kind).recipes["demo"], {**plain, "batch_size": 32, "patience": 99, **values})
    torch.manual_seed(0)
    return build_classifier(wanted, 10, GREY, GREY), wanted


@pytest.mark.parametrize("kind", KINDS)
def test_of_every_kind_only_the_head_moves_in_the_head_epochs(kind, split):
    model, wanted = whole(kind, head_epochs=1, epochs=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        fit_classifier(model, wanted, split, split, [Notes(die_after=("head_", 1))])
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    head = get_model(kind).head(model.network)
    assert moved == {f"network.{head}.{name}" for name in model.network.get_submodule(head).state_dict()}


@pytest.mark.parametrize("kind", KINDS)
def test_of_every_kind_cached_features_are_those_of_single_images(kind, split, monkeypatch):
    monkeypatch.setattr(device, "precision", lambda _: torch.float32)
    model, _ = whole(kind)
    head = get_model(kind).head(model.network)
    cached = compute_features(model, head, split.images[:4])
    recomputed = torch.cat([compute_features(model, head, split.images[number : number + 1]) for number in range(4)])
    assert torch.allclose(cached, recomputed, atol=1e-4)
    assert torch.allclose(model.network.get_submodule(head)(cached), model.eval()(split.images[:4]), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS[1:])  # ResNet50 takes longer: tests/faults/test_learning.py
def test_every_kind_overfits_64_images(kind, split):
    class UntilAllAreRight(Callback):
        def on_epoch_end(self, snapshot: Snapshot) -> None:
            if snapshot.history[-1].train_accuracy == 1:
                raise KeyboardInterrupt

    model, wanted = whole(kind, epochs=20, learning_rate=3e-3, dropout=0.0)
    with pytest.raises(KeyboardInterrupt):
        fit_classifier(model, without_transfer(wanted), split, split, [UntilAllAreRight()])


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("resnet50", "layer4"),
        ("efficientnet_lite0", "blocks.6"),
        ("timm/resnet10t.c3_in1k", "layer4"),
        ("timm/convnext_atto", "head"),
    ],
)
def test_of_every_kind_the_last_stages_move_alone_and_learn(kind, first, split):
    model, wanted = whole(kind, head_epochs=0, trained_stages=1, epochs=8, learning_rate=3e-3)
    assert first_trained_layer(model, wanted, split.images[:2]) == first
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = fit_classifier(model, wanted, split, split)
    still = {f"network.{name}" for name, stage in get_model(kind).stages_to_head(model.network).items() if stage > 1}
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in still)
    assert not any(torch.equal(before[name], value) for name, value in model.named_parameters() if name not in still)
    assert state.history[-1].train_loss < state.history[0].train_loss
    loss = F.cross_entropy(compute_logits(model.eval(), split.images), split.labels).item()
    assert loss == pytest.approx(state.best.validation_loss, rel=1e-5)


def test_the_head_trains_alone_where_the_stages_of_a_network_cannot_run_apart(split, caplog):
    kind = "timm/vit_tiny_patch16_224"  # its position embeddings are added between the stages
    model, wanted = whole(kind, head_epochs=0, trained_stages=2, epochs=1, input_size=32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_classifier(model, wanted, split, split)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"network.head.weight", "network.head.bias"}
    assert f"the stages of {kind} cannot run apart: its head trains alone" in caplog.messages


@pytest.mark.parametrize(
    "kind",
    [
        "timm/vit_medium_patch16_gap_240",  # adds its position embeddings a second time, which changes little
        "timm/vitamin_small_224",
        "timm/xcit_nano_12_p16_224",  # never calls the first layer itself
        "timm/hrnet_w18_small",  # gives the first layer a list
    ],
)
def test_only_what_a_network_computes_from_a_layer_on_is_trained_apart(kind, split):
    model, wanted = whole(kind, trained_stages=2, input_size=96)
    assert first_trained_layer(model, wanted, split.images[:2]) == get_model(kind).head(model.network)


def test_a_head_that_is_a_convolution_learns_alone(split):
    kind = "timm/dla46_c"
    model, wanted = whole(kind, head_epochs=2, epochs=1, head_learning_rate=1e-2)
    with pytest.raises(KeyboardInterrupt):
        fit_classifier(model, wanted, split, split, [notes := Notes(die_after=("head_", 2))])
    first, last = notes.snapshots[-1].history
    assert last.train_loss < first.train_loss
    loss = F.cross_entropy(compute_logits(model.eval(), split.images), split.labels).item()
    assert loss == pytest.approx(last.validation_loss, rel=0.02)  # features may be bfloat16's


def test_a_layer_that_is_never_called_is_named(split):
    model = classifier()
    model.network.idle = nn.Linear(8, 10)
    with pytest.raises(ConfigError, match="never calls its layer idle: choose another network"):
        compute_features(model, "idle", split.images)


def test_a_killed_training_of_the_last_stages_resumes_to_the_same_weights(split):
    def fit_last(*callbacks: Callback) -> ImageClassifier:
        model, wanted = whole("timm/resnet10t.c3_in1k", head_epochs=1, trained_stages=1, epochs=2)
        fit_classifier(model, wanted, split, split, callbacks)
        return model

    with pytest.raises(KeyboardInterrupt):
        fit_last(first := Notes(die_after=("", 1)))
    undisturbed, resumed = fit_last(), fit_last(again := Notes(first.checkpoints))
    assert again.told == ["start", "2", "end"]
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_in_training_depthwise_convolutions_alone_compute_in_float32(split, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    model, wanted = whole("efficientnet_lite0", head_epochs=0, epochs=1)
    types: dict[bool, set[torch.dtype]] = {False: set(), True: set()}

    def note(layer: nn.Conv2d, _: object, output: torch.Tensor) -> None:
        if layer.training:
            types[layer.groups > 1].add(output.dtype)

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    fit_classifier(model, wanted, split, Split(split.images[:2], split.labels[:2]))
    assert types == {False: {torch.bfloat16}, True: {torch.float32}}


@pytest.mark.parametrize(("less", "expected"), [(0, None), (1, "layer1")])
def test_as_many_stages_as_there_are_mean_the_whole_network(less, expected, split):
    kind = "timm/resnet10t.c3_in1k"
    model, wanted = whole(kind)
    stages = max(get_model(kind).stages_to_head(model.network).values())
    wanted = with_values(wanted, {"trained_stages": stages - less})
    assert first_trained_layer(model, wanted, split.images[:2]) == expected


def test_without_head_epochs_the_whole_network_trains_at_once(split):
    fit_classifier(classifier(), without_transfer(config()), split, split, [notes := Notes()])
    assert notes.told == ["start", "1", "end"]


def test_the_head_is_trained_at_its_own_rate_and_without_augmentation():
    settings = config(head_learning_rate=0.25, head_epochs=5, stage_decay=0.5, crop_padding=3, flip=True)
    alone = head_config(settings)
    assert (alone.epochs, alone.optimizer.learning_rate, alone.transfer.stage_decay) == (5, 0.25, 1.0)
    assert (alone.augmentation.crop_padding, alone.augmentation.flip) == (0, False)
