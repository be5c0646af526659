"""Random crops and mirroring of a whole batch at once, on the device where the images lie."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cifar_tasks.config import TrainConfig

EVERYTHING = slice(None)


def reflected_positions(size: int, padding: int) -> Tensor:
    """Source position of each pixel of a row that is padded by reflection; int64 (size + 2 · padding,)."""
    position = torch.arange(-padding, size + padding).abs()
    return torch.where(position < size, position, 2 * (size - 1) - position)


def take_batch(images: Tensor, index: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, *, padding: int) -> Tensor:
    """Shuffling, reflect-padded crop and mirroring in one gather.

    `images` uint8 (N, H, W, C); for each of B pictures its `index` (B,), the crop's `top` and `left` in
    0…2 · padding (B,), and whether it is `mirrored`, bool (B,). Returns uint8 (B, H, W, C).
    """
    height, width = images.shape[1:3]
    device = images.device
    rows = reflected_positions(height, padding).to(device)[top[:, None] + torch.arange(height, device=device)]
    columns = reflected_positions(width, padding).to(device)[left[:, None] + torch.arange(width, device=device)]
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    pixels = ((index[:, None] * height + rows) * width)[:, :, None] + columns[:, None, :]
    # Whole pixels from a flat list of them: 0.8 instead of 6.9 ms for 256 images, where three index tensors are slow.
    return images.flatten(0, 2).index_select(0, pixels.flatten()).view(*pixels.shape, -1)


def training_batches(
    images: Tensor,
    labels: Tensor,
    config: TrainConfig,
    epoch: int,
    generator: torch.Generator,
    share: slice = EVERYTHING,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented batches: uint8 (B, H, W, C) and int64 (B,).

    Mirroring alternates: half of the images in one epoch, the other half in the next, so that two epochs show each
    image both ways exactly once (KellerJordan/cifar10-airbench). Images left over after the last whole batch wait
    for the next epoch's order. `share` is the part of each batch that this process works on; the plan is the same
    in all of them. Without mirroring and padding `images` may be of any shape and type, (N, …).
    """
    count, device = len(images), images.device
    batch = min(config.batch_size, count)
    order = torch.randperm(count, generator=generator)
    flip, padding = config.augmentation.flip, config.augmentation.crop_padding
    if not flip and padding == 0:
        for start in range(0, count - batch + 1, batch):
            index = order[start : start + batch][share].to(device, non_blocking=True)
            yield images[index], labels[index]
        return
    first = torch.rand(count, generator=torch.Generator().manual_seed(config.seed)) < 0.5
    mirrored = (first ^ (epoch % 2 == 1)) & flip
    top, left = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    for start in range(0, count - batch + 1, batch):
        index = order[start : start + batch][share]
        plan = (index, top[index], left[index], mirrored[index])
        index, *crop = (part.to(device, non_blocking=True) for part in plan)
        yield take_batch(images, index, *crop, padding=padding), labels[index]


def steps_per_epoch(count: int, config: TrainConfig) -> int:
    return count // min(config.batch_size, count)
