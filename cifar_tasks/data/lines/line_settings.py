"""What the settings say of a dataset line."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cifar_tasks.config import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, Resize
from cifar_tasks.data.source_names import SourceName


class DatasetLine(BaseModel):
    """A source that is watched, and how its images are prepared. Another test set is another line."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: SourceName
    """A folder or an `s3://` prefix that grows, an archive, `cifar10` or `digits`."""
    image_size: int = Field(default=32, ge=MIN_IMAGE_SIZE, le=MAX_IMAGE_SIZE)
    """Pixels per side."""
    resize: Resize = "crop"
    seed: int = Field(default=0, ge=0)
    """Of the validation split."""
    settle_seconds: float = Field(default=300, ge=0)
    """A delivery is complete when its source has not changed for so long."""
    marker: str | None = Field(default=None, pattern=r"^[^/]+$")
    """Name of an object beside the class folders that is written last: a delivery is complete when it has changed."""

    @field_validator("marker")
    @classmethod
    def _visible(cls, marker: str | None) -> str | None:
        if marker and marker.startswith("."):
            raise ValueError("hidden files are ignored: give a name that does not begin with a dot")
        return marker

    @field_validator("source")
    @classmethod
    def _one_source(cls, source: str) -> str:
        if source == "auto":
            raise ValueError("a dataset line has one source: give cifar10, digits, an absolute path or an s3:// URL")
        return source
