"""`.venv/bin/python -m benchmarks`: everything in a few minutes, as one table."""

import importlib
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cifar_tasks.steps.process import restart_in_step_environment

if TYPE_CHECKING:
    from benchmarks.measure import Row


class Benchmark(StrEnum):
    TRAINING_SPEED = "training_speed"
    AUGMENTATION = "augmentation"
    RECORDING = "recording"
    INFERENCE = "inference"
    EVALUATION_COST = "evaluation_cost"
    HEAD_FEATURES = "head_features"
    PRETRAINED_SPEED = "pretrained_speed"
    DEPTHWISE = "depthwise"
    STUDIES = "studies"
    SIMULATED_PROMOTIONS = "simulated_promotions"
    MODELS_PAGE = "models_page"
    LINE_INCREMENT = "line_increment"
    ORCHESTRATION = "orchestration"
    GPU = "gpu"


_notes = Console(stderr=True)


def main(
    benchmarks: Annotated[
        list[Benchmark] | None,
        typer.Argument(metavar="[BENCHMARK]...", help=f"Of {', '.join(Benchmark)}; all, if none is named."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Of each comparison, after one to warm up.")] = 5,
) -> None:
    """Measure what the product promises about speed, each beside what it is compared with.

    Figures are medians of interleaved rounds, ratios medians of the rounds' own ratios. Nothing fails when a ratio is
    missed. gpu needs CUDA. Four that take longer are commands of their own: .venv/bin/python -m
    benchmarks.report_recipe (hours), benchmarks.search_efficiency and benchmarks.seed_trainings (half an hour each),
    benchmarks.delivery_checks (ten minutes).
    """
    restart_in_step_environment()
    import torch

    chosen = benchmarks or [each for each in Benchmark if each is not Benchmark.GPU or torch.cuda.is_available()]
    table = Table("what", "measured", "ratio", "wanted", title=_hardware())
    try:
        for benchmark in chosen:
            for row in _run(benchmark, rounds):
                table.add_row(*_cells(row))
    except KeyboardInterrupt:
        _notes.print("interrupted; measured so far:")
    Console().print(table)


def _hardware() -> str:
    import torch

    from cifar_tasks.training.device import describe

    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return "; ".join([*(describe(torch.device(device)) for device in devices), f"torch {torch.__version__}"])


def _run(benchmark: Benchmark, rounds: int) -> "list[Row]":
    """A benchmark that cannot run here becomes a row with the reason."""
    from benchmarks.measure import Row

    began = time.perf_counter()
    try:
        rows: list[Row] = importlib.import_module(f"benchmarks.{benchmark}").measure(rounds)
    except Exception as error:
        return [Row(benchmark, {"not measured": f"{type(error).__name__}: {error}"})]
    _notes.print(f"{benchmark}: {time.perf_counter() - began:.0f} s")
    return rows


def _cells(row: "Row") -> tuple[str, str, str, str]:
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
    wanted = "" if row.wanted is None else f"≥ {row.wanted:g}"
    return row.what, "\n".join(f"{name}: {figure}" for name, figure in row.figures.items()), ratio, wanted


if __name__ == "__main__":
    typer.run(main)
