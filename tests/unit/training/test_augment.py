"""One gather does what shuffling, padding, cropping and mirroring would do one after the other."""

import numpy as np
import pytest
import torch

from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.models import get_model
from cifar_tasks.training.augment import reflected_positions, steps_per_epoch, take_batch, training_batches

COUNT = 64
IMAGES = torch.randint(0, 256, (COUNT, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def config(**changes) -> TrainConfig:
    return with_values(get_model("cnn").recipes["demo"], {"batch_size": 8, **changes})


def epoch(number: int, settings: TrainConfig, count: int = COUNT, order: int = 0) -> dict[int, torch.Tensor]:
    """The augmented images of one epoch by their number in the data, in the order in which they come."""
    generator = torch.Generator().manual_seed(order)
    batches = training_batches(IMAGES[:count], torch.arange(count), settings, number, generator)
    return {int(n): image for images, numbers in batches for image, n in zip(images, numbers, strict=True)}


def offsets_of(view: torch.Tensor, image: torch.Tensor, padding: int) -> list[tuple[int, int]]:
    """Where in the padded image a view is cut out, if it is."""
    padded = np.pad(image.numpy(), ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
    places = [(top, left) for top in range(2 * padding + 1) for left in range(2 * padding + 1)]
    return [(t, left) for t, left in places if np.array_equal(padded[t : t + 32, left : left + 32], view.numpy())]


def test_padding_reflects_without_repeating_the_border():
    assert reflected_positions(4, 2).tolist() == [2, 1, 0, 1, 2, 3, 2, 1]


def test_a_batch_equals_numpy_s_pad_crop_and_flip():
    index, top, left = torch.tensor([3, 0, 4]), torch.tensor([0, 2, 4]), torch.tensor([4, 1, 2])
    mirrored = torch.tensor([True, False, True])
    batch = take_batch(IMAGES, index, top, left, mirrored, padding=2)
    for i in range(3):
        padded = np.pad(IMAGES[index[i]].numpy(), ((2, 2), (2, 2), (0, 0)), mode="reflect")
        crop = padded[top[i] : top[i] + 32, left[i] : left[i] + 32]
        assert np.array_equal(batch[i].numpy(), crop[:, ::-1] if mirrored[i] else crop)


@pytest.mark.parametrize("changes", [{}, {"crop_padding": 0, "flip": False}])
def test_an_epoch_shows_each_image_once_but_for_the_incomplete_batch(changes):
    generator = torch.Generator().manual_seed(0)
    batches = training_batches(IMAGES[:21], torch.arange(21), config(**changes), 0, generator)
    seen = [label for _, part in batches for label in part.tolist()]
    assert len(seen) == len(set(seen)) == 16


def test_fewer_images_than_a_batch_make_one_batch():
    batches = list(training_batches(IMAGES[:3], torch.arange(3), config(), 0, torch.Generator()))
    assert [len(labels) for _, labels in batches] == [3]


@pytest.mark.parametrize("changes", [{}, {"crop_padding": 0, "flip": False}])
def test_every_epoch_has_an_order_of_its_own(changes):
    generator, settings = torch.Generator().manual_seed(0), config(**changes)
    orders = []
    for number in (1, 2):
        batches = training_batches(IMAGES[:COUNT], torch.arange(COUNT), settings, number, generator)
        orders.append([label for _, labels in batches for label in labels.tolist()])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(COUNT))
    assert len({tuple(order) for order in [*orders, range(COUNT)]}) == 3


def test_images_are_cropped_at_random_offsets_of_their_own():
    views = epoch(1, config(crop_padding=2, flip=False))
    offsets = [offsets_of(view, IMAGES[number], 2) for number, view in views.items()]
    assert all(len(places) == 1 for places in offsets)
    tops, lefts = zip(*(places[0] for places in offsets), strict=True)
    assert set(tops) == set(lefts) == {0, 1, 2, 3, 4}
    assert tops != lefts


def test_two_epochs_show_each_image_once_as_it_is_and_once_mirrored():
    views = [epoch(number, config(crop_padding=0)) for number in (1, 2)]
    plain = [{n for n, view in each.items() if torch.equal(view, IMAGES[n])} for each in views]
    mirrored = [{n for n, view in each.items() if torch.equal(view.flip(1), IMAGES[n])} for each in views]
    assert plain[0] == mirrored[1]
    assert plain[1] == mirrored[0]
    assert plain[0] | plain[1] == set(range(COUNT))
    assert all(plain)


def test_the_seed_decides_which_images_are_mirrored_first():
    first, again, other = (epoch(1, config(crop_padding=0, seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(view, again[n]) for n, view in first.items())
    assert not all(torch.equal(view, other[n]) for n, view in first.items())


def test_without_augmentation_the_images_come_as_they_are():
    for number in (1, 2):
        views = epoch(number, config(crop_padding=0, flip=False))
        assert all(torch.equal(view, IMAGES[n]) for n, view in views.items())


def test_the_same_generator_gives_the_same_epoch():
    first, again, other = (torch.stack(list(epoch(1, config(), order=order).values())) for order in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("count", "steps"), [(3, 1), (8, 1), (21, 2), (64, 8)])
def test_an_epoch_has_a_step_for_each_whole_batch(count, steps):
    assert steps_per_epoch(count, config()) == steps
    batches = training_batches(IMAGES[:count], torch.arange(count), config(), 0, torch.Generator())
    assert len(list(batches)) == steps


def test_what_is_not_augmented_may_have_any_shape():
    features = torch.randn(16, 5)
    batches = training_batches(features, torch.arange(16), config(crop_padding=0, flip=False), 0, torch.Generator())
    assert all(torch.equal(part, features[numbers]) for part, numbers in batches)
