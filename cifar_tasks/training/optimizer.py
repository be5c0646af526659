"""Parameter groups, optimizers and the one-cycle schedule."""

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn
from torch.optim import SGD, AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from cifar_tasks.config import TrainConfig
from cifar_tasks.models import get_model

MOMENTUM = 0.9
"""Of SGD and of Muon, whose own default, 0.95, gave less (docs/training-log.md)."""


class FilterMuon(Muon):
    """Muon for convolution filters: each (out, in, h, w) is taken as the matrix (out, h · w · in).

    Steps in the directions of the orthogonalised gradient (K. Jordan, https://kellerjordan.github.io/posts/muon/);
    torch's own takes matrices only. The filters must be channels_last, so that the matrix is a view of them.
    """

    def __init__(self, filters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        self.filters = list(filters)
        matrices = [nn.Parameter(_matrix(weight.data)) for weight in self.filters]
        super().__init__(matrices, lr=lr, weight_decay=weight_decay, momentum=MOMENTUM)

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for weight, matrix in zip(self.filters, self.param_groups[0]["params"], strict=True):
            assert weight.grad is not None  # noqa: S101
            matrix.grad = _matrix(weight.grad)
        super().step()  # type: ignore[no-untyped-call]

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: ARG002
        for weight in self.filters:
            weight.grad = None


def _matrix(filters: Tensor) -> Tensor:
    return filters.permute(0, 2, 3, 1).reshape(len(filters), -1)


MUON_RATE = 0.25
"""Muon's learning rate as a share of the configured one, which everything else gets."""
MUON_DECAY = 20
"""Muon's weight decay as a multiple of the configured one. Its steps have a fixed length: without a strong decay the
weights grow and the steps become small beside them."""


def build_optimizers(model: nn.Module, config: TrainConfig) -> list[Optimizer]:
    """One optimizer, or two where Muon takes the filters of all convolutions but the first.

    Weight decay acts on matrices and filters only: biases and batch norm have one dimension. With `stage_decay` below
    1, which needs an `ImageClassifier`, stages learn the slower the nearer they are to the image.
    """
    chosen = config.optimizer
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    filters = [(name, p) for name, p in named if p.ndim == 4][1:] if chosen.optimizer == "muon" else []
    taken = {name for name, _ in filters}
    stages = _stages_to_head(model, config)
    groups = list(_groups([(name, p) for name, p in named if name not in taken], stages, config))
    fused = {p.device.type for _, p in named} <= {"cpu", "cuda"}
    if chosen.optimizer == "adamw":
        return [AdamW(groups, lr=chosen.learning_rate, fused=fused)]
    optimizers: list[Optimizer] = [SGD(groups, lr=chosen.learning_rate, momentum=MOMENTUM, nesterov=True, fused=fused)]
    if filters:
        rate = chosen.learning_rate * MUON_RATE
        optimizers.append(FilterMuon((p for _, p in filters), rate, chosen.weight_decay * MUON_DECAY))
    return optimizers


def _groups(
    named: Iterable[tuple[str, nn.Parameter]], stages: Mapping[str, int], config: TrainConfig
) -> Iterator[dict[str, object]]:
    gathered: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        factor = config.transfer.stage_decay ** stages[name] if stages else 1.0
        decay = config.optimizer.weight_decay if parameter.ndim > 1 else 0.0
        gathered.setdefault((config.optimizer.learning_rate * factor, decay), []).append(parameter)
    for (rate, decay), parameters in gathered.items():
        yield {"params": parameters, "lr": rate, "weight_decay": decay}


def _stages_to_head(model: nn.Module, config: TrainConfig) -> dict[str, int]:
    """Parameter of an `ImageClassifier` → stages between it and the head; nothing where all learn at one rate."""
    if config.transfer.stage_decay == 1:
        return {}
    network = model.get_submodule("network")
    return {f"network.{name}": stages for name, stages in get_model(config.model).stages_to_head(network).items()}


def one_cycle(optimizer: Optimizer, config: TrainConfig, steps: int) -> OneCycleLR:
    """Learning rates that rise linearly to their peak and fall linearly to almost 0, over `steps`."""
    steps = max(4, steps)  # torch divides by the length of the rise and of the fall
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=max(config.optimizer.warmup_fraction, 2 / steps),
        anneal_strategy="linear",
        cycle_momentum=False,
        div_factor=10,
        final_div_factor=100,
    )
