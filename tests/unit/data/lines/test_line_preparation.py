"""A version of a line has the images of the version before that are still there, and new ones; its test set stays."""

import errno
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cifar_tasks.data.lines import line_shards
from cifar_tasks.data.loading import load_split
from cifar_tasks.data.versions import SPLITS, load_version, shards_of, whole_version
from cifar_tasks.errors import ConfigError, DataError, SourceChanged, StorageError
from tests.dataset_lines import LINE, accept, deliver, first_delivery, index_of, picture, prepared, splits_of
from tests.stores import FailingStore, InMemoryStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return first_delivery(tmp_path / "source")


@pytest.fixture
def store() -> InMemoryStore:
    return InMemoryStore()


def read(store: InMemoryStore, version, tmp_path: Path) -> dict[str, list[tuple[bytes, int]]]:
    """Pixels and labels by split, as a training reads them."""
    loaded = load_version(store, version.dataset.uri)
    parts = {split: load_split(store, loaded, split, tmp_path / "cache") for split in SPLITS}
    return {
        split: [(image.tobytes(), int(label)) for image, label in zip(part.images, part.labels, strict=True)]
        for split, part in parts.items()
    }


def test_a_first_version_reads_back_as_its_files(store, root, tmp_path):
    version = prepared(store, root)
    found = read(store, version, tmp_path)
    assert {split: len(part) for split, part in found.items()} == {
        split: sum(counts.values()) for split, counts in version.dataset.counts.items()
    }
    expected = {
        (np.asarray(Image.open(path).convert("RGB")).tobytes(), ("ant", "bee").index(path.parent.name))
        for path in (root / "train").rglob("*.png")
    }
    assert set(found["train"]) | set(found["validation"]) == expected
    assert len(found["test"]) == 10
    assert min(len(part) for part in found.values()) > 0
    assert whole_version(store, version.dataset.digest, LINE).warnings == ()
    assert not load_version(store, version.dataset.uri).placeholder


def test_rows_of_the_index_are_the_images_of_the_arrays(store, root, tmp_path):
    version = prepared(store, root)
    index, found = index_of(store, version), read(store, version, tmp_path)
    for split in SPLITS:
        for row, (image, label) in zip(index.by_split[split], found[split], strict=True):
            assert np.asarray(Image.open(root / row.name)).tobytes() == image
            assert label == row.label


def test_an_increment_keeps_every_earlier_split_and_the_test_set(store, root, tmp_path, monkeypatch):
    monkeypatch.setattr(line_shards, "PIECE_BYTES", 8 * 3072)
    first = accept(store, prepared(store, root))
    for number in range(30):
        deliver(root, f"train/bee/a{number:03}.png", picture(5000 + number))
    second = prepared(store, root)
    before, after = splits_of(index_of(store, first)), splits_of(index_of(store, second))
    assert before.items() <= after.items()
    assert len(after) == len(before) + 30
    assert second.diff.model_dump() == {"new": 30, "gone": 0, "relabelled": 0, "dropped": 0, "unreadable": 0}
    assert read(store, second, tmp_path)["test"] == read(store, first, tmp_path)["test"]
    one, other = (shards_of(store, load_version(store, each.dataset.uri)) for each in (first, second))
    assert one["test-images"] == other["test-images"]
    assert one["test-labels"] == other["test-labels"]
    assert len(set(one["train-images"]) & set(other["train-images"])) >= len(one["train-images"]) - 2


@pytest.mark.parametrize("field", [{"image_size": 16}, {"resize": "pad"}])
def test_another_size_or_resize_than_that_of_the_version_in_use_is_refused_and_leaves_it(store, root, field):
    accept(store, prepared(store, root))
    deliver(root, "train/ant/new.png", picture(77))
    before = dict(store.objects)
    with pytest.raises(ConfigError, match=r"pets has images of 32 pixels \(resize crop\).* another name") as caught:
        prepared(store, root, **field)
    assert store.objects == before
    size, resize = {"image_size": 32, "resize": "crop", **field}.values()
    assert f"the settings say {size} ({resize})" in str(caught.value)


