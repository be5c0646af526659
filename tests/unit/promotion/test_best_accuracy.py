"""Who becomes champion, and why."""

import dataclasses

import pytest

from cifar_tasks.promotion.best_accuracy import Candidate, Unscored, best_of, decide

CLASSES = ("cat", "dog")
CNN = Candidate(3, "cnn", 0.80, "d1", CLASSES, parameters=2_000_000, placeholder=False)
RESNET = dataclasses.replace(CNN, version=4, model="resnet50", test_accuracy=0.85, parameters=26_000_000)
CHAMPION = dataclasses.replace(CNN, version=1, test_accuracy=0.82, classes=(*CLASSES,))


def changed(contender: Candidate, **changes) -> Candidate:
    return dataclasses.replace(contender, **changes)


def test_the_first_champion_is_the_better_candidate():
    decision = decide([CNN, RESNET], None)
    assert (decision.champion, decision.replaced, decision.challenger) == (4, None, None)
    assert "first champion" in decision.reasons[-1]


def test_a_better_candidate_replaces_the_champion():
    decision = decide([CNN, RESNET], CHAMPION)
    assert (decision.champion, decision.replaced, decision.challenger) == (4, 1, None)
    assert "85.00% against 82.00%" in decision.reasons[-1]


@pytest.mark.parametrize("accuracy", [0.85, 0.9])
def test_a_champion_that_is_not_beaten_stays_and_the_best_candidate_becomes_challenger(accuracy):
    decision = decide([CNN, RESNET], changed(CHAMPION, test_accuracy=accuracy))
    assert (decision.champion, decision.replaced, decision.challenger) == (1, None, 4)


def test_of_two_equal_candidates_the_smaller_model_wins():
    assert best_of([RESNET, changed(CNN, test_accuracy=0.85)]).model == "cnn"


def test_of_two_equal_candidates_of_one_size_the_older_version_wins():
    assert best_of([changed(CNN, version=9), CNN]) == best_of([CNN, changed(CNN, version=9)]) == CNN


def test_the_larger_of_two_models_loses_a_tie_however_small_the_difference():
    assert best_of([changed(CNN, parameters=3), changed(CNN, version=9, parameters=2)]).version == 9


def test_deciding_again_after_promotion_changes_nothing():
    decision = decide([CNN, RESNET], RESNET)
    assert (decision.champion, decision.replaced, decision.challenger) == (4, None, None)


def test_other_classes_leave_the_champion_in_place_and_say_what_to_do():
    decision = decide([changed(RESNET, classes=("red", "green"))], CHAMPION)
    assert (decision.champion, decision.challenger) == (1, None)
    assert "CIFAR_REGISTERED_MODEL" in decision.reasons[-1]


def test_the_best_of_other_classes_is_no_challenger_whatever_their_order():
    for classes in (("a", "b"), ("x", "y")):
        assert decide([changed(RESNET, classes=classes)], CHAMPION).challenger is None


def test_placeholder_data_never_displaces_a_model_of_real_data():
    digits = changed(RESNET, classes=("0", "1"), placeholder=True, test_accuracy=0.99)
    assert decide([digits], CHAMPION).champion == 1


def test_a_model_of_real_data_displaces_one_of_placeholder_data():
    digits = changed(CHAMPION, classes=("0", "1"), placeholder=True, test_accuracy=0.99)
    assert decide([CNN], digits).champion == 3


def test_reasons_list_every_candidate():
    assert decide([CNN, RESNET], None).reasons[0] == (
        "test accuracy: resnet50 85.00% (version 4), cnn 80.00% (version 3)"
    )


@pytest.mark.parametrize(
    ("best", "champion", "reason"),
    [
        (
            RESNET,
            CHAMPION,
            "version 4 (resnet50) beats the champion version 1 (cnn): 85.00% against 82.00% on the same test images",
        ),
        (
            CNN,
            CHAMPION,
            "version 3 (cnn) does not beat the champion version 1 (cnn): 80.00% against 82.00% on the same test images",
        ),
        (
            CNN,
            changed(CHAMPION, classes=("0", "1"), placeholder=True),
            "version 3 (cnn) knows the real classes; version 1 (cnn) was trained on placeholder data",
        ),
        (
            RESNET,
            changed(CHAMPION, classes=("0", "1")),
            "version 4 (resnet50) and the champion version 1 (cnn) know different classes and cannot be compared: the "
            "champion stays. Register under another name (form field, or CIFAR_REGISTERED_MODEL) to keep both.",
        ),
        (CNN, CNN, "version 3 is the champion already"),
        (CNN, None, "version 3 is the first champion"),
    ],
)
def test_the_reason_names_both_versions_and_their_accuracies(best, champion, reason):
    assert decide([best], champion).reasons[-1] == reason


@pytest.mark.parametrize("dataset", ["d0", "d2"])
def test_a_champion_that_was_measured_on_another_test_set_is_refused(dataset):
    with pytest.raises(ValueError, match="another test set"):
        decide([CNN], changed(CHAMPION, dataset=dataset))


def test_a_champion_that_cannot_be_scored_stays_unless_it_is_gone():
    stays = decide([changed(CNN, version=2)], Unscored(1, "it has no tags.", gone=False))
    assert (stays.champion, stays.replaced, stays.challenger) == (1, None, 2)
    assert "cannot be scored: it has no tags. It stays. Set the alias champion to version 2" in stays.reasons[-1]
    gone = decide([changed(CNN, version=2)], Unscored(1, "it was deleted.", gone=True))
    assert (gone.champion, gone.replaced, gone.challenger) == (2, 1, None)
    assert "Version 2 replaces it" in gone.reasons[-1]
