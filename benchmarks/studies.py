"""What sharing a study costs, and what it gives: the real PostgreSQL, real workers in processes of their own."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from optuna import Study
from optuna.trial import FrozenTrial, Trial

from benchmarks.measure import Row, interleaved
from benchmarks.temporary_stack import own_stack
from cifar_tasks.config import Overrides
from cifar_tasks.models import get_model
from cifar_tasks.steps.create_studies import create_studies
from cifar_tasks.steps.payloads import RunRequest, WorkflowRun
from cifar_tasks.steps.plan import plan_training
from cifar_tasks.steps.prepare import prepare_data
from cifar_tasks.steps.process import run_step
from cifar_tasks.tuning.space import free_space, suggest
from cifar_tasks.tuning.study import create_study, load_study, optimize

WORKERS = 4
TRIALS = 40
REPORTS = 4
"""Epochs of a trial in the demo, each of which is reported and may prune."""
TRAINING_SECONDS = 0.5
"""That an epoch sleeps instead of training."""
TRIAL_SECONDS = 25.0
"""Of the demo's trials on a CPU core: 1,500 images, four epochs, 240 images/s."""
TRAINED = 6
"""Real trials, of one epoch each: none can be pruned, all take as long."""
RUN_TRIALS = "cifar_tasks.steps.run_trials:run_trials"


def measure(rounds: int) -> list[Row]:
    with own_stack():
        return [overhead(), speedup(rounds)]


def overhead() -> Row:
    """Everything of a trial but its training, with four workers at once."""
    seconds: list[float] = []
    name, space = f"benchmark-{uuid.uuid4().hex}", free_space(get_model("cnn").config("demo"))
    create_study(name)

    def objective(trial: Trial) -> float:
        suggest(trial, space)
        for epoch in range(1, REPORTS + 1):
            time.sleep(TRAINING_SECONDS)
            trial.report(0.5 + trial.number / 1000, epoch)
            trial.should_prune()
        for result in ("validation_loss", "weights_sha256"):
            trial.set_user_attr(result, trial.number)
        return 0.5

    def work(number: int) -> None:
        ended = [time.perf_counter()]

        def note(study: Study, trial: FrozenTrial) -> None:
            ended.append(time.perf_counter())
            seconds.append(ended[-1] - ended[-2] - REPORTS * TRAINING_SECONDS)

        optimize(load_study(name, number), objective, TRIALS, callbacks=[note])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    each = sorted(seconds)[len(seconds) // 2]
    figures = {
        f"one trial, {WORKERS} workers": f"{1000 * each:.0f} ms",
        f"of a trial of {TRIAL_SECONDS:.0f} s": f"{each / TRIAL_SECONDS:.2%}",
    }
    return Row("database of studies", figures, TRIAL_SECONDS / each, 100)


def speedup(rounds: int) -> Row:
    """Trials per minute, from the first trial's start to the last one's end: processes start beside each other."""
    request = RunRequest(
        source="digits", models=["cnn"], profile="demo", registered_model="benchmark", tune=["cnn"], trials=TRAINED
    )
    data = prepare_data(request, WorkflowRun(id="benchmark/search", name="search"))
    seed = iter(range(1000))

    def trials_per_minute(workers: int) -> float:
        overrides = Overrides(epochs=1, batch_size=128, seed=next(seed))
        form = request.model_copy(update={"search_workers": workers, "overrides": overrides})
        tasks = create_studies(plan_training(data.model_copy(update={"request": form})))
        with ThreadPoolExecutor(workers) as pool:
            running = [
                pool.submit(run_step, RUN_TRIALS, on_line=lambda _: None, worker=task.model_dump(mode="json"))
                for task in tasks
            ]
            for each in running:
                each.result()
        trials = load_study(tasks[0].study).trials
        began = min(trial.datetime_start for trial in trials if trial.datetime_start)
        ended = max(trial.datetime_complete for trial in trials if trial.datetime_complete)
        return 60 * len(trials) / (ended - began).total_seconds()

    figures = interleaved(
        {"two": lambda: trials_per_minute(2), "one": lambda: trials_per_minute(1)}, min(rounds, 3), "search workers"
    )
    measured = {"two workers": f"{figures['two']:.1f} trials/min", "one worker": f"{figures['one']:.1f} trials/min"}
    return Row("workers of a search, one thread each", measured, figures.ratio("two", "one"), 1.6)
