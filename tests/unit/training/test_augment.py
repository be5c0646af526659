"""One gather does what shuffling, padding, cropping and mirroring would do one after the other."""

import dataclasses

import numpy as np
import torch

from cifar_tasks.config import TrainConfig, configure
from cifar_tasks.training.augment import jitter_colours, reflected_positions, take_batch, training_batches


def config(**changes) -> TrainConfig:
    return dataclasses.replace(configure("cnn", "demo", {}), batch_size=8, **changes)


def numbered_images(count: int) -> torch.Tensor:
    return torch.arange(count * 32 * 32 * 3, dtype=torch.int64).view(count, 32, 32, 3).to(torch.uint8)


def test_padding_reflects_without_repeating_the_border():
    assert reflected_positions(4, 2).tolist() == [2, 1, 0, 1, 2, 3, 2, 1]


def test_a_batch_equals_numpy_s_pad_crop_and_flip():
    images = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    index, top, left = torch.tensor([3, 0, 4]), torch.tensor([0, 2, 4]), torch.tensor([4, 1, 2])
    mirrored = torch.tensor([True, False, True])
    batch = take_batch(images, index, top, left, mirrored, padding=2)
    for i in range(3):
        padded = np.pad(images[index[i]].numpy(), ((2, 2), (2, 2), (0, 0)), mode="reflect")
        crop = padded[top[i] : top[i] + 32, left[i] : left[i] + 32]
        assert np.array_equal(batch[i].numpy(), crop[:, ::-1] if mirrored[i] else crop)


def test_factors_of_one_leave_every_value_as_it_is():
    images = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(2, -1, -1, 3)
    assert torch.equal(jitter_colours(images, *torch.ones(3, 2)), images)


def test_brightness_contrast_and_saturation_change_each_image_by_its_own_factor():
    images = torch.randint(50, 100, (2, 32, 32, 3), dtype=torch.uint8)
    one, zero_then_one, one_then_two = torch.ones(2), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])
    assert torch.equal(jitter_colours(images, one_then_two, one, one), torch.stack([images[0], images[1] * 2]))
    flat, unchanged = jitter_colours(images, one, zero_then_one, one)
    assert flat.unique().item() == round(images[0].float().mean().item())
    assert torch.equal(unchanged, images[1])
    grey, unchanged = jitter_colours(images, one, one, zero_then_one)
    assert torch.equal(grey, images[0].float().mean(2, keepdim=True).round().byte().expand(-1, -1, 3))
    assert torch.equal(unchanged, images[1])


def test_too_bright_and_too_dark_end_at_the_bounds_of_a_byte():
    images = torch.tensor([0, 255], dtype=torch.uint8)[:, None].expand(-1, 3).view(1, 1, 2, 3)
    assert torch.equal(jitter_colours(images, *torch.tensor([[1.0], [1.9], [1.0]])), images)
    assert jitter_colours(images, *torch.tensor([[1.9], [1.0], [1.0]])).flatten().tolist() == [0] * 3 + [255] * 3


def test_jitter_stays_within_its_bounds_and_differs_between_images_and_epochs():
    images, labels = torch.full((16, 32, 32, 3), 100, dtype=torch.uint8), torch.arange(16)
    order = torch.Generator().manual_seed(0)
    jittered = config(colour_jitter=0.2, crop_padding=0, flip="off")
    # Images of one grey: contrast and saturation have nothing to change.
    shown = [
        batch[:, 0, 0, 0] for epoch in (0, 1) for batch, _ in training_batches(images, labels, jittered, epoch, order)
    ]
    values = torch.cat(shown).tolist()
    assert 80 <= min(values) < 90
    assert 110 < max(values) <= 120
    assert len(set(values)) > 16


def test_processes_that_share_a_batch_jitter_it_as_one_does():
    images, labels = torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8), torch.arange(16)
    shares = [slice(None), slice(0, None, 2), slice(1, None, 2)]
    together, *parts = (
        [b for b, _ in training_batches(images, labels, config(colour_jitter=0.2), 0, torch.Generator(), share)]
        for share in shares
    )
    for whole, even, odd in zip(together, *parts, strict=True):
        assert torch.equal(whole[0::2], even)
        assert torch.equal(whole[1::2], odd)


def test_an_epoch_shows_each_image_once_but_for_the_incomplete_batch():
    images, labels = numbered_images(21), torch.arange(21)
    seen = [label for _, part in training_batches(images, labels, config(), 0, torch.Generator()) for label in part]
    assert len(seen) == 16
    assert len({int(label) for label in seen}) == 16


def test_fewer_images_than_a_batch_make_one_batch():
    batches = list(training_batches(numbered_images(3), torch.arange(3), config(), 0, torch.Generator()))
    assert [len(labels) for _, labels in batches] == [3]


def test_two_epochs_show_each_image_once_as_it_is_and_once_mirrored():
    images, labels = torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8), torch.arange(16)
    plain = config(crop_padding=0)
    views = {number: [] for number in range(16)}
    for epoch in (0, 1):
        for batch, part in training_batches(images, labels, plain, epoch, torch.Generator()):
            for image, label in zip(batch, part, strict=True):
                views[int(label)].append(bool(torch.equal(image, images[label])))
    assert all(sorted(view) == [False, True] for view in views.values())


def test_without_augmentation_the_images_come_as_they_are():
    images, labels = torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8), torch.arange(16)
    for epoch in (0, 1):
        plain = config(crop_padding=0, flip="off")
        for batch, part in training_batches(images, labels, plain, epoch, torch.Generator()):
            assert torch.equal(batch, images[part])


def test_the_same_generator_gives_the_same_epoch():
    images, labels = numbered_images(16), torch.arange(16)
    epochs = [
        torch.cat([b for b, _ in training_batches(images, labels, config(), 0, torch.Generator().manual_seed(s))])
        for s in (1, 1, 2)
    ]
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])
