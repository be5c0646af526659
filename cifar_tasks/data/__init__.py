"""Images from any source to an immutable, verified data set version: `open_source`, `prepare`, `load_dataset`."""

from cifar_tasks.data.folders import decode
from cifar_tasks.data.images import Images, LabelledImages, RawDataset
from cifar_tasks.data.source import STAND_IN_BANNER, Source, absolute_source, open_source
from cifar_tasks.data.splits import split_indices
from cifar_tasks.data.versions import (
    SPLITS,
    Dataset,
    DatasetVersion,
    find_prepared,
    load_dataset,
    load_version,
    prepare,
)

__all__ = [
    "SPLITS",
    "STAND_IN_BANNER",
    "Dataset",
    "DatasetVersion",
    "Images",
    "LabelledImages",
    "RawDataset",
    "Source",
    "absolute_source",
    "decode",
    "find_prepared",
    "load_dataset",
    "load_version",
    "open_source",
    "prepare",
    "split_indices",
]
