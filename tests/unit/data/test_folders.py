import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_tasks.data.folders import MAX_PIXELS, decode, load_class_folders
from cifar_tasks.data.images import RawDataset
from cifar_tasks.data.trees import DirectoryTree, FileTree, open_archive
from cifar_tasks.errors import DataError
from tests.unit.data.pictures import class_files, directory_of, encoded, png, zip_of


def load(tree: FileTree, lines: list[str] | None = None) -> RawDataset:
    return load_class_folders(tree, tree.names(), "images", (lines if lines is not None else []).append)


def load_directory(files: dict[str, bytes], root: Path) -> RawDataset:
    return load(DirectoryTree(directory_of(files, root)))


def refusal(files: dict[str, bytes], root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_directory(files, root)
    assert str(root) in str(caught.value)
    return str(caught.value)


def test_images_and_labels_come_in_the_order_of_class_and_name(tmp_path: Path) -> None:
    files = class_files(("bee", "ant", "cow"))
    raw = load_directory(files, tmp_path)
    assert raw.classes == ("ant", "bee", "cow")
    assert raw.train.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert raw.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (raw.train.images.dtype, raw.train.images.shape) == (np.uint8, (18, 32, 32, 3))
    assert (raw.train.images[0] == decode(files["train/ant/000.png"], "", "")).all()
    assert (raw.test.images[-1] == decode(files["test/cow/001.png"], "", "")).all()


def test_many_batches_keep_their_order(tmp_path: Path) -> None:
    files = class_files(train=200, test=1)
    raw = load(open_archive(zip_of(dict(reversed(files.items())), tmp_path / "a.zip")))
    expected = [decode(files[name], "", "") for name in sorted(files) if name.startswith("train/")]
    assert (raw.train.images == np.stack(expected)).all()


def test_a_single_folder_around_train_and_test_is_tolerated(tmp_path: Path) -> None:
    files = class_files()
    plain = load_directory(files, tmp_path / "a")
    wrapped = load_directory({f"my-images/{name}": content for name, content in files.items()}, tmp_path / "b")
    assert wrapped.classes == plain.classes
    assert (wrapped.train.images == plain.train.images).all()


def test_loose_files_beside_train_and_test_are_left_alone(tmp_path: Path) -> None:
    assert len(load_directory(class_files() | {"README.md": b"about", "labels.txt": b"ant"}, tmp_path).train) == 12


def test_a_picture_of_32_by_32_is_untouched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (decode(encoded(Image.fromarray(pixels)), "a.png", "") == pixels).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
@pytest.mark.parametrize("size", [(32, 32), (1, 1), (200, 31), (640, 480)])
def test_every_mode_and_size_becomes_a_32_by_32_colour_image(mode: str, size: tuple[int, int]) -> None:
    image = decode(png(1, mode, size), "a.png", "")
    assert (image.dtype, image.shape) == (np.uint8, (32, 32, 3))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_keeps_its_colour(mode: str) -> None:
    photograph = Image.new("RGB", (1600, 1200), (200, 200, 200)).convert(mode)
    assert np.abs(decode(encoded(photograph, "JPEG"), "a.jpg", "").astype(int) - 200).max() <= 2


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    ramp = (np.arange(32 * 32, dtype=np.uint16) * 64).reshape(32, 32)
    image = decode(encoded(Image.fromarray(ramp)), "a.png", "")
    assert (image[..., 0] == ramp // 256).all()


@pytest.mark.parametrize("size", [(32, 32), (64, 64)])
def test_what_is_transparent_becomes_white(size: tuple[int, int]) -> None:
    assert (decode(encoded(Image.new("RGBA", size, (255, 0, 0, 0))), "a.png", "") == 255).all()


def test_a_photograph_taken_upright_stays_upright() -> None:
    photograph = Image.new("RGB", (64, 64), "black")
    photograph.paste("white", (0, 0, 64, 32))  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # to be turned upside down
    image = decode(encoded(photograph, "JPEG", exif), "a.jpg", "")
    assert image[4].mean() < 50
    assert image[-4].mean() > 200


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"train/ant/broken.png": b"no picture"}, r"train/ant/broken\.png is no PNG or JPEG by its content"),
        ({"test/bee/half.png": png(9)[:900]}, r"test/bee/half\.png cannot be decoded"),
        ({"train/ant/notes.txt": b"about"}, r"train/ant/notes\.txt is no image by its name"),
        ({"train/loose.png": png(9)}, r"train/loose\.png does not lie directly in a class folder"),
        ({"train/ant/deep/1.png": png(9)}, r"train/ant/deep/1\.png does not lie directly in a class folder"),
        ({"test/cow/1.png": png(9)}, r"class 'cow' stands in test/ but not in train/"),
        ({"train/cow/1.png": png(9)}, r"class 'cow' has too few training images \(1\)"),
        ({"val/ant/1.png": png(9)}, r"unexpected folder 'val'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_defect_is_refused_with_its_own_message(tmp_path: Path, extra: dict[str, bytes], message: str) -> None:
    assert re.search(message, refusal(class_files() | extra, tmp_path))


def test_a_class_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / "cow").mkdir(parents=True)
    assert "class 'cow' has too few training images (0)" in refusal(class_files(), tmp_path)


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    assert "at least 2" in refusal(class_files(("ant",)), tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_is_refused(tmp_path: Path, split: str) -> None:
    files = {name: content for name, content in class_files().items() if not name.startswith(split)}
    assert f"has no images in {split}/" in refusal(files, tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / "ant").mkdir(parents=True)
    assert f"{tmp_path} is empty. Expected train/<class>/<image>" in refusal({".DS_Store": b""}, tmp_path)


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    assert "unexpected folder" in refusal({"holiday/1.jpg": b"", "work/2.jpg": b""}, tmp_path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    small = bytearray(encoded(Image.new("L", (1, 1))))
    small[16:24] = side.to_bytes(4, "big") * 2
    small[29:33] = zlib.crc32(small[12:29]).to_bytes(4, "big")
    with pytest.raises(DataError, match=r"a\.png is too large to decode"):
        decode(bytes(small), "a.png", "")


def test_progress_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_tasks.data.folders.REPORT_EVERY", 10)
    lines: list[str] = []
    load(DirectoryTree(directory_of(class_files(), tmp_path)), lines)
    assert lines == ["images: 2 classes, 16 images", "images: 16 of 16 images decoded"]