def test_only_new_and_changed_files_are_read(store, root, monkeypatch):
    accept(store, prepared(store, root))
    deliver(root, "train/ant/new.png", picture(77))
    deliver(root, "train/ant/001.png", picture(78))
    read, reads = Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path.name) or read(path))
    prepared(store, root)
    assert sorted(reads) == ["001.png", "new.png"]


def test_of_a_prefix_only_new_and_changed_objects_are_read(store, root, tmp_path, monkeypatch):
    team = InMemoryStore()
    for path in root.rglob("*.png"):
        team.put(f"pets/{path.relative_to(root)}", path.read_bytes())
    accept(store, prepared(store, "s3://team/pets", open_bucket=lambda bucket: team))
    for name, number in (("new.png", 77), ("001.png", 78)):
        team.put(f"pets/train/ant/{name}", deliver(tmp_path, name, picture(number)).read_bytes())
    read, reads = team.snapshot, []
    monkeypatch.setattr(team, "snapshot", lambda key: reads.append(key) or read(key))
    prepared(store, "s3://team/pets", open_bucket=lambda bucket: team)
    assert sorted(reads) == ["pets/train/ant/001.png", "pets/train/ant/new.png"]


def test_the_same_content_under_other_marks_is_the_same_version(store, root, tmp_path):
    first = accept(store, prepared(store, root))
    copy = shutil.copytree(root, tmp_path / "copy" / "source")
    again = prepared(store, copy)
    assert again.dataset.digest == first.dataset.digest


def test_removed_images_are_gone_and_the_others_stay_in_order(store, root, tmp_path, monkeypatch):
    monkeypatch.setattr(line_shards, "PIECE_BYTES", 8 * 3072)
    first = accept(store, prepared(store, root))
    for name in ("ant/000", "ant/007", "bee/013", "bee/019"):
        (root / f"train/{name}.png").unlink()
    second = prepared(store, root)
    assert (second.diff.gone, second.diff.new) == (4, 0)
    one, other = read(store, first, tmp_path), read(store, second, tmp_path)
    for split in ("train", "validation"):
        assert other[split] == [image for image in one[split] if image in other[split]]
    assert sum(map(len, one.values())) - sum(map(len, other.values())) == 4


def test_an_image_that_returns_has_the_split_that_it_had(store, root, tmp_path):
    first = accept(store, prepared(store, root))
    removed = [row for row in index_of(store, first).images if row.split != "test"][::3]
    for row in removed:
        (root / row.name).rename(tmp_path / Path(row.name).name.replace(".", f"-{row.label}."))
    accept(store, prepared(store, root))
    for row in removed:
        (tmp_path / Path(row.name).name.replace(".", f"-{row.label}.")).rename(root / row.name)
    third = prepared(store, root)
    assert third.diff.new == len(removed)
    assert splits_of(index_of(store, third)) == splits_of(index_of(store, first))


def test_a_moved_file_is_relabelled_in_place(store, root, tmp_path):
    first = accept(store, prepared(store, root))
    (root / "train/ant/003.png").rename(root / "train/bee/moved.png")
    second = prepared(store, root)
    assert second.diff.model_dump() == {"new": 0, "gone": 0, "relabelled": 1, "dropped": 0, "unreadable": 0}
    assert splits_of(index_of(store, second)) == splits_of(index_of(store, first))
    one, other = read(store, first, tmp_path), read(store, second, tmp_path)
    changed = [
        (a[1], b[1])
        for split in ("train", "validation")
        for a, b in zip(one[split], other[split], strict=True)
        if a != b
    ]
    assert changed == [(0, 1)]


def test_a_file_with_another_name_is_known_by_it_from_then_on(store, root, monkeypatch):
    accept(store, prepared(store, root))
    (root / "train/ant/003.png").rename(root / "train/ant/renamed.png")
    second = accept(store, prepared(store, root))
    names = {row.name for row in index_of(store, second).images}
    assert "train/ant/renamed.png" in names
    assert "train/ant/003.png" not in names
    lines: list[str] = []
    assert prepared(store, root, lines.append).dataset == second.dataset
    assert "pets: 50 images, 0 of them new or changed" in lines


