"""Weights & Biases beside MLflow, for those who use it. Its own variables decide: `WANDB_API_KEY`, `WANDB_MODE`,
`WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_BASE_URL`.

MLflow stays the record: whatever happens here is a warning at most, and the training goes on.
"""

import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cifar_tasks.errors import ConfigError
from cifar_tasks.settings import Settings
from cifar_tasks.tracking.tracker import Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from wandb import Run

START_SECONDS = 15.0
"""How long a server may take to answer before the run is kept offline."""
FINISH_SECONDS = 5.0
"""How long the end waits for uploads. Less than a step has to clean up when it is told to stop (`GRACE_SECONDS`)."""

_log = logging.getLogger(__name__)


def wanted() -> bool:
    """Whether there is a key, or runs are to be kept offline; `WANDB_MODE=disabled` turns it off."""
    mode = os.environ.get("WANDB_MODE")
    return mode == "offline" or (mode != "disabled" and bool(os.environ.get("WANDB_API_KEY")))


@contextmanager
def wandb_run(
    settings: Settings, run_id: str, name: str, group: str | None = None, tags: Sequence[str] = ()
) -> Iterator[Tracker]:
    """The run `run_id` (the MLflow run's id, so that a resumed training goes on in it), in the project named like the
    MLflow experiment; its files lie in `wandb/` of the settings' home.

    Kept offline when the server cannot be reached. `ConfigError` if it cannot be kept at all.
    """
    _require_wandb(settings.home)
    with _service():
        run = _open_run(
            settings.home,
            project=os.environ.get("WANDB_PROJECT") or settings.experiment,
            id=run_id,
            name=name,
            group=group,
            tags=tags,
            resume="allow",
        )
        exit_code = 1
        try:
            yield _WandbTracker(run)
            exit_code = 0
        finally:
            with _only_warned(f"what is not uploaded can be: wandb sync {_folder(run)}"):
                run.finish(exit_code)


class _WandbTracker:
    """The epoch is a value of its own, on which charts are drawn: W&B's steps only count up."""

    def __init__(self, run: "Run") -> None:
        self._run = run
        with _only_warned():
            run.define_metric("*", step_metric="epoch")

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        with _only_warned():
            # Allowed to change: a training can be resumed on another device.
            self._run.config.update(dict(parameters), allow_val_change=True)  # type: ignore[no-untyped-call]

    def log_epoch(self, epoch: int, metrics: Mapping[str, float], label: str = "") -> None:
        counter = f"{label}epoch"
        with _only_warned():
            if label:
                self._run.define_metric(f"{label}*", step_metric=counter)
            # The summary holds the newest epoch, that of an earlier try too.
            if epoch > (self._run.summary.get(counter) or 0):  # type: ignore[no-untyped-call]
                self._run.log({counter: epoch} | {f"{label}{name}": value for name, value in metrics.items()})

    def log_figure(self, figure: "Figure", name: str) -> None:
        from PIL import Image
        from wandb import Image as Picture

        with _only_warned():
            drawn = io.BytesIO()
            figure.savefig(drawn)  # W&B's own way needs pyplot, and patches it
            self._run.log({name.removesuffix(".png"): Picture(Image.open(drawn))})

    def log_ending(self, reason: str, best_epoch: int) -> None:
        with _only_warned():
            self._run.summary["ended_because"] = reason
            self._run.summary["best_epoch"] = best_epoch


def _require_wandb(home: Path) -> None:
    # Crash reports to the maker could hold what a traceback shows; logs belong to those of the run. Read at import.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_CACHE_DIR", str(home / "wandb" / "cache"))
    try:
        import wandb  # noqa: F401
    except ImportError:
        raise ConfigError(
            "Weights & Biases is set up (WANDB_API_KEY or WANDB_MODE), but its package is not installed: "
            "pip install 'cifar-pipeline[wandb]', or set WANDB_MODE=disabled."
        ) from None


@contextmanager
def _service() -> Iterator[None]:
    """W&B's service process, which the first run starts, is gone afterwards."""
    import wandb

    try:
        yield
    finally:
        with _only_warned():
            wandb.teardown()


def _open_run(home: Path, **identity: Any) -> "Run":
    import wandb

    try:
        try:
            run = _init(home, identity)
        except wandb.errors.CommError as error:  # not reached, or the key refused
            _log.warning("Weights & Biases: %s; the run is kept offline", error)
            wandb.teardown()  # the service holds on to the id of the run that it could not open
            run = _init(home, identity, mode="offline")
    except wandb.Error as error:
        raise ConfigError(f"Weights & Biases: {error} (WANDB_MODE=disabled trains without it)") from error
    _log.info("Weights & Biases: %s", f"wandb sync {_folder(run)}" if run.offline else run.url)
    return run


def _init(home: Path, identity: Mapping[str, Any], mode: Literal["offline"] | None = None) -> "Run":
    import wandb

    # For the whole process, not for the run: logging in speaks, too.
    wandb.setup(
        wandb.Settings(
            root_dir=str(home),
            use_dot_wandb=False,
            symlink=False,  # `latest-run` would be fought over by trainings side by side
            silent=True,
            console="off",
            save_code=False,
            disable_git=True,  # a remote's URL can hold a token
            init_timeout=START_SECONDS,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=True,
        )
    )
    return wandb.init(**identity, mode=mode)


def _folder(run: "Run") -> Path:
    return Path(run.dir).parent


@contextmanager
def _only_warned(hint: str = "the training goes on") -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:  # `teardown` exits when the service process has failed
        _log.warning("Weights & Biases: %s; %s", str(error) or type(error).__name__, hint)
