"""The one size of all images of a dataset version, and how a picture of any other size gets there."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_tasks.config import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, RESIZES, Resize
from cifar_tasks.data.images import Images
from cifar_tasks.errors import ConfigError, DataError

MAX_PIXELS = 64_000_000
"""More than any camera's ordinary picture; a small file that unpacks to more is a decompression bomb."""


@dataclass(frozen=True)
class ImageFormat:
    """RGB images of `size` × `size` pixels."""

    size: int = 32
    """Pixels, 16 to 512."""
    resize: Resize = "crop"
    """`crop`: the shorter side becomes `size`, the middle of the longer side stays. `squash`: both sides become `size`.
    `pad`: the longer side becomes `size`, the rest is black. An image of the size already is not changed."""

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or not MIN_IMAGE_SIZE <= self.size <= MAX_IMAGE_SIZE:
            bounds = f"from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}"
            raise ConfigError(f"image_size must be a whole number {bounds}, got {self.size!r}")
        if self.resize not in RESIZES:
            raise ConfigError(f"resize must be one of {', '.join(RESIZES)}, got {self.resize!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, colour channels."""
        return self.size, self.size, 3


DEFAULT_FORMAT = ImageFormat()


def decode(content: bytes | Images, where: str, image_format: ImageFormat) -> Images:
    """One picture, a PNG or JPEG file or its pixels, in this format. What is transparent becomes white."""
    if isinstance(content, np.ndarray):
        if content.shape == image_format.shape:
            return content
        return np.asarray(_resized(Image.fromarray(content), image_format))
    try:
        with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} × {image.height} pixels")
            return np.asarray(_in_format(image, image_format))
    except Image.DecompressionBombError as error:
        raise DataError(f"{where} is too large to decode ({error}). Remove it or make it smaller.") from error
    except UnidentifiedImageError:
        raise DataError(f"{where} is no PNG or JPEG by its content. Replace or remove it.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{where} cannot be decoded ({error}). Replace or remove it.") from error


def _in_format(image: Image.Image, image_format: ImageFormat) -> Image.Image:
    size = image_format.size
    if image.size == (size, size):
        return _as_rgb(image)
    # A JPEG decoder can leave out detail that a reduced picture would lose anyway: 8 times faster on photographs.
    image.draft("RGB", (4 * size, 4 * size))
    return _resized(_as_rgb(ImageOps.exif_transpose(image)), image_format)


def _resized(image: Image.Image, image_format: ImageFormat) -> Image.Image:
    size, (width, height) = image_format.size, image.size
    if image_format.resize == "pad":
        scale = size / max(width, height)
        whole = _scaled(image, (max(1, round(width * scale)), max(1, round(height * scale))))
        canvas = Image.new("RGB", (size, size))
        canvas.paste(whole, ((size - whole.width) // 2, (size - whole.height) // 2))
        return canvas
    if image_format.resize == "squash":
        return _scaled(image, (size, size))
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return _scaled(image, (size, size), (left, top, left + side, top + side))


def _scaled(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, box, reducing_gap=3.0)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16 bits per pixel: Pillow itself would cut off all above 255
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
