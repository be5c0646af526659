"""Recall per class as small bars, for the table of versions: from their stored evaluations."""

import logging
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cifar_tasks.errors import CifarError, IntegrityError
from cifar_tasks.evaluation.metrics import ClassScores
from cifar_tasks.evaluation.names import printable, shortened
from cifar_tasks.tracking.evaluations import read_evaluation
from cifar_tasks.tracking.saved_model import DIGEST_TAG
from cifar_tasks.tracking.version_evidence import TEST_SET
from models_page.reading import Cached, Result, asking, store
from models_page.version_table import Version

MAX_BARS = 20
"""Of one version. With more classes the lowest are shown."""
READERS = 10
"""Evaluations that are read at once: boto3 keeps as many connections."""
MAX_KNOWN = 10_000

Digests = tuple[str, str]
"""Of the test set and of the model."""

_log = logging.getLogger(__name__)


class Bars(NamedTuple):
    path: str
    """Of an SVG: a line of 0 to 20 units for each class, 4 units apart."""
    width: int
    text: str
    """The same in words."""
    lowest: str


def bars(classes: Iterable[ClassScores]) -> Bars | None:
    """None without test images."""
    tested = [each for each in classes if each.images]
    if not tested:
        return None
    by_recall = sorted(tested, key=lambda each: each.recall)
    shown = tested if len(tested) <= MAX_BARS else by_recall[:MAX_BARS]
    which = "" if shown is tested else f", the lowest {MAX_BARS} of {len(tested)}"
    return Bars(
        path="".join(f"M{4 * place + 2} 20v-{20 * each.recall:.1f}" for place, each in enumerate(shown)),
        width=4 * len(shown),
        text=f"Recall per class{which}: {', '.join(map(_in_words, shown))}",
        lowest=_in_words(by_recall[0]),
    )


def _in_words(each: ClassScores) -> str:
    return f"{shortened(printable(each.name), 30)} {each.recall:.1%}"


_known: dict[Digests, Bars | None] = {}
"""What digests name never changes."""


def of_versions(rows: Iterable[Version]) -> Result[dict[int, Bars | None]]:
    """Number of a version → its bars; without the versions that have no stored evaluation, or a damaged one."""
    wanted = {row.number: digests for row in rows if (digests := _digests(row))}
    problem = None
    if unknown := frozenset(wanted.values()).difference(_known):
        try:
            problem = _read(unknown).problem
        except CifarError as error:
            problem = str(error)
    return Result({number: _known[digests] for number, digests in wanted.items() if digests in _known}, problem)


def _digests(row: Version) -> Digests | None:
    found = row.tags.get(TEST_SET, ""), row.tags.get(DIGEST_TAG, "")
    return found if all(re.fullmatch("[0-9a-f]{64}", each) for each in found) else None


def _read_each(unknown: frozenset[Digests]) -> None:
    s3 = store()

    def read(digests: Digests) -> None:
        try:
            with asking("S3"):  # after the first that waits in vain no other one does
                found = read_evaluation(s3, *digests)
        except IntegrityError as error:
            _log.warning("no recall per class: %s", error)
            return
        if found:
            _known[digests] = bars(found.classes)

    with ThreadPoolExecutor(READERS) as readers:
        list(readers.map(read, unknown))
    while len(_known) > MAX_KNOWN:
        _known.pop(next(iter(_known)))


_read = Cached("S3", _read_each)
