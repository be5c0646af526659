"""A picture of any size and mode becomes an image of the wanted size."""

import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cifar_tasks.data.image_format import MAX_PIXELS, TILE, ImageFormat, decode, decode_sized
from cifar_tasks.errors import ConfigError, DataError
from tests.unit.data.pictures import encoded, png

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)
MODES = ("crop", "squash", "pad")


def decoded(content: bytes | np.ndarray, size: int = 32, resize: Any = "crop") -> np.ndarray:
    return decode(content, "a.png", ImageFormat(size, resize))


def flag(turned: bool = False) -> np.ndarray:
    """256 × 128 pixels: a quarter red, a half green, a quarter blue, from left to right or from top to bottom."""
    pixels = np.empty((128, 256, 3), np.uint8)
    pixels[:, :64], pixels[:, 64:192], pixels[:, 192:] = RED, GREEN, BLUE
    return pixels.swapaxes(0, 1).copy() if turned else pixels


def colours(image: np.ndarray, turned: bool) -> list[list[tuple[int, ...]]]:
    """At 1/16, 1/2 and 15/16 of both axes, along the flag for each place across it; of strong colours."""
    image = image.swapaxes(0, 1) if turned else image
    places = [len(image) // 16, len(image) // 2, len(image) * 15 // 16]
    return [[tuple(int(v) for v in (image[row, column] > 127) * 255) for column in places] for row in places]


WANTED = {
    "crop": [[GREEN] * 3] * 3,
    "squash": [[RED, GREEN, BLUE]] * 3,
    "pad": [[BLACK] * 3, [RED, GREEN, BLUE], [BLACK] * 3],
}


@pytest.mark.parametrize("turned", [False, True], ids=["wide", "high"])
@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("resize", MODES)
def test_each_resize_mode_keeps_its_part_of_the_picture(resize: str, size: int, turned: bool) -> None:
    pixels = flag(turned)
    for content in (pixels, encoded(Image.fromarray(pixels)), encoded(Image.fromarray(pixels), "JPEG")):
        image = decoded(content, size, resize)
        assert (image.dtype, image.shape) == (np.uint8, (size, size, 3))
        assert colours(image, turned) == WANTED[resize]


def test_pad_leaves_half_of_a_picture_twice_as_wide_as_high_black() -> None:
    rows = decoded(np.full((64, 128, 3), 200, np.uint8), 32, "pad")[:, 0, 0]
    assert rows.tolist() == [0] * 8 + [200] * 16 + [0] * 8


def test_crop_takes_the_middle_of_the_longer_side() -> None:
    columns = np.repeat(np.arange(48, dtype=np.uint8)[None, :, None], 32, 0).repeat(3, 2)
    assert (decoded(columns, 32, "crop") == columns[:, 8:40]).all()


@pytest.mark.parametrize("resize", MODES)
@pytest.mark.parametrize("size", [16, 32, 64])
def test_a_picture_of_the_wanted_size_is_not_changed(size: int, resize: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    for content in (pixels, encoded(Image.fromarray(pixels))):
        assert (decoded(content, size, resize) == pixels).all()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("I;16", "PNG")],
)
@pytest.mark.parametrize("size", [32, 64, 2080])
def test_a_picture_of_any_size_is_turned_as_its_exif_says(size: int, mode: str, kind: str) -> None:
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    rows = (np.arange(size) * 255 // size).astype(np.uint8)[:, None].repeat(size, 1)
    picture = Image.fromarray(rows.astype(np.uint16) * 256) if mode == "I;16" else Image.fromarray(rows).convert(mode)
    image = decoded(encoded(picture, kind, upside_down))[:, 0, 0].astype(int)
    assert (np.diff(image) <= 0).all()
    assert image[0] > 200


@pytest.mark.parametrize("resize", MODES)
def test_a_square_picture_is_the_same_in_every_mode(resize: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    assert (decoded(pixels, 32, resize) == decoded(pixels, 32, "squash")).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_large_picture_is_reduced_without_aliasing(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    content = encoded(Image.fromarray(noise), kind)
    exact = np.asarray(Image.open(BytesIO(content)).resize((32, 32), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(decoded(content).astype(int) - exact).mean() < 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("turned", [False, True], ids=["wide", "high"])
@pytest.mark.parametrize("resize", MODES)
def test_a_large_picture_keeps_the_same_part_as_a_small_one(resize: str, turned: bool, kind: str) -> None:
    large = flag(turned).repeat(12, axis=0).repeat(12, axis=1)
    assert large.shape[0] * large.shape[1] > TILE**2
    image = decoded(encoded(Image.fromarray(large), kind), 32, resize)
    assert colours(image, turned) == WANTED[resize]
    assert image.astype(int) == pytest.approx(decoded(flag(turned), 32, resize).astype(int), abs=40)


def test_a_small_picture_grows_smoothly() -> None:
    image = decoded(np.array([[[0] * 3, [255] * 3]] * 2, np.uint8))
    assert (np.diff(image[0, :, 0].astype(int)) >= 0).all()
    assert len(set(image[0, :, 0].tolist())) > 8


@pytest.mark.parametrize("size", [15, 513, 0, -32, 32.0, "32", None])
def test_a_size_out_of_range_is_refused_by_name(size: Any) -> None:
    with pytest.raises(ConfigError, match=f"image_size must be a whole number from 16 to 512, got {size!r}"):
        ImageFormat(size)


@pytest.mark.parametrize("size", [16, 512])
def test_the_smallest_and_the_largest_size_are_accepted(size: int) -> None:
    assert decoded(flag(), size).shape == (size, size, 3)


def test_an_unknown_mode_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="resize must be one of crop, squash, pad, got 'stretch'"):
        ImageFormat(32, "stretch")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
@pytest.mark.parametrize("size", [(32, 32), (1, 1), (200, 31), (640, 480)])
def test_every_mode_and_size_becomes_a_32_by_32_colour_image(mode: str, size: tuple[int, int]) -> None:
    image = decoded(png(1, mode, size))
    assert (image.dtype, image.shape) == (np.uint8, (32, 32, 3))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_keeps_its_colour(mode: str) -> None:
    photograph = Image.new("RGB", (1600, 1200), (200, 200, 200)).convert(mode)
    assert np.abs(decoded(encoded(photograph, "JPEG")).astype(int) - 200).max() <= 2


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    ramp = (np.arange(32 * 32, dtype=np.uint16) * 64).reshape(32, 32)
    image = decoded(encoded(Image.fromarray(ramp)))
    assert (image[..., 0] == ramp // 256).all()


@pytest.mark.parametrize("size", [(32, 32), (64, 64)])
def test_what_is_transparent_becomes_white(size: tuple[int, int]) -> None:
    assert (decoded(encoded(Image.new("RGBA", size, (255, 0, 0, 0)))) == 255).all()


def test_a_photograph_taken_upright_stays_upright() -> None:
    photograph = Image.new("RGB", (64, 64), "black")
    photograph.paste("white", (0, 0, 64, 32))  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # to be turned upside down
    image = decoded(encoded(photograph, "JPEG", exif))
    assert image[4].mean() < 50
    assert image[-4].mean() > 200


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    small = bytearray(encoded(Image.new("L", (1, 1))))
    small[16:24] = side.to_bytes(4, "big") * 2
    small[29:33] = zlib.crc32(small[12:29]).to_bytes(4, "big")
    with pytest.raises(DataError, match=r"a\.png is too large to decode"):
        decoded(bytes(small))


def test_a_picture_of_another_kind_is_refused_whatever_its_name() -> None:
    with pytest.raises(DataError, match=r"a\.png is no PNG or JPEG by its content"):
        decoded(encoded(Image.new("RGB", (32, 32)), "BMP"))


def test_a_png_that_is_broken_inside_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    content = bytearray(encoded(Image.fromarray(noise)))
    second = content.index(b"IDAT", content.index(b"IDAT") + 1)
    content[second : second + 4] = b"\0\0\0\0"
    with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
        decoded(bytes(content))


@pytest.mark.parametrize("resize", MODES)
def test_the_size_before_is_that_of_the_file(resize: Any) -> None:
    for kind, size in (("PNG", (70, 50)), ("JPEG", (900, 500))):  # a JPEG so large is decoded at a smaller size
        buffer = BytesIO()
        Image.new("RGB", size, "red").save(buffer, kind)
        pixels, before = decode_sized(buffer.getvalue(), ImageFormat(32, resize))
        assert (pixels.shape, before) == ((32, 32, 3), size)
    assert decode_sized(np.zeros((20, 30, 3), np.uint8), ImageFormat(32, resize))[1] == (30, 20)
