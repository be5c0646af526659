"""What a delivery must meet. Imports nothing heavy: the settings hold these limits."""

from pydantic import BaseModel, ConfigDict, Field


class QualityLimits(BaseModel):
    """Shares are of 0–1: 0.01 is one of a hundred images."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    confidence: float = Field(default=0.99, ge=0.5, lt=1, title="Confidence")
    """A statistical check fails only if its value is beyond the limit and chance does not explain it. Of clean
    deliveries at most the complement fails by chance: it is divided among these checks (Bonferroni)."""
    new_classes: bool = Field(default=False, title="New classes")
    """Whether a version may have classes that the version in use does not have."""
    missing_classes: bool = Field(default=False, title="Missing classes")
    """Whether a version may lack classes of the version in use."""
    max_removed: float = Field(default=0.1, ge=0, le=1, title="Removed images")
    """Share of the images in use that the version no longer has."""
    max_relabelled: float = Field(default=0.05, ge=0, le=1, title="Relabelled images")
    """Share of the images in use that have another label in the version."""
    max_unreadable: float = Field(default=0.01, ge=0, le=1, title="Unreadable images")
    """Share of the delivered files that are no readable image."""
    max_test_copies: float = Field(default=0.01, ge=0, le=1, title="Copies of test images")
    """Share of the added images that equal, or nearly equal, an image of the test set."""
    max_copies: float = Field(default=0.1, ge=0, le=1, title="Copies")
    """Share of the added images that equal, or nearly equal, an image in use or another added one."""
    max_class_psi: float = Field(default=0.25, ge=0, title="Change of the class balance")
    """Population stability index of the classes of the added images. 0.1 is a small change, 0.25 a large one."""
    max_ks: float = Field(default=0.15, ge=0, le=1, title="Change of a statistic")
    """Kolmogorov–Smirnov distance of brightness, contrast, colour, sharpness, and size and aspect ratio of the files,
    between added images and images in use."""
    max_extreme: float = Field(default=0.08, ge=0, le=1, title="Extreme images")
    """Share of the added images with a brightness, contrast or sharpness that 99 % of the images in use do not
    reach."""
    max_grey: float = Field(default=0.1, ge=0, le=1, title="Grey images")
    """By how much the share of images without colour may be higher than that of the images in use."""
    max_label_errors: float = Field(default=0.1, ge=0, le=1, title="Label errors")
    """Estimated share of wrong labels among the added and relabelled images, beyond that of the images in use."""
    max_drift: float = Field(default=0.65, ge=0.5, le=1, title="Embedding drift")
    """How well a classifier tells added images from images in use by their embeddings: area under the ROC curve. 0.5
    is guessing."""
