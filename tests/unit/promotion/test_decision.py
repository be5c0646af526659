"""Which version becomes the champion, and why."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_tasks.errors import ConfigError
from cifar_tasks.evaluation.comparison import Comparison, compare
from cifar_tasks.promotion.decision import decide
from cifar_tasks.promotion.evidence import Decision, Scored, Unscored
from cifar_tasks.promotion.limits import MODES, Limits
from tests.predictions import labels_of, probabilities_of

CLASSES = ("cat", "dog")
LABELS = labels_of(1_000, 2)
CAT, DOG = np.flatnonzero(LABELS == 0), np.flatnonzero(LABELS == 1)
CANDIDATE = Scored(
    version=4,
    model="cnn",
    accuracy=0.9,
    calibration_error=0.01,
    latency_ms=2.5,
    size_mb=9.3,
    classes=CLASSES,
    placeholder=False,
    test_set="t1",
)
CHAMPION = CANDIDATE.model_copy(update={"version": 3, "model": "resnet50", "accuracy": 0.8})
LIMITS = Limits()


def changed(scored: Scored, **values) -> Scored:
    return scored.model_copy(update=values)


def compared(wrong, champion_wrong, confidence: float = 0.9) -> Comparison:
    candidate = probabilities_of(LABELS, 2, wrong, confidence)
    return compare(candidate, probabilities_of(LABELS, 2, champion_wrong), LABELS, CLASSES)


BETTER = compared(range(100), range(200))
"""90 % against 80 %; each class is better."""
EQUAL = compared(range(100), range(2, 102))


def decided(
    comparison: Comparison | None = BETTER, champion=CHAMPION, limits=LIMITS, mode="auto", **others
) -> Decision:
    return decide(others.pop("candidate", CANDIDATE), champion, comparison, limits, mode, **others)


def failed(decision: Decision) -> set[str]:
    return {check.name for check in decision.checks if not check.passed}


def test_a_candidate_that_is_better_in_all_replaces_the_champion():
    decision = decided()
    assert decision.promote
    assert not decision.needs_approval
    assert decision.reasons[0] == "version 4 (cnn) replaces the champion version 3 (resnet50)"
    assert re.fullmatch(
        r"test accuracy 90\.00% against 80\.00% on the same 1,000 images: \+10\.00 points, 95 % interval \+8\.\d\d to "
        r"\+1\d\.\d\d, p 1\.6e-30",
        decision.reasons[1],
    )
    assert {check.name for check in decision.checks} == {"accuracy", "gain", "classes", "calibration"}


def test_a_p_that_is_too_small_for_a_float_is_not_shown_as_zero():
    assert decided(BETTER.model_copy(update={"p_value": 0.0})).reasons[1].endswith(", p < 1e-300")


def test_a_candidate_that_is_not_significantly_better_becomes_challenger():
    decision = decided(EQUAL)
    assert (decision.promote, decision.challenger, failed(decision)) == (False, True, {"gain"})
    assert decision.reasons[0] == "version 4 (cnn) does not replace the champion version 3 (resnet50)"
    assert decision.reasons[1].endswith("not significantly better")


def test_a_gain_that_is_significant_and_too_small_is_not_enough():
    comparison = compared(range(100), range(110))
    assert comparison.interval[0] > 0
    assert decided(comparison, limits=Limits(min_gain=0.01)).promote
    decision = decided(comparison, limits=Limits(min_gain=0.011))
    assert failed(decision) == {"gain"}
    assert decision.reasons[1].endswith("wanted at least +1.10")


def test_less_than_a_point_which_two_seeds_can_differ_by_is_not_enough_by_default():
    assert failed(decided(compared(range(100), range(109)))) == {"gain"}
    assert decided(compared(range(100), range(110))).promote


def test_few_images_do_not_decide_however_narrow_the_interval():
    labels = labels_of(5, 2)
    comparison = compare(probabilities_of(labels, 2), probabilities_of(labels, 2, range(5)), labels, CLASSES)
    assert comparison.interval == (1, 1)
    assert failed(decided(comparison)) == {"gain"}


def test_a_class_that_is_significantly_worse_and_by_more_than_the_margin_is_refused_and_named():
    comparison = compared(CAT[:100], [*CAT[:20], *DOG[:300]])
    decision = decided(comparison)
    assert failed(decision) == {"classes"}
    assert "worse by more than 3 points: cat 80.0% against 96.0% (p 1.7e-24)" in decision.reasons[2]
    assert decided(comparison, limits=Limits(class_margin=0.16)).promote


def test_a_class_that_is_worse_within_the_margin_or_by_chance_is_accepted():
    few = compared(CAT[:15], DOG[:200])
    assert few.classes[0].difference == pytest.approx(-0.03)
    assert decided(few).promote
    by_chance = compared([*CAT[:100], *CAT[200:275]], [*CAT[100:200], *CAT[210:245], *CAT[300:325], *DOG[:300]])
    assert by_chance.classes[0].difference == pytest.approx(-0.03)
    assert decided(by_chance, limits=Limits(class_margin=0)).promote


def test_of_many_classes_one_that_differs_by_chance_is_accepted():
    """With a hundred classes, five have p below 0.05 by chance."""
    labels = labels_of(10_000, 100)
    of_a_class = np.flatnonzero(labels == 0)
    candidate = probabilities_of(labels, 100, of_a_class[:7])
    champion = probabilities_of(labels, 100, np.flatnonzero(labels != 0)[:500])
    names = tuple(map(str, range(100)))
    comparison = compare(candidate, champion, labels, names)
    assert comparison.classes[0].p_value < 0.05
    assert decided(comparison).promote
    worse = compare(probabilities_of(labels, 100, of_a_class[:15]), champion, labels, names)
    assert failed(decided(worse)) == {"classes"}


def test_only_the_worst_of_many_classes_are_named():
    labels = labels_of(10_000, 10)
    wrong = [position for digit in range(7) for position in np.flatnonzero(labels == digit)[: 100 + digit]]
    champion = np.flatnonzero(labels > 6)[:2000]
    comparison = compare(
        probabilities_of(labels, 10, wrong), probabilities_of(labels, 10, champion), labels, tuple("abcdefghij")
    )
    text = next(check.text for check in decided(comparison).checks if check.name == "classes")
    assert re.findall(r"(\w) 8\d\.\d%", text) == list("gfedc")
    assert text.endswith("and 2 more")


def test_a_reason_has_one_line_whatever_the_name_of_a_class():
    names = ("c\n[red]a*t" + "x" * 200, "dog")
    wrong, champion_wrong = (probabilities_of(LABELS, 2, those) for those in (CAT[:100], DOG[:300]))
    decision = decided(compare(wrong, champion_wrong, LABELS, names))
    assert failed(decision) == {"classes"}
    assert all(len(text.splitlines()) == 1 and len(text) < 200 for text in decision.reasons)


def test_a_calibration_that_is_much_worse_is_refused():
    comparison = compared(range(100), range(200), confidence=0.8)
    assert comparison.candidate_calibration_error == pytest.approx(0.1, abs=1e-3)
    assert comparison.champion_calibration_error == pytest.approx(0.1, abs=1e-3)
    assert decided(comparison).promote
    worse = compared(range(100), range(200), confidence=0.7)
    assert failed(decided(worse)) == {"calibration"}
    assert "calibration error 0.200 against 0.100, wanted at most 0.150" in decided(worse).reasons
    assert decided(worse, limits=Limits(calibration_margin=0.11)).promote


@pytest.mark.parametrize("champion", [None, CHAMPION])
@pytest.mark.parametrize(
    ("limits", "name", "text"),
    [
        ({"min_accuracy": 0.95}, "accuracy", "test accuracy 90.00%, wanted at least 95.00%"),
        ({"max_latency_ms": 2.4}, "latency", "latency 2.5 ms for one image, wanted at most 2.4 ms for one image"),
        ({"max_size_mb": 9.2}, "size", "size 9.3 MB, wanted at most 9.2 MB"),
    ],
)
def test_each_candidate_must_meet_the_floors_also_a_first_one(champion, limits, name, text):
    decision = decided(champion=champion, limits=Limits(**limits))
    assert (decision.promote, failed(decision)) == (False, {name})
    assert text in decision.reasons


def test_a_floor_is_met_at_its_value():
    limits = Limits(min_accuracy=0.9, max_latency_ms=2.5, max_size_mb=9.3)
    assert decided(limits=limits).promote


@pytest.mark.parametrize("name", ["latency", "size"])
def test_what_was_not_measured_meets_no_limit(name):
    field = {"latency": "latency_ms", "size": "size_mb"}[name]
    unknown = changed(CANDIDATE, **{field: None})
    decision = decided(candidate=unknown, limits=Limits(**{f"max_{field}": 100}))
    assert failed(decision) == {name}
    assert any(text.startswith(f"{name} was not measured, wanted at most 100") for text in decision.reasons)
    assert decided(candidate=unknown).promote


def test_the_first_model_becomes_champion_if_it_meets_the_floors():
    decision = decided(None, champion=None)
    assert (decision.promote, decision.challenger) == (True, False)
    assert decision.reasons[0] == "version 4 (cnn) is the first champion"
    low = decided(None, champion=None, limits=Limits(min_accuracy=0.95))
    assert low.reasons[0] == "version 4 (cnn) does not become the first champion"
    assert not low.challenger


@pytest.mark.parametrize("mode", MODES)
def test_the_champion_is_not_promoted_again(mode):
    decision = decided(None, champion=CANDIDATE, mode=mode, reason="again")
    assert (decision.promote, decision.needs_approval, decision.challenger, decision.checks) == (
        False,
        False,
        False,
        (),
    )
    assert decision.reasons[0] == "version 4 (cnn) is the champion already"


def test_a_champion_that_cannot_be_evaluated_stays_unless_it_is_gone():
    stays = decided(None, champion=Unscored(version=3, reason="it has no tags.", gone=False))
    assert (stays.promote, stays.challenger) == (False, True)
    assert stays.reasons[1] == (
        "the champion version 3 cannot be evaluated: it has no tags. It stays. To use version 4, promote it with mode "
        "force"
    )
    gone = decided(None, champion=Unscored(version=3, reason="it was\ndeleted.", gone=True))
    assert gone.promote
    assert gone.reasons[:2] == (
        "version 4 (cnn) replaces the champion version 3",
        "the champion version 3 cannot be evaluated: it was deleted.",
    )


@pytest.mark.parametrize("classes", [("red", "green"), ("ant", "bee"), (*CLASSES, "emu"), CLASSES[:1]])
def test_other_classes_leave_the_champion_in_place_and_say_what_to_do(classes):
    decision = decided(None, champion=changed(CHAMPION, classes=classes, test_set="t2"))
    assert (decision.promote, decision.challenger, failed(decision)) == (False, False, {"champion"})
    assert "CIFAR_REGISTERED_MODEL" in decision.reasons[1]


@pytest.mark.parametrize("classes", [CLASSES, ("0", "1")])
def test_a_model_of_placeholder_data_never_replaces_one_of_real_data(classes):
    digits = changed(CANDIDATE, classes=classes, placeholder=True)
    assert failed(decided(champion=CHAMPION, candidate=digits)) == {"champion"}


def test_a_model_of_real_data_replaces_one_of_placeholder_data():
    decision = decided(None, champion=changed(CHAMPION, classes=("0", "1"), placeholder=True, test_set="t2"))
    assert decision.promote
    assert decision.reasons[1] == "it knows the real classes; version 3 was trained on placeholder data"


@pytest.mark.parametrize(
    ("champion", "comparison", "message"),
    [(changed(CHAMPION, test_set="t2"), BETTER, "different test sets"), (CHAMPION, None, "not compared")],
)
def test_two_that_were_not_compared_on_one_test_set_are_refused(champion, comparison, message):
    with pytest.raises(ValueError, match=message):
        decided(comparison, champion=champion)


def test_in_mode_approve_a_person_is_asked_only_if_the_evidence_is_for_the_candidate():
    decision = decided(mode="approve")
    assert (decision.promote, decision.needs_approval) == (True, True)
    assert "mode approve: a person decides" in decision.reasons
    refused = decided(EQUAL, mode="approve")
    assert (refused.promote, refused.needs_approval) == (False, False)


def test_mode_never_promotes_nothing_and_says_so():
    decision = decided(mode="never")
    assert (decision.promote, decision.challenger, failed(decision)) == (False, True, set())
    assert "mode never: nothing is promoted" in decision.reasons


def test_mode_force_promotes_with_a_reason_only_and_still_names_what_failed():
    for missing in ("", " \n"):
        with pytest.raises(ConfigError, match="needs a reason"):
            decided(EQUAL, mode="force", reason=missing)
    decision = decided(EQUAL, mode="force", reason="the old one\nknows  no cats")
    assert (decision.promote, failed(decision)) == (True, {"gain"})
    assert "not significantly better" in decision.reasons[1]
    assert decision.reasons[2:4] == (
        "mode force: the checks do not decide",
        "reason given: the old one knows no cats",
    )


def test_from_its_limit_on_the_decision_says_that_the_test_set_is_worn():
    fresh, worn, more = (decided(uses=uses) for uses in (19, 20, 21))
    assert (fresh.worn, worn.worn, more.worn) == (False, True, True)
    assert more.reasons[-1].startswith("the test set is worn, 21 earlier decisions")
    assert fresh.reasons[-1] == "earlier decisions on these test images: 19"
    assert worn.reasons[-1].startswith("the test set is worn, 20 earlier decisions have used it: prepare data")
    assert decided(uses=2, limits=Limits(worn_after=2)).worn


def test_a_decision_is_the_same_after_the_log():
    for decision in (decided(), decided(None, champion=None), decided(EQUAL, mode="approve", uses=30)):
        assert Decision.model_validate_json(decision.model_dump_json()) == decision
    gone = decided(None, champion=Unscored(version=3, reason="it was deleted.", gone=True))
    assert Decision.model_validate_json(gone.model_dump_json()) == gone


shares = st.floats(0, 1)
limits_of_any_kind = st.builds(
    Limits,
    confidence=st.sampled_from([0.5, 0.8, 0.95, 0.99]),
    min_gain=st.floats(0, 0.2),
    min_accuracy=shares,
    class_margin=st.floats(0, 0.3),
    calibration_margin=st.floats(0, 0.3),
    max_latency_ms=st.none() | st.floats(0.1, 10),
    max_size_mb=st.none() | st.floats(1, 20),
    worn_after=st.integers(1, 30),
)
answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=80)


@st.composite
def evidence(draw) -> tuple[Scored, Scored, Comparison, Comparison, Limits]:
    """Candidate, champion, their comparison, the opposite one, and limits."""
    pairs, limits = draw(answers), draw(limits_of_any_kind)
    labels = labels_of(len(pairs), 2)
    both = [
        probabilities_of(labels, 2, [n for n, pair in enumerate(pairs) if not pair[which]], draw(st.floats(0.6, 0.99)))
        for which in (0, 1)
    ]
    comparison, opposite = (
        compare(one, other, labels, CLASSES, confidence=limits.confidence) for one, other in (both, reversed(both))
    )
    candidate = changed(CANDIDATE, accuracy=comparison.candidate_accuracy, latency_ms=draw(st.none() | shares))
    return candidate, changed(CHAMPION, accuracy=comparison.champion_accuracy), comparison, opposite, limits


PROPERTY = settings(max_examples=40, deadline=None)


@PROPERTY
@given(evidence())
def test_property_a_promoted_candidate_passed_every_check_and_is_more_accurate(given_evidence):
    candidate, champion, comparison, _, limits = given_evidence
    decision = decide(candidate, champion, comparison, limits, "auto")
    assert decision.promote == all(check.passed for check in decision.checks)
    if decision.promote:
        assert candidate.accuracy > champion.accuracy
        assert comparison.only_candidate_right > comparison.only_champion_right


@PROPERTY
@given(evidence())
def test_property_two_models_never_replace_each_other(given_evidence):
    candidate, champion, comparison, opposite, limits = given_evidence
    forth = decide(candidate, champion, comparison, limits, "auto")
    back = decide(champion, candidate, opposite, limits, "auto")
    assert not (forth.promote and back.promote)


@PROPERTY
@given(evidence(), st.data())
def test_property_no_limit_that_is_made_stricter_promotes_what_was_refused(given_evidence, data):
    candidate, champion, comparison, _, limits = given_evidence
    name = data.draw(st.sampled_from(["min_gain", "min_accuracy", "class_margin", "calibration_margin"]))
    value = getattr(limits, name)
    stricter = data.draw(st.floats(value, 1) if name.startswith("min") else st.floats(0, value))
    strict = limits.model_copy(update={name: stricter})
    if decide(candidate, champion, comparison, strict, "auto").promote:
        assert decide(candidate, champion, comparison, limits, "auto").promote


@PROPERTY
@given(evidence(), st.sampled_from(MODES), st.integers(0, 40), st.text())
def test_property_modes_differ_in_what_they_do_with_the_same_checks(given_evidence, mode, uses, reason):
    candidate, champion, comparison, _, limits = given_evidence
    decision = decide(candidate, champion, comparison, limits, mode, f"{reason}.", uses)
    auto = decide(candidate, champion, comparison, limits, "auto")
    assert decision.checks == auto.checks
    assert decision.promote == {"auto": auto.promote, "approve": auto.promote, "never": False, "force": True}[mode]
    assert decision.needs_approval == (mode == "approve" and auto.promote)
    assert decision.worn == (uses >= limits.worn_after)
    assert all(len(text.splitlines()) == 1 and text == text.strip() for text in decision.reasons)