@pytest.mark.parametrize("change", [lambda image: image, ImageOps.mirror], ids=["exact", "mirrored"])
def test_images_of_the_test_set_in_a_delivery_are_dropped_and_listed(store, root, change):
    accept(store, prepared(store, root))
    for number in range(5):
        deliver(root, f"train/ant/copy{number}.png", change(picture(1_001_000 + number)))
    second = prepared(store, root)
    assert (second.diff.dropped, second.diff.new) == (5, 0)
    what = "is equal to" if change(picture(1)) == picture(1) else "is a near-duplicate of"
    dropped = {row.name: row.why for row in index_of(store, second).dropped}
    assert dropped["train/ant/copy3.png"] == (
        f"{what} the test image test/bee/003.png, which is bee there and ant here"
    )
    again = prepared(store, root)
    assert index_of(store, again).dropped == index_of(store, second).dropped


def test_copies_of_test_images_in_the_first_delivery_are_dropped_too(store, root):
    deliver(root, "train/ant/copy.png", ImageOps.mirror(picture(1_000_002)))
    first = prepared(store, root)
    assert [row.name for row in index_of(store, first).dropped] == ["train/ant/copy.png"]
    assert first.diff.new == 40


def test_dropped_images_are_not_read_or_reported_as_new_again(store, root, monkeypatch):
    accept(store, prepared(store, root))
    deliver(root, "train/ant/copy.png", ImageOps.mirror(picture(1_000_002)))
    deliver(root, "train/ant/new.png", picture(4))
    accept(store, prepared(store, root))
    deliver(root, "train/ant/newer.png", picture(5))
    read, reads = Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path.name) or read(path))
    third = accept(store, prepared(store, root))
    assert (third.diff.new, third.diff.dropped, reads) == (1, 0, ["newer.png"])
    assert [row.name for row in index_of(store, third).dropped] == ["train/ant/copy.png"]
    (root / "train/ant/copy.png").unlink()
    assert prepared(store, root).diff.dropped == 0


def test_new_files_in_the_test_folder_do_not_change_the_frozen_test_set(store, root, tmp_path):
    first = accept(store, prepared(store, root))
    deliver(root, "test/bee/late.png", picture(99))
    (root / "test/ant/001.png").unlink()
    second = prepared(store, root)
    assert read(store, second, tmp_path)["test"] == read(store, first, tmp_path)["test"]
    assert [(row.name, row.why) for row in index_of(store, second).dropped] == [
        ("test/bee/late.png", "is in the test folder, but the test set of the line is frozen")
    ]
    assert second.notes == ("1 test images are not in the source any more; the frozen test set keeps them",)


def test_a_drawn_test_set_is_frozen_too(store, root, tmp_path):
    shutil.rmtree(root / "test")
    first = accept(store, prepared(store, root / "train"))
    for number in range(10):
        deliver(root, f"train/ant/a{number}.png", picture(7000 + number))
    second = prepared(store, root / "train")
    assert load_version(store, second.dataset.uri).test_set == "drawn"
    assert read(store, second, tmp_path)["test"] == read(store, first, tmp_path)["test"]
    assert splits_of(index_of(store, first)).items() <= splits_of(index_of(store, second)).items()
    assert second.diff.new == 10


def test_a_new_class_stands_behind_the_others_and_a_missing_one_stays(store, root, tmp_path):
    first = accept(store, prepared(store, root))
    for number in range(12):
        deliver(root, f"train/aardvark/{number}.png", picture(9000 + number))
    shutil.rmtree(root / "train/bee")
    second = prepared(store, root)
    assert load_version(store, second.dataset.uri).classes == ("ant", "bee", "aardvark")
    assert second.dataset.counts["train"]["bee"] == 0
    assert "no validation images of bee" in second.notes
    assert read(store, second, tmp_path)["test"] == read(store, first, tmp_path)["test"]
    assert second.dataset.counts["validation"]["aardvark"] >= 1


