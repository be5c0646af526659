"""Images from any source to an immutable, verified dataset version: `open_source`, `prepare`, `load_dataset`."""

from cifar_tasks.data.image_format import ImageFormat, decode
from cifar_tasks.data.images import Images, LabelledImages
from cifar_tasks.data.loading import Dataset, load_dataset
from cifar_tasks.data.preparation import find_prepared, prepare
from cifar_tasks.data.source import PLACEHOLDER_BANNER, Source, absolute_source, open_source
from cifar_tasks.data.spool import spooled
from cifar_tasks.data.versions import SPLITS, DatasetVersion, load_version

__all__ = [
    "PLACEHOLDER_BANNER",
    "SPLITS",
    "Dataset",
    "DatasetVersion",
    "ImageFormat",
    "Images",
    "LabelledImages",
    "Source",
    "absolute_source",
    "decode",
    "find_prepared",
    "load_dataset",
    "load_version",
    "open_source",
    "prepare",
    "spooled",
]
