"""The one size of all images of a dataset version, and how a picture of any other size gets there."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_tasks.config import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, RESIZES, Resize
from cifar_tasks.data.images import Images
from cifar_tasks.data.parallel import MemoryBudget
from cifar_tasks.errors import ConfigError, DataError

MAX_PIXELS = 64_000_000
"""More than any camera's ordinary picture; a small file that unpacks to more is a decompression bomb."""
TILE = 2048
"""Pixels per side: a larger picture is converted tile by tile, so that memory holds one copy of it and not five."""
DECODER_BYTES = 320 * 2**20
"""What all threads together decode at a time: one picture of `MAX_PIXELS`, or many small ones."""
UNMEASURED_PIXELS = 2**20
"""A picture with fewer costs too little to be counted."""
ORIENTED = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})
"""Where Pillow finds how a picture is turned."""
REDUCING_GAP = 3
"""A picture is averaged down to this many times its final size before the slow, exact filter; see Pillow."""


Size = tuple[int, int]
"""Width and height of a picture as its file has it, in pixels."""


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


class UnusableImage(ValueError):
    """The message continues the name of the file."""


def decode(content: bytes | Images, where: str, image_format: ImageFormat) -> Images:
    """One picture, a PNG or JPEG file or its pixels, in this format. What is transparent becomes white.

    Raises `DataError`, which names it as `where`.
    """
    try:
        return decode_image(content, image_format)
    except UnusableImage as error:
        raise DataError(f"{where} {error}") from error


def decode_image(content: bytes | Images, image_format: ImageFormat) -> Images:
    """The same; raises `UnusableImage`."""
    return decode_sized(content, image_format)[0]


def decode_sized(content: bytes | Images, image_format: ImageFormat) -> tuple[Images, Size]:
    """The same, and the size of the picture before."""
    if isinstance(content, np.ndarray):
        size = content.shape[1], content.shape[0]
        if content.shape == image_format.shape:
            return content, size
        return np.asarray(_resized(Image.fromarray(content), image_format)), size
    try:
        with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as image:
            size, pixels = image.size, image.width * image.height
            if pixels > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} × {image.height} pixels")
            # A JPEG decoder can leave out detail that is lost anyway: 8 times faster on photographs.
            if min(image.size) > 4 * image_format.size:
                image.draft("RGB", (4 * image_format.size, 4 * image_format.size))
            if pixels < UNMEASURED_PIXELS:
                return np.asarray(_in_format(image, image_format)), size
            with _BUDGET.taken(_decoder_bytes(image, pixels)):
                decoded = np.asarray(_in_format(image, image_format))
                image.close()  # freed before another thread decodes
                return decoded, size
    except Image.DecompressionBombError as error:
        raise UnusableImage(f"is too large to decode ({error}). Remove it or make it smaller.") from error
    except UnidentifiedImageError:
        raise UnusableImage("is no PNG or JPEG by its content. Replace or remove it.") from None
    except MemoryError as error:
        raise UnusableImage("needs more memory to decode than there is. Make it smaller.") from error
    except Exception as error:  # Pillow's decoders raise many kinds for damaged bytes
        raise UnusableImage(f"cannot be decoded ({error}). Replace or remove it.") from error


_BUDGET = MemoryBudget(DECODER_BYTES)


def _decoder_bytes(image: Image.Image, pixels: int) -> int:
    """What decoding costs: the picture, copies of a tile, and what a progressive JPEG needs at its full size."""
    decoded = image.width * image.height
    coefficients = 2 * pixels * len(image.getbands()) if image.info.get("progressive") else 0
    return 4 * decoded + 16 * min(decoded, TILE**2) + coefficients


def _in_format(image: Image.Image, image_format: ImageFormat) -> Image.Image:
    small = _tiled(image, image_format) if image.width * image.height > TILE**2 else _as_rgb(image)
    if image.info.keys() & ORIENTED:
        small.info = dict(image.info)  # not every conversion keeps it
        small = ImageOps.exif_transpose(small)
    return _resized(small, image_format)


def _tiled(image: Image.Image, image_format: ImageFormat) -> Image.Image:
    """In RGB, cut to what is kept and reduced by whole factors, but not below `REDUCING_GAP` times the final size."""
    left, top, right, bottom = _kept(image, image_format)
    width, height = right - left, bottom - top
    sides = (max(width, height),) * 2 if image_format.resize == "pad" else (width, height)
    across, down = (max(1, side // (REDUCING_GAP * image_format.size)) for side in sides)
    small = Image.new("RGB", (-(-width // across), -(-height // down)))
    step_x, step_y = max(1, TILE // across) * across, max(1, TILE // down) * down
    for y in range(top, bottom, step_y):
        for x in range(left, right, step_x):
            tile = _as_rgb(image.crop((x, y, min(x + step_x, right), min(y + step_y, bottom))))
            small.paste(tile.reduce((across, down)), ((x - left) // across, (y - top) // down))
    return small


def _kept(image: Image.Image, image_format: ImageFormat) -> tuple[int, int, int, int]:
    width, height = image.size
    if image_format.resize != "crop":
        return 0, 0, width, height
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _resized(image: Image.Image, image_format: ImageFormat) -> Image.Image:
    size, (width, height) = image_format.size, image.size
    if width == height == size:
        return image
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
    return image.resize(size, Image.Resampling.LANCZOS, box, reducing_gap=REDUCING_GAP)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16 bits per pixel: Pillow itself would cut off all above 255
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