def test_unreadable_files_are_listed_and_not_read_again(store, root, monkeypatch):
    accept(store, prepared(store, root))
    (root / "train/ant/broken.png").write_bytes(b"\x89PNG broken")
    (root / "train/ant/notes.txt").write_text("not an image")
    deliver(root, "train/ant/new.png", picture(4))
    second = accept(store, prepared(store, root))
    assert [row.name for row in index_of(store, second).unreadable] == ["train/ant/broken.png", "train/ant/notes.txt"]
    assert second.diff.unreadable == 2
    deliver(root, "train/ant/newer.png", picture(5))
    lines: list[str] = []
    assert prepared(store, root, lines.append).diff.model_dump() == {
        "new": 1, "gone": 0, "relabelled": 0, "dropped": 0, "unreadable": 0
    }  # fmt: skip
    assert "pets: 53 images, 1 of them new or changed" in lines


def test_a_file_that_is_deleted_while_it_is_read_ends_the_preparation_which_a_retry_mends(store, root, monkeypatch):
    read = Path.read_bytes

    def deleting(path: Path) -> bytes:
        content = read(path)
        (root / "train/bee/019.png").unlink(missing_ok=True)
        return content

    monkeypatch.setattr(Path, "read_bytes", deleting)
    with pytest.raises(SourceChanged, match=r"train/bee/019.png was changed while the data were read") as caught:
        prepared(store, root)
    assert caught.value.retryable
    assert not list(store.keys("datasets/"))
    assert prepared(store, root).diff.new == 39


def test_a_file_that_is_there_and_cannot_be_read_is_named_with_the_reason(store, root, monkeypatch):
    accept(store, prepared(store, root))
    deliver(root, "train/ant/closed.png", picture(77))
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "closed.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"train/ant/closed\.png cannot be read: Permission denied") as caught:
        prepared(store, root)
    assert not caught.value.retryable


def test_a_damaged_member_of_an_archive_is_named_with_the_reason(store, root, tmp_path):
    archive = Path(shutil.make_archive(str(tmp_path / "delivery"), "zip", root))
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        member = opened.getinfo("train/ant/003.png")
    content[member.header_offset + 80] ^= 255
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"train/ant/003\.png ") as caught:
        prepared(store, archive)
    assert not caught.value.retryable


@pytest.mark.parametrize("spared", [0, 1])
def test_a_first_delivery_whose_images_cannot_be_read_names_class_and_files(store, tmp_path, spared):
    root = tmp_path / "source"
    for name in ("ant", "bee"):
        for number in range(4):
            path = deliver(root, f"{name}/{number}.png", picture(number + 1000 * (name == "bee")))
            if name == "bee" and number >= spared:
                path.write_bytes(b"")
    with pytest.raises(DataError, match=rf"class bee has too few images that can be read \({spared}\).*bee/3\.png "):
        prepared(store, root)


def test_of_a_preparation_that_fails_at_any_write_no_version_is_seen_and_the_next_one_is_the_same(root):
    whole = prepared(InMemoryStore(), root).dataset
    for fails_at in range(1, 100):
        store = FailingStore(fails_at)
        try:
            assert prepared(store, root).dataset == whole
            break
        except StorageError:
            manifests = [key for key in store.keys("datasets/") if key.endswith(".json")]
            assert all(whole_version(store, whole.digest, LINE) for _ in manifests)
        store.repair()
        assert prepared(store, root).dataset == whole
    assert fails_at > 8


def test_a_source_that_lost_all_images_of_a_split_makes_no_version(store, root):
    accept(store, prepared(store, root))
    shutil.rmtree(root / "train")
    with pytest.raises(DataError, match="no train/"):
        prepared(store, root)


