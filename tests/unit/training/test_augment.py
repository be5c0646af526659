"""One gather does what shuffling, padding, cropping and mirroring would do one after the other."""

import dataclasses

import numpy as np
import torch

from cifar_tasks.config import TrainConfig, configure
from cifar_tasks.training.augment import reflected_positions, take_batch, training_batches


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
