"""A delivery is quarantined for what is wrong with it, and a clean one is not."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cifar_tasks.data.images import Images, Labels
from cifar_tasks.data.quality.check_results import TESTS
from cifar_tasks.data.quality.delivery import Delivery
from cifar_tasks.data.quality.quality_checks import check, statistic_results
from cifar_tasks.data.quality.quality_limits import QualityLimits
from cifar_tasks.data.quality.quality_report import QualityReport
from cifar_tasks.data.quality.snapshot import Predictions, Snapshot, image_set
from tests.snapshots import CLASSES, drawn_labels, grown, in_use, pictures, snapshot

LIMITS = QualityLimits()
LABELS = drawn_labels(150, 5)
ADDED = pictures(LABELS, 6)


@pytest.fixture(scope="module")
def before() -> Snapshot:
    return snapshot(*in_use())


def failed(report: QualityReport) -> set[str]:
    return {row.check for row in report.rows if not row.passed}


def flipped(labels: Labels, share: float) -> Labels:
    random = np.random.default_rng(0)
    wrong = random.random(len(labels)) < share
    return np.where(wrong, (labels + random.integers(1, 3, len(labels))) % 3, labels)


def test_a_clean_delivery_passes_every_check(before: Snapshot) -> None:
    report = check(grown(ADDED, LABELS), before, LIMITS)
    assert report.passed
    assert report.reasons == ()
    assert (report.added, report.relabelled, report.gone, report.judged) == (150, 0, 0, 150)
    measured = [row.check for row in report.rows]
    assert len(measured) == len(set(measured)) == 18
    assert all(row.value is not None for row in report.rows)
    # Three more with the sizes of the files (two) and with a champion.
    assert sum("; p " in row.text for row in report.rows) + 3 == TESTS


def brightness(factor: float) -> Callable[[Images], Images]:
    return lambda images: np.clip(images * factor, 0, 255).astype(np.uint8)


def grey(images: Images) -> Images:
    return np.repeat(images.mean(3, keepdims=True).astype(np.uint8), 3, axis=3)


def partly_white(images: Images) -> Images:
    return np.concatenate([np.full_like(images[:30], 250), images[30:]])


def blurred(images: Images) -> Images:
    padded = np.pad(images.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    parts = [padded[:, row : row + 32, column : column + 32] for row in range(3) for column in range(3)]
    return np.mean(parts, axis=0).astype(np.uint8)


@pytest.mark.parametrize(
    ("alter", "expected"),
    [
        (brightness(1.25), "brightness"),
        (brightness(0.75), "brightness"),
        (grey, "grey images"),
        (grey, "saturation"),
        (blurred, "sharpness"),
        (lambda images: (images // 3 + 80).astype(np.uint8), "contrast"),
        (lambda images: np.clip(images + np.array([40, 0, 0]), 0, 255).astype(np.uint8), "red"),
        (
            lambda images: np.where(np.arange(150)[:, None, None, None] < 30, 250, images).astype(np.uint8),
            "extreme images",
        ),
    ],
)
def test_altered_images_are_quarantined(before: Snapshot, alter: Callable[[Images], Images], expected: str) -> None:
    results = statistic_results(Delivery(grown(alter(ADDED), LABELS), before), LIMITS)
    failed = {result.row.check: result.row.text for result in results if not result.row.passed}
    assert failed[expected].startswith(f"{expected}: ")


def test_wrong_labels_are_quarantined_for_that_alone_and_listed(before: Snapshot) -> None:
    wrong = flipped(LABELS, 0.3)
    report = check(grown(ADDED, wrong), before, LIMITS)
    assert failed(report) == {"label errors (out of fold)"}
    suspicious = {example.position - 600 for example in report.suspicious}
    assert len(suspicious & set(np.flatnonzero(wrong != LABELS))) > 0.9 * (wrong != LABELS).sum()
    assert report.suspicious[0].why.startswith("looks like ")


def test_images_in_use_with_other_labels_are_quarantined(before: Snapshot) -> None:
    images, labels = in_use()
    report = check(snapshot(images, flipped(labels, 0.3)), before, LIMITS)
    assert {"relabelled images", "label errors (out of fold)"} == failed(report)
    assert report.added == 0


def test_a_champion_s_predictions_are_a_check_of_their_own(before: Snapshot) -> None:
    """This one is always right, so that it sees what a model out of fold may not."""
    right = np.eye(3)[LABELS]
    known = np.eye(3)[before.images.labels]
    predictions = Predictions("version 3", np.arange(600, 750), right, before.images.labels, known)
    report = check(grown(ADDED, flipped(LABELS, 0.2)), before, LIMITS, predictions)
    assert "label errors (version 3)" in failed(report)
    assert check(grown(ADDED, LABELS), before, LIMITS, predictions).passed


def test_a_class_whose_images_are_all_gone_is_missing(before: Snapshot) -> None:
    images, labels = in_use()
    report = check(snapshot(images[labels != 2], labels[labels != 2]), before, LIMITS)
    assert {"missing classes", "removed images"} == failed(report)
    assert "missing classes: cat" in report.reasons


def test_a_delivery_without_a_class_is_out_of_balance(before: Snapshot) -> None:
    report = check(grown(ADDED[LABELS != 1], LABELS[LABELS != 1]), before, LIMITS)
    assert failed(report) == {"class balance"}
    assert "no added image of bee" in report.reasons[0]


def test_with_one_class_in_common_the_balance_is_not_measured(before: Snapshot) -> None:
    images, labels = in_use()
    only = snapshot(images[labels == 0], labels[labels == 0])
    new = snapshot(np.concatenate([images[labels == 0], ADDED]), np.concatenate([labels[labels == 0], LABELS]))
    (balance,) = [row for row in check(new, only, LIMITS).rows if row.check == "class balance"]
    assert balance.passed
    assert "fewer than two classes in common" in balance.text


def test_pictures_of_another_size_in_their_files_are_quarantined(before: Snapshot) -> None:
    def sized(version: Snapshot, sizes: list[list[int]]) -> Snapshot:
        return replace(version, images=replace(version.images, sizes=np.array(sizes)))

    known, new = sized(before, [[32, 32]] * 600), grown(ADDED, LABELS)
    assert check(sized(new, [[32, 32]] * 750), known, LIMITS).passed
    larger = check(sized(new, [[32, 32]] * 600 + [[64, 48]] * 150), known, LIMITS)
    assert not larger.passed
    assert any("median 48 against 32" in reason or "median 64 against 32" in reason for reason in larger.reasons)
    unknown = check(sized(new, [[32, 32]] * 600 + [[0, 0]] * 150), known, LIMITS)
    assert unknown.passed
    assert any("the sizes of the files are not known" in row.text for row in unknown.rows)


def test_a_new_class_is_quarantined_unless_the_limits_allow_it(before: Snapshot) -> None:
    labels = np.where(np.arange(150) < 40, 3, LABELS)
    new = grown(ADDED, labels, classes=(*CLASSES, "dog"))
    assert "new classes: dog" in check(new, before, LIMITS).reasons
    allowed = check(new, before, QualityLimits(new_classes=True))
    assert "new classes" not in failed(allowed)


def test_copies_of_test_images_and_of_images_in_use_are_quarantined_with_their_originals(before: Snapshot) -> None:
    images = ADDED.copy()
    images[:10] = before.test.read(np.arange(10))
    images[10:40] = before.images.read(np.arange(30))[:, :, ::-1]
    report = check(grown(images, LABELS), before, LIMITS)
    assert {"copies of test images", "copies"} <= failed(report)
    whys = [example.why for example in report.examples]
    assert "equals the test image 000000" in whys
    assert "resembles 000000" in whys


def test_unreadable_files_count_once(before: Snapshot) -> None:
    broken = tuple(f"broken-{number}.jpg" for number in range(5))
    new = grown(ADDED, LABELS, unreadable=broken)
    report = check(new, before, LIMITS)
    assert failed(report) == {"unreadable images"}
    assert "broken-4.jpg" in report.reasons[0]
    known = snapshot(*in_use(), unreadable=broken)
    assert check(new, known, LIMITS).passed


def test_a_first_version_is_compared_with_nothing_and_its_labels_are_ranked() -> None:
    images, labels = in_use()
    report = check(snapshot(images, flipped(labels, 0.05)), None, LIMITS)
    assert report.passed
    assert [row.check for row in report.rows] == ["unreadable images", "copies of test images", "copies"]
    assert len(report.suspicious) > 10


def test_nothing_changed_passes(before: Snapshot) -> None:
    report = check(snapshot(*in_use()), before, LIMITS)
    assert report.passed
    assert report.judged == 0


@pytest.mark.parametrize("count", [1, 7])
def test_a_delivery_of_few_images_is_judged_without_an_error(before: Snapshot, count: int) -> None:
    report = check(grown(ADDED[:count], LABELS[:count]), before, LIMITS)
    assert report.passed, report.reasons


@pytest.mark.parametrize(("factor", "side"), [(1.25, "high"), (0.75, "low")])
def test_a_delivery_of_another_brightness_shows_its_most_unlike_images(before: Snapshot, factor, side) -> None:
    new = grown(brightness(factor)(ADDED), LABELS)
    shown = [each.position for each in check(new, before, LIMITS).examples if f"{side} value of brightness" in each.why]
    grey = new.images.read(np.arange(len(new.images))) @ [0.299, 0.587, 0.114]
    added = np.arange(len(new.images) - len(ADDED), len(new.images))
    order = grey.mean((1, 2))[added].argsort()
    assert shown
    assert shown == added[order[::-1] if side == "high" else order][: len(shown)].tolist()


def test_a_few_bright_images_are_too_few_to_tell(before: Snapshot) -> None:
    results = statistic_results(Delivery(grown(brightness(1.25)(ADDED[:6]), LABELS[:6]), before), LIMITS)
    row = next(result.row for result in results if result.row.check == "brightness")
    assert row.value > row.limit
    assert row.passed
    assert row.text.endswith("too few images to tell it from chance")


def test_a_delivery_of_one_class_is_not_blamed_for_its_colours() -> None:
    """Images of a class have its colour here."""
    labels = drawn_labels(600, 1)
    tinted = np.array([[40, 0, 0], [0, 0, 0], [0, 0, 40]])
    images = np.clip(pictures(labels, 2) + tinted[labels][:, None, None], 0, 255).astype(np.uint8)
    added = np.clip(pictures(np.zeros(60, int), 3) + tinted[0], 0, 255).astype(np.uint8)
    new = snapshot(np.concatenate([images, added]), np.concatenate([labels, np.zeros(60, int)]))
    assert failed(check(new, snapshot(images, labels), LIMITS)) == {"class balance"}


def test_larger_images_are_checked_as_well() -> None:
    labels = drawn_labels(120, 1)
    large = pictures(labels, 2).repeat(2, axis=1).repeat(2, axis=2)
    test = image_set(large[:3], labels[:3])
    report = check(snapshot(large[3:], labels[3:], test=test), snapshot(large[3:80], labels[3:80], test=test), LIMITS)
    assert report.passed, report.reasons


def test_a_limit_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="max_brightness"):
        QualityLimits.model_validate({"max_brightness": 1})
