"""Small class folders of noise, as a directory, zip or tar."""

import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def png(seed: int, mode: str = "RGB", size: tuple[int, int] = (32, 32)) -> bytes:
    """A picture that no other seed gives."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise).convert(mode))


def encoded(image: Image.Image, kind: str = "PNG", exif: Image.Exif | None = None) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **({"exif": exif} if exif else {}))
    return buffer.getvalue()


def class_files(classes: tuple[str, ...] = ("ant", "bee"), train: int = 6, test: int = 2) -> dict[str, bytes]:
    """Path → content."""
    files: dict[str, bytes] = {}
    for split, count in (("train", train), ("test", test)):
        for name in classes:
            for number in range(count):
                files[f"{split}/{name}/{number:03}.png"] = png(len(files))
    return files


def directory_of(files: dict[str, bytes], root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zip_of(files: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tar_of(files: dict[str, bytes], path: Path) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    return path
