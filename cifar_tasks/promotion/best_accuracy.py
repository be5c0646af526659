"""Which version is the champion: values in, a decision with its reasons out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Candidate:
    """A registered version and what is known of it."""

    version: int
    model: str
    test_accuracy: float
    """Share of 0–1, on the test set named by `dataset`."""
    dataset: str
    """Digest of the dataset version."""
    classes: tuple[str, ...]
    parameters: int
    placeholder: bool
    """Trained on placeholder data."""


@dataclass(frozen=True)
class Unscored:
    """A champion that cannot be compared."""

    version: int
    reason: str
    gone: bool
    """Nobody can use it any more: its stored model was deleted or is damaged."""


@dataclass(frozen=True)
class Decision:
    """What was decided; kept with the version."""

    champion: int
    """The version that is the champion."""
    replaced: int | None
    """The champion before, if another version takes its place."""
    challenger: int | None
    """The best version of this run, if it was compared and did not win."""
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """The highest test accuracy; of equals the smaller model, then the older version."""
    return max(candidates, key=lambda c: (c.test_accuracy, -c.parameters, -c.version))


def decide(candidates: Sequence[Candidate], champion: Candidate | Unscored | None) -> Decision:
    """Compare the best candidate with the champion in place, if there is one.

    A champion's accuracy must have been measured on the candidates' test set, unless the classes differ. A champion
    that cannot be scored stays, because a person has chosen it, unless it is gone.
    """
    best = best_of(candidates)
    reasons = (_ranking(candidates),)
    if champion is None:
        return Decision(best.version, None, None, (*reasons, f"version {best.version} is the first champion"))
    if champion.version in {candidate.version for candidate in candidates}:
        return Decision(champion.version, None, None, (*reasons, f"version {champion.version} is the champion already"))
    if isinstance(champion, Unscored):
        what = f"the champion version {champion.version} cannot be scored: {champion.reason}"
        if champion.gone:
            return Decision(
                best.version, champion.version, None, (*reasons, f"{what} Version {best.version} replaces it")
            )
        remedy = f"It stays. Set the alias champion to version {best.version} to use that instead"
        return Decision(champion.version, None, best.version, (*reasons, f"{what} {remedy}"))
    wins, reason = _compare(best, champion)
    if wins:
        return Decision(best.version, champion.version, None, (*reasons, reason))
    challenger = best.version if best.classes == champion.classes else None
    return Decision(champion.version, None, challenger, (*reasons, reason))


def _compare(best: Candidate, champion: Candidate) -> tuple[bool, str]:
    names = f"version {best.version} ({best.model})", f"version {champion.version} ({champion.model})"
    if best.classes != champion.classes:
        if champion.placeholder and not best.placeholder:
            return True, f"{names[0]} knows the real classes; {names[1]} was trained on placeholder data"
        return False, (
            f"{names[0]} and the champion {names[1]} know different classes and cannot be compared: "
            "the champion stays. Register under another name (form field, or CIFAR_REGISTERED_MODEL) to keep both."
        )
    if best.dataset != champion.dataset:
        raise ValueError("the champion's accuracy was measured on another test set")
    measured = f"{best.test_accuracy:.2%} against {champion.test_accuracy:.2%} on the same test images"
    if best.test_accuracy > champion.test_accuracy:
        return True, f"{names[0]} beats the champion {names[1]}: {measured}"
    return False, f"{names[0]} does not beat the champion {names[1]}: {measured}"


def _ranking(candidates: Sequence[Candidate]) -> str:
    ranked = sorted(candidates, key=lambda c: -c.test_accuracy)
    return "test accuracy: " + ", ".join(f"{c.model} {c.test_accuracy:.2%} (version {c.version})" for c in ranked)
