"""The search beside plain random search, at equal compute: images trained on until random's best is matched.

    .venv/bin/python -m benchmarks.search_efficiency --data cifar10-images.zip --state /tmp/search

Can be stopped at any time; the same command continues after the last whole search.
"""

import csv
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import optuna
import typer
from optuna.samplers import RandomSampler
from optuna.trial import Trial, TrialState

from benchmarks.temporary_stack import own_stack
from cifar_tasks.config import Overrides, TrainConfig, with_values
from cifar_tasks.errors import TrainingError
from cifar_tasks.models import get_model
from cifar_tasks.steps.inputs import TrainingImages, initial_model, load_training_images
from cifar_tasks.steps.payloads import RunRequest, WorkflowRun
from cifar_tasks.steps.plan import plan_training
from cifar_tasks.steps.prepare import prepare_data
from cifar_tasks.steps.process import restart_in_step_environment
from cifar_tasks.training.device import choose_device, describe
from cifar_tasks.training.setup import to_split
from cifar_tasks.training.transfer import fit_classifier
from cifar_tasks.tuning.space import free_space, recipe_params, suggest
from cifar_tasks.tuning.study import pruner, sampler
from cifar_tasks.tuning.trial import TrialCallback

SPACE = free_space(get_model("cnn").config("full"))
EPOCHS = 4
"""As in the demo's trials."""


@dataclass(frozen=True)
class Spent:
    """After one trial of one search."""

    search: str
    seed: int
    trial: int
    images: int
    """Trained on since the search began."""
    best: float
    """Validation accuracy, 0–1, of the best whole trial so far."""
    validation_loss: float
    """Of this trial."""


class Trials:
    """Trains the trials of one search, and counts what they cost."""

    def __init__(self, config: TrainConfig, images: TrainingImages) -> None:
        self.config, self.images, self.device = config, images, choose_device()
        self.train, self.validation = (
            to_split(self.device, part.images, part.labels) for part in (images.train, images.validation)
        )

    def run(self, study: optuna.Study) -> tuple[int, float, float]:
        """One trial: images trained on, validation accuracy (0 if it is not complete) and loss."""
        study.optimize(self._accuracy, n_trials=1, catch=TrainingError)
        trial = study.trials[-1]
        epochs = len(trial.intermediate_values) + (trial.state is TrialState.FAIL)
        accuracy = trial.value if trial.state is TrialState.COMPLETE and trial.value else 0.0
        return epochs * len(self.images.train), accuracy, trial.user_attrs.get("validation_loss", math.nan)

    def _accuracy(self, trial: Trial) -> float:
        model, recipe, _ = initial_model(with_values(self.config, suggest(trial, SPACE)), self.images)
        state = fit_classifier(model.to(self.device), recipe, self.train, self.validation, [TrialCallback(trial)])
        return state.best.validation_accuracy


def searches(config: TrainConfig) -> dict[str, Callable[[int], optuna.Study]]:
    """Random without pruning; the product's: its sampler and pruner, and the recipe as the first trial."""

    def ours(seed: int) -> optuna.Study:
        study = optuna.create_study(direction="maximize", sampler=sampler(seed), pruner=pruner())
        study.enqueue_trial(recipe_params(config, SPACE))
        return study

    def random(seed: int) -> optuna.Study:
        plain = optuna.pruners.NopPruner()
        return optuna.create_study(direction="maximize", sampler=RandomSampler(seed=seed), pruner=plain)

    return {"random": random, "ours": ours}


def main(
    state: Annotated[Path, typer.Option(help="Folder that keeps curve.csv.")],
    data: Annotated[str, typer.Option(help="Source of the images, as for `cifar demo --source`.")] = "digits",
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    trials: Annotated[int, typer.Option(min=2, help="Of random search; ours gets as many images.")] = 20,
    images: Annotated[int, typer.Option(min=64, help="To train on in an epoch.")] = 1_500,
    held_out: Annotated[int, typer.Option(min=64, help="To validate with.")] = 500,
) -> None:
    """Print, over the seeds, which share of random search's images ours needs to match its best."""
    print(f"{describe(choose_device())}: {seeds} seeds, {trials} random trials of {EPOCHS} epochs of {images} images")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    state.mkdir(parents=True, exist_ok=True)
    curve = _read(state / "curve.csv")
    with own_stack():
        work = _trials(data, images, held_out)
        for seed in range(seeds):
            goal = None
            for name, make in searches(work.config).items():
                if not any((each.search, each.seed) == (name, seed) for each in curve):
                    curve += _search(name, seed, make(seed), work, trials * EPOCHS * len(work.images.train), goal)
                    _write(curve, state / "curve.csv")
                goal = max(each.best for each in curve if (each.search, each.seed) == (name, seed))
    for line in summary(curve):
        print(line)


def _trials(source: str, images: int, held_out: int) -> Trials:
    overrides = Overrides(epochs=EPOCHS)
    request = RunRequest(
        source=source, models=["cnn"], profile="demo", registered_model="benchmark", overrides=overrides
    )
    (plan,) = plan_training(prepare_data(request, WorkflowRun(id="benchmark/search", name="search")))
    values = {"train_images": images, "validation_images": held_out, "patience": EPOCHS}
    config = with_values(plan.config, values)
    return Trials(config, load_training_images(plan.data.dataset_uri, config))


def _search(name: str, seed: int, study: optuna.Study, work: Trials, budget: int, goal: float | None) -> list[Spent]:
    """Trials until `budget` images are trained on, or until `goal` is matched."""
    spent: list[Spent] = []
    best = images = 0.0
    while images < budget and (goal is None or best < goal):
        cost, accuracy, loss = work.run(study)
        images, best = images + cost, max(best, accuracy)
        spent.append(Spent(name, seed, len(spent), int(images), best, loss))
    print(f"{name}, seed {seed}: {len(spent)} trials, {images:,.0f} images, best {best:.2%}", flush=True)
    return spent


def summary(curve: list[Spent]) -> list[str]:
    """For each search but random: the share of random's images after which it has random's best (wanted: half)."""
    seeds = sorted({each.seed for each in curve})
    lines = []
    for name in dict.fromkeys(each.search for each in curve if each.search != "random"):
        shares = [_share(curve, name, seed) for seed in seeds]
        matched = ", ".join("not reached" if share is None else f"{share:.2f}" for share in shares)
        counted = [2.0 if share is None else share for share in shares]  # not reached counts as twice the budget
        middle, mean = statistics.median(counted), statistics.mean(counted)
        lines.append(f"{name}: {matched} of random's images to match its best; median {middle:.2f}, mean {mean:.2f}")
    losses = [(each.search, each.seed, each.validation_loss) for each in curve]
    lines.append(f"{len(losses)} trials, {len(set(losses))} distinct validation losses within their searches")
    return lines


def _share(curve: list[Spent], name: str, seed: int) -> float | None:
    random = [each for each in curve if (each.search, each.seed) == ("random", seed)]
    own = [each for each in curve if (each.search, each.seed) == (name, seed)]
    reached = next((each.images for each in own if each.best >= random[-1].best), None)
    return None if reached is None else reached / random[-1].images


def _read(path: Path) -> list[Spent]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Spent(
                row["search"],
                *(int(row[name]) for name in ("seed", "trial", "images")),
                *(float(row[name]) for name in ("best", "validation_loss")),
            )
            for row in csv.DictReader(file)
        ]


def _write(curve: list[Spent], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(asdict(curve[0])))
        writer.writeheader()
        writer.writerows(asdict(each) for each in curve)


if __name__ == "__main__":
    restart_in_step_environment()
    typer.run(main)
