"""The decision, one pure function: evidence in, decision and reasons out."""

from collections.abc import Sequence

from cifar_tasks.errors import ConfigError
from cifar_tasks.evaluation.comparison import Comparison
from cifar_tasks.promotion.checks import against, floors
from cifar_tasks.promotion.evidence import Champion, Check, Decision, Scored
from cifar_tasks.promotion.limits import Limits, Mode


def decide(
    candidate: Scored,
    champion: Champion,
    comparison: Comparison | None,
    limits: Limits,
    mode: Mode,
    reason: str = "",
    uses: int = 0,
) -> Decision:
    """Whether the candidate becomes the champion.

    `comparison` is needed if both were evaluated and have the same classes. `reason` is what a person wrote; the mode
    `force` demands it (`ConfigError`). `uses` counts the earlier decisions on the same test set.
    """
    reason = " ".join(reason.split())
    if mode == "force" and not reason:
        raise ConfigError("the mode force needs a reason, which the promotion log keeps.")
    in_place = champion is not None and champion.version == candidate.version
    checks = [] if in_place else [*floors(candidate, limits), *against(candidate, champion, comparison, limits)]
    promote = not in_place and (mode == "force" or (mode != "never" and all(check.passed for check in checks)))
    reasons = [
        _result(candidate, champion, promote),
        *_evidence(checks),
        _mode(mode, promote),
        f"reason given: {reason}" if reason else "",
        "" if in_place else _wear(uses, limits),
    ]
    return Decision(
        candidate=candidate,
        champion=champion,
        comparison=comparison,
        limits=limits,
        mode=mode,
        reason=reason,
        uses=uses,
        checks=tuple(checks),
        promote=promote,
        needs_approval=promote and mode == "approve",
        challenger=champion is not None
        and not in_place
        and (not isinstance(champion, Scored) or champion.classes == candidate.classes),
        reasons=tuple(text for text in reasons if text),
    )


def _result(candidate: Scored, champion: Champion, promote: bool) -> str:
    name = f"version {candidate.version} ({candidate.model})"
    if champion is None:
        return f"{name} {'is the first champion' if promote else 'does not become the first champion'}"
    if champion.version == candidate.version:
        return f"{name} is the champion already"
    other = f"version {champion.version}" + (f" ({champion.model})" if isinstance(champion, Scored) else "")
    return f"{name} {'replaces' if promote else 'does not replace'} the champion {other}"


def _evidence(checks: Sequence[Check]) -> list[str]:
    """What failed, and the comparison with the champion."""
    return [check.text for check in checks if not check.passed or check.name in ("champion", "gain")]


def _mode(mode: Mode, promote: bool) -> str:
    texts = {"force": "mode force: the checks do not decide", "never": "mode never: nothing is promoted"}
    return "mode approve: a person decides" if mode == "approve" and promote else texts.get(mode, "")


def _wear(uses: int, limits: Limits) -> str:
    if uses < limits.worn_after:
        return f"earlier decisions on these test images: {uses}"
    return f"the test set is worn, {uses} earlier decisions have used it: prepare data with new test images"
