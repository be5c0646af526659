"""Transfer learning: the head learns first, on pretrained stages that stay as they are, then the whole network or its
last stages.

Stages that stay the same give the same features in every epoch, so these are computed once and the rest learns from
them.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor, nn

from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.errors import ConfigError
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import ImageClassifier
from cifar_tasks.training import distributed
from cifar_tasks.training.augment import steps_per_epoch
from cifar_tasks.training.callbacks import Callback
from cifar_tasks.training.device import autocast, inference_batches
from cifar_tasks.training.loop import LOG_SECONDS, Split, started, train_epochs
from cifar_tasks.training.state import TrainingState

TOLERANCE = 1e-4
"""Between the logits of a whole network and those of its parts, relative to the largest one: rounding of float32."""

_log = logging.getLogger(__name__)


def fit_classifier(
    model: ImageClassifier, config: TrainConfig, train: Split, validation: Split, callbacks: Sequence[Callback] = ()
) -> TrainingState:
    """Train `model`: for `head_epochs` its head alone, then all of it or its `trained_stages`; the best weights are in
    `model` afterwards.

    A callback may resume each of the two parts in `on_train_start`. The head does not train again once the second part
    has finished an epoch.
    """
    first = first_trained_layer(model, config, train.images[:2])
    part = model if first is None else last_layers(model, config, first)
    used = config if first is None else on_features(config)
    state = TrainingState(distributed.synchronised(part), used, steps_per_epoch(len(train.images), used))
    with started(state, callbacks):
        if config.transfer.head_epochs and not state.history:
            _fit_head(model, config, train, validation, callbacks)
            state.model.load_state_dict(part.state_dict())
        if first is not None and not state.finished:
            train, validation = _features_of(model, first, train, validation, exact=True)
        train_epochs(state, train, validation, callbacks)
    part.load_state_dict(state.model.state_dict())
    return state


def _fit_head(
    model: ImageClassifier, config: TrainConfig, train: Split, validation: Split, callbacks: Sequence[Callback]
) -> None:
    name, alone = get_model(config.model).head(model.network), head_config(config)
    head = last_layers(model, config, name)
    state = TrainingState(head, alone, steps_per_epoch(len(train.images), alone), label="head_")
    with started(state, callbacks):
        if not state.finished:
            train, validation = _features_of(model, name, train, validation)
        train_epochs(state, train, validation, callbacks)


class LastLayers(nn.Module):
    """The last layers of a classifier: features in, logits out."""

    def __init__(self, network: nn.Module, logit_scale: float) -> None:
        super().__init__()
        self.network, self.logit_scale = network, logit_scale

    def forward(self, features: Tensor) -> Tensor:
        if features.ndim == 4:
            features = features.contiguous(memory_format=torch.channels_last)
        # A head that is a convolution gives (N, C, 1, 1): timm's networks flatten after it.
        logits: Tensor = self.network(features).flatten(1) * self.logit_scale
        return logits


def last_layers(model: ImageClassifier, config: TrainConfig, first: str) -> LastLayers:
    """From the layer `first` of the network on, with the weights of `model` themselves.

    All layers before it, in the order in which the network defines them, let their input pass.
    """
    network = model.network
    if first == get_model(config.model).head(network):
        return LastLayers(network.get_submodule(first), model.logit_scale)
    tensors = chain(network.parameters(), network.buffers())
    part = deepcopy(network, {id(tensor): tensor for tensor in tensors})
    path = first.split(".")
    for depth, name in enumerate(path):
        parent = part.get_submodule(".".join(path[:depth]))
        children = [child for child, _ in parent.named_children()]
        for earlier in children[: children.index(name)]:
            parent.set_submodule(earlier, nn.Identity())
    return LastLayers(part, model.logit_scale)


def first_trained_layer(model: ImageClassifier, config: TrainConfig, images: Tensor) -> str | None:
    """Name of the layer with which the `trained_stages` begin; none if all stages train.

    It is the head where the stages of the network cannot run apart, which is tried with a few `images`.
    """
    wanted, spec = config.transfer.trained_stages, get_model(config.model)
    stages = spec.stages_to_head(model.network)
    if wanted is None or wanted >= max(stages.values()):
        return None
    head = spec.head(model.network)
    first = _outermost({name for name, stage in stages.items() if stage <= wanted}, stages)
    if first == head or _runs_apart(model, last_layers(model, config, first), first, images):
        return first
    _log.warning("the stages of %s cannot run apart: its head trains alone", config.model)
    return head


def _outermost(trained: set[str], names: Iterable[str]) -> str:
    """The largest layer that begins with the first of the trained parameters and has trained ones only."""
    names = list(names)
    path = next(name for name in names if name in trained).split(".")
    layers = (".".join(path[:depth]) for depth in range(1, len(path)))
    return next(layer for layer in layers if all(name in trained for name in names if name.startswith(f"{layer}.")))


@torch.no_grad()
def _runs_apart(model: ImageClassifier, part: LastLayers, first: str, images: Tensor) -> bool:
    """Whether the last layers give of the features what the whole model gives of the images.

    In float32, because a fresh head's logits are small: what a wrong split changes in them, such as position
    embeddings that are added twice, can be less than what bfloat16 rounds away.
    """
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # GPUs would round to ten bits
        whole = model.eval()(images.to(model.mean.device))
        try:
            apart = part.eval()(compute_features(model, first, images, torch.float32))
        except Exception:  # whatever a network's code raises, also for a layer that is never called or takes a list
            return False
    return whole.shape == apart.shape and bool((apart - whole).abs().max() < TOLERANCE * whole.abs().max())


def head_config(config: TrainConfig) -> TrainConfig:
    """How the head alone is trained."""
    transfer = config.transfer
    values = {"epochs": transfer.head_epochs, "learning_rate": transfer.head_learning_rate, "head_epochs": 0}
    return with_values(on_features(config), values)


def on_features(config: TrainConfig) -> TrainConfig:
    """How last layers are trained: at one rate, and without augmentation, because their features are computed once."""
    return with_values(config, {"crop_padding": 0, "flip": False, "stage_decay": 1.0})


def without_transfer(config: TrainConfig) -> TrainConfig:
    """How the same model is trained from random weights: all stages at once and at one rate."""
    return with_values(config, {"head_epochs": 0, "stage_decay": 1.0, "trained_stages": None})


def _features_of(
    model: ImageClassifier, layer: str, train: Split, validation: Split, *, exact: bool = False
) -> tuple[Split, Split]:
    """With `exact`, validation is that of the model as it will be saved, in float32 from the first layer on."""
    _log.info("computing the features of %d images once", len(train.images) + len(validation.images))
    return (
        Split(compute_features(model, layer, train.images), train.labels),
        Split(compute_features(model, layer, validation.images, torch.float32 if exact else None), validation.labels),
    )


@torch.no_grad()
def compute_features(
    model: ImageClassifier, layer: str, images: Tensor, precision: torch.dtype | None = None
) -> Tensor:
    """What a layer of the network gets of uint8 images (N, H, W, C): float32 (N, …), on the model's device.

    Computed in evaluation mode: batch norm uses its running statistics and leaves them alone. In the precision that
    the device is fast in, unless one is given.
    """
    features: Tensor | None = None
    device, done, logged = model.mean.device, 0, time.perf_counter()

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal features
        batch = inputs[0]
        if features is None:  # one tensor for all images: joined afterwards, batches would need the memory twice
            layout = torch.channels_last if batch.ndim == 4 else torch.contiguous_format
            features = torch.empty((len(images), *batch.shape[1:]), device=device, memory_format=layout)
        features[done : done + len(batch)] = batch
        raise _StopForward

    hook = model.eval().network.get_submodule(layer).register_forward_pre_hook(keep)
    try:
        with autocast(device, precision):
            for batch in inference_batches(images, device):
                with suppress(_StopForward):
                    model(batch.to(device))
                done += len(batch)
                if time.perf_counter() - logged >= LOG_SECONDS:
                    logged = time.perf_counter()
                    _log.info("features of %d of %d images", done, len(images))
    finally:
        hook.remove()
    if features is None:
        raise ConfigError(f"the network never calls its layer {layer}: choose another network.")
    return features


class _StopForward(Exception):
    """Ends a forward pass whose later layers nobody needs."""
