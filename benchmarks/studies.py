"""What sharing a study costs, and what it gives: the real PostgreSQL, real workers in processes of their own."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from benchmarks.measure import Row, interleaved
from benchmarks.own_stack import own_stack
from cifar_tasks.steps.prepare import plan_training, prepare_data
from cifar_tasks.steps.process import run_step
from cifar_tasks.steps.tune import open_studies
from cifar_tasks.tuning import SPACES, Budget, SharedStudy, Trained

WORKERS = 4
TRIALS = 40
REPORTS = 4
"""Epochs of a trial in the demo, each of which is reported and may prune."""
TRAINING_SECONDS = 0.5
"""That an epoch sleeps instead of training, so that workers seldom meet at the study's lock, as in earnest."""
TRIAL_SECONDS = 25.0
"""Of the demo's trials on a CPU core: 1,500 images, four epochs, 240 images/s."""
TRAINED = 6
"""Real trials, of one epoch each: none can be pruned, all take as long."""
WORKER = "cifar_tasks.steps.search:train_trials"


def measure(rounds: int) -> list[Row]:
    with own_stack():
        return [overhead(), speedup(rounds)]


def overhead() -> Row:
    """Everything of a trial but its training, with four workers at once."""
    seconds: list[float] = []
    name = f"benchmark-{uuid.uuid4().hex}"
    SharedStudy(name, create=True)

    def work(number: int) -> None:
        study = SharedStudy(name, seed=number)
        while True:
            began = time.perf_counter()
            trial = study.claim(f"w{number}", SPACES["cnn"](), Budget(TRIALS))
            if trial is None:
                return
            with study.keeping(trial):
                for epoch in range(1, REPORTS + 1):
                    time.sleep(TRAINING_SECONDS)
                    trial.report(0.5 + trial.number / 1000, epoch)
                    trial.should_prune()
                study.complete(trial, Trained(0.5, trial.number, str(trial.number)))
            seconds.append(time.perf_counter() - began - REPORTS * TRAINING_SECONDS)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    each = sorted(seconds)[len(seconds) // 2]
    figures = {
        f"a trial, {WORKERS} workers": f"{1000 * each:.0f} ms",
        f"of a trial of {TRIAL_SECONDS:.0f} s": f"{each / TRIAL_SECONDS:.2%}",
    }
    return Row("database of studies", figures, TRIAL_SECONDS / each, 100)


def speedup(rounds: int) -> Row:
    """Trials a minute, from the first trial's start to the last one's end: processes start beside each other."""
    workflow = {"id": "benchmark/search", "name": "search"}
    data = prepare_data("digits", 0, workflow)
    seed = iter(range(1000))

    def trials_a_minute(workers: int) -> float:
        lanes = plan_training(data, "cnn", "demo", {"epochs": 1, "batch_size": 128, "seed": next(seed)})
        form = {"tune": "cnn", "profile": "demo", "trials": TRAINED, "search_minutes": None, "search_workers": workers}
        work = open_studies(lanes, data, form)
        with ThreadPoolExecutor(workers) as pool:
            done = [pool.submit(run_step, WORKER, on_line=lambda _: None, work=each, data=data) for each in work]
            for each in done:
                each.result()
        trials = SharedStudy(work[0]["study"]).trials
        began = min(trial.datetime_start for trial in trials if trial.datetime_start)
        ended = max(trial.datetime_complete for trial in trials if trial.datetime_complete)
        return 60 * len(trials) / (ended - began).total_seconds()

    figures = interleaved(
        {"two": lambda: trials_a_minute(2), "one": lambda: trials_a_minute(1)}, min(rounds, 3), "search workers"
    )
    measured = {"two workers": f"{figures['two']:.1f} trials/min", "one worker": f"{figures['one']:.1f} trials/min"}
    return Row("workers of a search, a thread each", measured, figures.ratio("two", "one"), 1.6)
