"""Embeddings without a trained network: responses of whitened patches, pooled over a grid (Coates and Ng, 2011).

A logistic regression on them classifies 56 % of CIFAR-10's images with 5,000 to learn from, and needs no weights, no
torch and no GPU.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.decomposition import PCA

from cifar_tasks.data.images import Images

Embeddings = NDArray[np.float32]
"""N × dimensions."""

SIDE, PATCH, STRIDE, GRID = 32, 6, 2, 2
FILTERS, DIMENSIONS, SAMPLED = 200, 256, 20_000
CONTRAST, WHITENING, THRESHOLD = 10.0, 0.1, 0.5
"""As in the paper, for levels of 0–255."""
BATCH = 64


@dataclass(frozen=True)
class PatchEncoder:
    """Filters that were drawn from images."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def encode(self, images: Images) -> Embeddings:
        small = at_side(images, SIDE)
        parts = [self._encode(small[start : start + BATCH]) for start in range(0, len(small), BATCH)]
        return np.concatenate(parts) if parts else np.empty((0, 2 * FILTERS * GRID**2), np.float32)

    def _encode(self, images: Images) -> Embeddings:
        patches = _patches(images)
        response = _normalized(patches.reshape(-1, patches.shape[-1])) @ self.weights - self.bias
        response = response.reshape(*patches.shape[:3], -1)
        both = np.concatenate([np.maximum(response - THRESHOLD, 0), np.maximum(-response - THRESHOLD, 0)], axis=3)
        halves = (slice(None, both.shape[1] // GRID), slice(both.shape[1] // GRID, None))
        pooled = [both[:, rows, columns].mean((1, 2)) for rows in halves for columns in halves]
        encoded: Embeddings = np.concatenate(pooled, axis=1)
        return encoded


def fit_encoder(images: Images, seed: int = 0) -> PatchEncoder:
    """Filters are patches of these images."""
    random = np.random.default_rng(seed)
    small = at_side(images[np.sort(random.permutation(len(images))[:SAMPLED])], SIDE)
    top = random.integers(0, SIDE - PATCH + 1, (2, SAMPLED))
    windows = np.lib.stride_tricks.sliding_window_view(small, (PATCH, PATCH), axis=(1, 2))
    drawn = windows[random.integers(0, len(small), SAMPLED), top[0], top[1]].reshape(SAMPLED, -1)
    patches = _normalized(drawn.astype(np.float32))
    values, vectors = np.linalg.eigh(np.cov(patches.T))
    whitening = (vectors / np.sqrt(np.maximum(values, 0) + WHITENING)) @ vectors.T
    mean = patches.mean(0)
    filters = (patches[:FILTERS] - mean) @ whitening
    filters /= np.maximum(np.linalg.norm(filters, axis=1, keepdims=True), 1e-6)
    weights = (whitening @ filters.T).astype(np.float32)
    return PatchEncoder(weights, (mean @ weights).astype(np.float32))


def embed(reference: Images, *others: Images) -> list[Embeddings]:
    """Of the reference, and of each of the others: the directions in which the reference differs most."""
    encoder = fit_encoder(reference)
    encoded = encoder.encode(reference)
    if len(encoded) < 2:
        return [part[:, :DIMENSIONS] for part in (encoded, *map(encoder.encode, others))]
    dimensions = min(DIMENSIONS, *encoded.shape)
    pca = PCA(dimensions, svd_solver="randomized", random_state=0).fit(encoded)
    scale = max(float(np.sqrt(pca.explained_variance_.sum())), 1e-6)
    return [(pca.transform(part) / scale).astype(np.float32) for part in (encoded, *map(encoder.encode, others))]


def at_side(images: Images, side: int) -> Images:
    """Square images in this size, each side in pixels."""
    if images.shape[1] == side or not len(images):
        return images
    scaled = [Image.fromarray(image).resize((side, side), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image) for image in scaled])


def _patches(images: Images) -> NDArray[np.float32]:
    windows = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))[:, ::STRIDE, ::STRIDE]
    return windows.reshape(*windows.shape[:3], -1).astype(np.float32)


def _normalized(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = patches - patches.mean(1, keepdims=True)
    normal: NDArray[np.float32] = centred / np.sqrt(centred.var(1, keepdims=True) + CONTRAST)
    return normal