class RacingStore(InMemoryStore):
    """Somebody changes an object while others are read."""

    def __init__(self, change) -> None:
        super().__init__()
        self._change = change

    def snapshot(self, key: str):
        change, self._change = self._change, lambda objects: None
        change(self.objects)
        return super().snapshot(key)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda objects: objects.pop("pets/train/bee/019.png"), "deleted"),
        (lambda objects: objects.update({"pets/train/bee/019.png": b"other"}), "replaced"),
    ],
    ids=["deleted", "replaced"],
)
def test_an_object_that_changes_while_it_is_read_ends_the_preparation_which_a_retry_mends(store, root, change, what):
    team = RacingStore(change)
    for path in root.rglob("*.png"):
        team.put(f"pets/{path.relative_to(root)}", path.read_bytes())
    with pytest.raises(SourceChanged, match=f"train/bee/019.png was {what} while the data were being read"):
        prepared(store, "s3://team/pets", open_bucket=lambda bucket: team)
    assert not list(store.keys("datasets/"))
    again = prepared(store, "s3://team/pets", open_bucket=lambda bucket: team)
    assert (again.diff.new, again.diff.unreadable) == ((39, 0) if what == "deleted" else (39, 1))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_is_delivered_anew_is_decoded_only_where_it_is_new(store, root, tmp_path, kind, monkeypatch):
    def archived() -> str:
        return shutil.make_archive(str(tmp_path / "pets"), kind, root)

    first = accept(store, prepared(store, archived()))
    for number in range(4):
        deliver(root, f"train/bee/a{number}.png", picture(5000 + number))
    lines: list[str] = []
    second = prepared(store, archived(), lines.append)
    assert (second.diff.new, second.diff.gone) == (4, 0)
    assert "pets: 54 images, 4 of them new or changed" in lines
    assert splits_of(index_of(store, first)).items() <= splits_of(index_of(store, second)).items()


def test_a_delivery_of_which_all_images_stand_in_the_test_set_makes_no_version(store, tmp_path):
    root = tmp_path / "copies"
    for label, name in enumerate(("ant", "bee")):
        for number in range(5):
            for split in ("train", "test"):
                deliver(root, f"{split}/{name}/{number}.png", picture(100 * label + number))
    with pytest.raises(DataError, match=r"pets: no images are left for the train split. Check the source"):
        prepared(store, root)


def test_a_line_of_a_built_in_source_has_one_version(store):
    first = accept(store, prepared(store, "digits"))
    assert all(row.name for row in index_of(store, first).images)
    assert prepared(store, "digits").dataset == first.dataset
    assert first.dataset.counts["test"]["0"] > 30


@pytest.mark.parametrize("seed", range(5))
def test_after_any_deliveries_no_split_has_changed_and_no_test_image_is_learned(
    store, root, seed, tmp_path, monkeypatch
):
    monkeypatch.setattr(line_shards, "PIECE_BYTES", 4 * 3072)
    random = np.random.default_rng(seed)
    version = accept(store, prepared(store, root))
    ever = splits_of(index_of(store, version))
    test = read(store, version, tmp_path)["test"]
    for step in range(4):
        files = sorted(path for path in root.rglob("train/*/*.png"))
        for path in random.choice(len(files), 6, replace=False):
            if random.random() < 0.5:
                files[path].unlink()
            else:
                other = "bee" if files[path].parent.name == "ant" else "ant"
                files[path].rename(root / f"train/{other}/moved-{step}-{path}.png")
        for number in range(int(random.integers(1, 9))):
            kind = random.choice(["new", "again", "test"])
            chosen = {"new": 10_000 * seed + 100 * step + number, "again": number, "test": 1_000_000 + number % 5}[kind]
            deliver(root, f"train/{random.choice(['ant', 'bee'])}/s{step}-{number}.png", picture(int(chosen)))
        version = accept(store, prepared(store, root))
        found, index = read(store, version, tmp_path), index_of(store, version)
        assert found["test"] == test
        now = splits_of(index)
        assert all(now[digest] == split for digest, split in ever.items() if digest in now)
        ever |= now
        files = {
            (np.asarray(Image.open(path)).tobytes(), ("ant", "bee").index(path.parent.name))
            for path in root.rglob("train/*/*.png")
        }
        tested = {image for image, _ in test}
        assert set(found["train"]) | set(found["validation"]) == {each for each in files if each[0] not in tested}
