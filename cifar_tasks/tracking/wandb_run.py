"""Weights & Biases beside MLflow, for those who use it. Its own variables decide: `WANDB_API_KEY`, `WANDB_MODE`,
`WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_BASE_URL`.

MLflow stays the record: an error here is a warning, and the training continues.
"""

import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cifar_tasks.errors import ConfigError
from cifar_tasks.evaluation import plots
from cifar_tasks.settings import Settings
from cifar_tasks.training.callbacks import Callback, Snapshot
from cifar_tasks.training.state import EpochMetrics, TrainingState

if TYPE_CHECKING:
    from wandb import Run

START_SECONDS = 15.0
"""How long a server may take to answer before the run is kept offline."""
FINISH_SECONDS = 5.0
"""How long the end waits for uploads. Less than a step has to clean up after SIGTERM (`GRACE_SECONDS`)."""

_log = logging.getLogger(__name__)


def wanted() -> bool:
    """Whether there is a key, or runs are to be kept offline; `WANDB_MODE=disabled` turns it off."""
    mode = os.environ.get("WANDB_MODE")
    return mode == "offline" or (mode != "disabled" and bool(os.environ.get("WANDB_API_KEY")))


class WandbCallback(Callback):
    """Logs to the run with the id of the MLflow run, so that a resumed training continues it.

    The project is named like the MLflow experiment; files lie in `wandb/` of the settings' home. The run is kept
    offline when the server cannot be reached; `ConfigError` if it cannot be kept at all.
    """

    def __init__(self, settings: Settings, run_id: str, params: Mapping[str, Any]) -> None:
        self._settings, self._run_id, self._params = settings, run_id, params
        self._run: Run

    def on_train_start(self, state: TrainingState) -> None:
        if not state.label:
            _require_wandb(self._settings.home)
            project = os.environ.get("WANDB_PROJECT") or self._settings.experiment
            self._run = _open_run(
                self._settings.home, project=project, id=self._run_id, name=state.config.model, resume="allow"
            )
        with _only_warned():
            # Charts are drawn over the epoch, a value of its own: W&B's steps only count up.
            self._run.define_metric(f"{state.label}*", step_metric=f"{state.label}epoch")
            if not state.label:
                # Allowed to change: a training can be resumed on another device.
                self._run.config.update(dict(self._params), allow_val_change=True)  # type: ignore[no-untyped-call]
        for metrics in state.history:
            self._log_epoch(state.label, metrics)

    def on_epoch_end(self, snapshot: Snapshot) -> None:
        self._log_epoch(snapshot.label, snapshot.history[-1])

    def on_train_end(self, state: TrainingState, error: BaseException | None) -> None:
        if state.label:
            return
        if error is None:
            with _only_warned():
                self._log_ending(state)
        with _only_warned(f"what is not uploaded can be: wandb sync {_folder(self._run)}"):
            self._run.finish(0 if error is None else 1)
        _stop_service()

    def _log_epoch(self, label: str, metrics: EpochMetrics) -> None:
        counter = f"{label}epoch"
        with _only_warned():
            # The summary holds the newest epoch, that of an earlier try too.
            if metrics.epoch > (self._run.summary.get(counter) or 0):  # type: ignore[no-untyped-call]
                self._run.log({counter: metrics.epoch, **metrics.by_name(label)})

    def _log_ending(self, state: TrainingState) -> None:
        from PIL import Image
        from wandb import Image as Picture

        drawn = io.BytesIO()
        plots.learning_curves(state).savefig(drawn)  # W&B's own way needs pyplot, and patches it
        self._run.log({"learning_curves": Picture(Image.open(drawn))})
        self._run.summary["ended_because"] = state.ending
        self._run.summary["best_epoch"] = state.best.epoch


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


def _stop_service() -> None:
    """End W&B's service process, which the first run starts."""
    import wandb

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
    except BaseException as error:
        _stop_service()
        if isinstance(error, wandb.Error):
            raise ConfigError(f"Weights & Biases: {error} (WANDB_MODE=disabled trains without it)") from error
        raise
    _log.info("Weights & Biases: %s", f"wandb sync {_folder(run)}" if run.offline else run.url)
    return run


def _init(home: Path, identity: Mapping[str, Any], mode: Literal["offline"] | None = None) -> "Run":
    import wandb

    # For the whole process, not for the run: logging in prints as well.
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
def _only_warned(hint: str = "the training continues") -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:  # `teardown` exits when the service process has failed
        _log.warning("Weights & Biases: %s; %s", str(error) or type(error).__name__, hint)
