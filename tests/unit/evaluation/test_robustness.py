"""Altered copies of images, and the accuracy on them."""

import numpy as np
import pytest

from cifar_tasks.evaluation import robustness as room
from cifar_tasks.evaluation.robustness import ALTERATIONS, robustness, sample_positions

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(40) % 3


def altered(name, images=IMAGES):
    return ALTERATIONS[name](images, np.random.default_rng(0))


@pytest.mark.parametrize("name", ALTERATIONS)
@pytest.mark.parametrize("size", [16, 32, 65])
def test_an_altered_copy_has_the_form_of_the_images_and_another_content(name, size):
    images = RANDOM.integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    before = images.copy()
    result = altered(name, images)
    assert (result.shape, result.dtype) == (images.shape, np.uint8)
    assert (images == before).all()
    assert all((one != other).any() for one, other in zip(result, images, strict=True))


def test_flipped_is_left_to_right():
    assert (altered("flipped")[:, :, 0] == IMAGES[:, :, -1]).all()


def test_shifted_moves_an_eighth_of_the_width_to_the_lower_right_and_repeats_the_border():
    result = altered("shifted")
    assert (result[:, 4:, 4:] == IMAGES[:, :28, :28]).all()
    assert (result[:, :5, :5] == IMAGES[:, :1, :1]).all()


def test_noise_does_not_wrap_around_at_black_and_white():
    black, white = np.zeros((1, 32, 32, 3), np.uint8), np.full((1, 32, 32, 3), 255, np.uint8)
    assert altered("noisy", black).max() < 128
    assert altered("noisy", white).min() > 127
    grey = altered("noisy", np.full((4, 64, 64, 3), 128, np.uint8))
    assert grey.std() == pytest.approx(20.4, rel=0.02)


@pytest.mark.parametrize("name", ["blurred", "jpeg"])
def test_blur_and_jpeg_keep_the_colours_and_lose_detail(name):
    result = altered(name)
    assert result.mean(axis=(1, 2)) == pytest.approx(IMAGES.mean(axis=(1, 2)), abs=3)
    assert result.std() < IMAGES.std()


def test_blur_does_not_mix_images_or_colours():
    images = np.zeros((3, 32, 32, 3), np.uint8)
    images[1, ..., 0] = 200
    assert (altered("blurred", images) == images).all()


def reddish(images):
    """Predicts by the mean of the red channel."""
    return (images[..., 0].mean(axis=(1, 2)) // 128).astype(np.int64)


def test_accuracy_is_counted_on_each_kind_of_copy():
    images = np.zeros((60, 32, 32, 3), np.uint8)
    images[::2, ..., 0] = 130
    labels = np.arange(60) % 2 ^ 1
    result = robustness(reddish, images, labels, reddish(images) == labels)
    assert (result.images, result.unaltered) == (60, 1.0)
    assert tuple(result.accuracies) == ("flipped", "shifted", "noisy", "blurred", "jpeg")
    assert result.accuracies["flipped"] == result.accuracies["blurred"] == 1.0
    assert result.mean == pytest.approx(np.mean(list(result.accuracies.values())))
    assert "flipped 100.0%" in str(result)
    assert "60 images each" in str(result)


def test_chunks_do_not_change_the_accuracies(monkeypatch):
    def darker(images):
        return (images.mean(axis=(1, 2, 3)) > 127.5).astype(np.int64)

    at_once = robustness(darker, IMAGES, LABELS, LABELS == 0)
    monkeypatch.setattr(room, "CHUNK_PIXELS", 7 * 32 * 32)
    in_parts = robustness(darker, IMAGES, LABELS, LABELS == 0)
    for name in ("flipped", "shifted", "blurred", "jpeg"):  # noise is drawn chunk by chunk
        assert at_once.accuracies[name] == in_parts.accuracies[name]


def test_the_sample_is_the_same_for_all_models_and_has_no_image_twice():
    positions = sample_positions(10_000)
    assert len(positions) == len(set(positions.tolist())) == room.SAMPLE
    assert (positions == sample_positions(10_000)).all()
    assert sample_positions(5).tolist() == [0, 1, 2, 3, 4]


def test_the_unaltered_accuracy_is_that_of_the_sample(monkeypatch):
    monkeypatch.setattr(room, "SAMPLE", 10)
    positions = sample_positions(40, 10)
    right = np.zeros(40, bool)
    right[positions[:5]] = True
    monkeypatch.setattr(room, "sample_positions", lambda images: sample_positions(images, 10))
    assert robustness(lambda images: np.zeros(len(images), int), IMAGES, LABELS, right).unaltered == 0.5
