"""How figures are taken on machines that are shared and noisy: in turn, and compared round by round."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import track

Candidate = Callable[[], float]
"""Does its work once and returns its speed, the larger the better: images/s, GFLOP/s."""

ROUNDS = 5


@dataclass(frozen=True)
class Figures:
    """A figure of every candidate in every round."""

    rounds: Mapping[str, Sequence[float]]

    def __getitem__(self, name: str) -> float:
        """The candidate's median."""
        return statistics.median(self.rounds[name])

    def ratio(self, faster: str, slower: str, factor: float = 1.0) -> float:
        """Median of the rounds' own ratios: what slows a whole round down leaves them as they are."""
        pairs = zip(self.rounds[faster], self.rounds[slower], strict=True)
        return statistics.median(factor * one / other for one, other in pairs)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    figures: Mapping[str, str]
    """Of each candidate, with its unit."""
    ratio: float | None = None
    wanted: float | None = None


def interleaved(candidates: Mapping[str, Candidate], rounds: int = ROUNDS, label: str = "measuring") -> Figures:
    """Each candidate once to warm up, then all in turn, `rounds` times: a, b, a, b …"""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for number in track(range(rounds + 1), label, console=Console(stderr=True)):
        for name, measure in candidates.items():
            figure = measure()
            if number > 0:
                taken[name].append(figure)
    return Figures(taken)


def rate(count: float, work: Callable[[], object]) -> Candidate:
    """`work` as a candidate that gets through `count` of something."""

    def measure() -> float:
        began = time.perf_counter()
        work()
        return count / (time.perf_counter() - began)

    return measure
