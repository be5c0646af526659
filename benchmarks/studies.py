"""What the shared study costs a trial: the real PostgreSQL, four workers at once, everything but the training."""

import threading
import time
import uuid

from benchmarks.measure import Row
from benchmarks.services import own_stack
from cifar_tasks.search import SPACES, Budget, SharedStudy, Trained

WORKERS = 4
TRIALS = 40
REPORTS = 3
"""Epochs of a trial in the demo, each of which is reported and may prune."""
TRIAL_SECONDS = 20.0
"""Of the demo's trials on a CPU core: 1,500 images, three epochs, 240 images/s."""


def measure(rounds: int) -> list[Row]:
    seconds: list[float] = []

    def work(name: str, number: int) -> None:
        study = SharedStudy(name, seed=number)
        while True:
            began = time.perf_counter()
            trial = study.claim(f"w{number}", SPACES["cnn"](), Budget(TRIALS))
            if trial is None:
                return
            with study.keeping(trial):
                for epoch in range(1, REPORTS + 1):
                    trial.report(0.5 + trial.number / 1000, epoch)
                    trial.should_prune()
                study.complete(trial, Trained(0.5, trial.number, str(trial.number)))
            seconds.append(time.perf_counter() - began)

    with own_stack():
        for _ in range(rounds):
            name = f"benchmark-{uuid.uuid4().hex}"
            SharedStudy(name, create=True)
            threads = [threading.Thread(target=work, args=(name, number)) for number in range(WORKERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    each = sorted(seconds)[len(seconds) // 2]
    figures = {
        f"a trial, {WORKERS} workers": f"{1000 * each:.0f} ms",
        f"of a trial of {TRIAL_SECONDS:.0f} s": f"{each / TRIAL_SECONDS:.2%}",
    }
    return [Row("database of studies", figures, TRIAL_SECONDS / each, 100)]
