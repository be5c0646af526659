"""Where a training can be followed while it runs: MLflow always, Weights & Biases where it is set up."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Tracker(Protocol):
    """Hears of one training, from one thread at a time and in order."""

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Configuration and what the training starts from; said again when a training is resumed."""

    def log_epoch(self, epoch: int, metrics: Mapping[str, float], label: str = "") -> None:
        """Numbers of one epoch, counted from 1; an epoch that is known already changes nothing.

        `label` precedes the names in a part of the training that counts its own epochs.
        """

    def log_figure(self, figure: "Figure", name: str) -> None:
        """A picture; `name` ends in .png."""

    def log_ending(self, reason: str, best_epoch: int) -> None:
        """Why training ended, and the epoch whose weights were kept."""
