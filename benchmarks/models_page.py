"""The page "Models" in Airflow at 200 versions: what a person waits for, and what the API server pays for it.

In a whole stack of its own. Two versions were evaluated, to be compared; the others have the scores of one of them.
"""

import statistics
import threading
import time
import uuid
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple

import requests
import torch
from playwright.sync_api import sync_playwright
from torch import Tensor, nn

from benchmarks.measure import Row
from benchmarks.temporary_stack import whole_stack
from cifar_tasks.data.digits import DigitsSource
from cifar_tasks.data.preparation import prepare
from cifar_tasks.data.versions import DatasetVersion
from cifar_tasks.deployment import stack
from cifar_tasks.deployment.airflow_api import airflow
from cifar_tasks.deployment.stack.supervisord import marked
from cifar_tasks.settings import Settings
from cifar_tasks.storage.promotion_log import Outcome, append, read_log
from cifar_tasks.storage.s3 import S3Store, canonical_json
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.evaluations import StoredEvaluation, ensure_evaluated
from cifar_tasks.tracking.saved_model import DIGEST_TAG, OpenedModel, SavedModel

VERSIONS, EVALUATED = 200, 2
USERS, SECONDS = 20, 60
NAME = "benchmark"
PAGE = f"models-page/page?registered_model={NAME}"
VIEWS = {
    "versions": PAGE,
    "side by side": f"{PAGE}&view=compare&a={VERSIONS}&b={VERSIONS - 1}",
    "history": f"{PAGE}&view=history",
}
AIRFLOW_ITSELF = ["api/v2/dags", "api/v2/plugins", "ui/config"]
"""What the API server needs memory for without the page too."""
MEGABYTE = 2**20


class Linear(nn.Module):
    """Logits of ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        grey = images[..., 0].float().unsqueeze(1) / 255
        return self.head(nn.functional.adaptive_avg_pool2d(grey, 8).flatten(1))


def measure(rounds: int) -> list[Row]:
    with whole_stack() as home:
        register(home)
        page = Page(home)
        page.many_users(AIRFLOW_ITSELF, SECONDS / 4)
        before = memory(home)
        first = {view: page.seconds(query) for view, query in VIEWS.items()}
        warm, processor = page.warm(4 * rounds, home)
        shown = page.seconds_in_browser(rounds)
        answers, errors, slowest = page.many_users(list(VIEWS.values()), SECONDS)
        grown = memory(home) - before
    slow, wait = max(warm.values()), max(each.in_view for each in shown.values())
    return [
        Row("page shown within 1 s", {view: f"{each.in_view:.2f} s" for view, each in shown.items()}, 1 / wait, 1),
        Row("the same with the charts below", {"side by side": f"{shown['side by side'].complete:.2f} s"}),
        Row("server time within 200 ms", _milliseconds(warm), 0.2 / slow, 1),
        Row("CPU time of the API server per answer", _milliseconds(processor)),
        Row("server time of the first view", _milliseconds(first)),
        Row(f"{USERS} users for {SECONDS} s", {"answers": f"{answers}, {errors} errors, nine of ten {slowest:.2f} s"}),
        Row("memory of the API server within 150 MB", {"more": f"{grown:.0f} MB"}, 150 / max(grown, 1), 1),
    ]


def _milliseconds(seconds: dict[str, float]) -> dict[str, str]:
    return {view: f"{1000 * value:.0f} ms" for view, value in seconds.items()}


def register(home: Path) -> None:
    """Versions with the tags of the task `register`, and an entry of the promotion log for each."""
    client, store = runs.mlflow_client(), S3Store(Settings().bucket)
    data = prepare(DigitsSource(), store, 0, print)
    experiment = runs.experiment_id(client, Settings().experiment)
    client.create_registered_model(NAME)
    log, scores = read_log(store, NAME), evaluate(store, data, home, 0)
    for number in range(1, VERSIONS + 1):
        run = client.create_run(experiment, run_name=f"cnn {number}").info.run_id
        tags = {
            "cifar.model": "cnn",
            "cifar.dataset": data.digest,
            "cifar.test_images": "360",
            "cifar.test_accuracy": f"{0.5 + number / 500}",
            "cifar.validation_accuracy": f"{0.5 + number / 500}",
            "cifar.mlflow_url": runs.run_url(run, experiment),
            "cifar.workflow": f"cifar10_training/{number}",
        }
        if number > VERSIONS - EVALUATED:
            found = evaluate(store, data, home, number)
            runs.log_params(client, run, {"seed": number})
            for epoch in range(30):
                metrics = {"train_accuracy": epoch / 30, "validation_accuracy": epoch / 40}
                runs.log_metrics(client, run, metrics, step=epoch)
        else:
            found = copied(store, scores)
        tags |= {DIGEST_TAG: found.model_sha256, "cifar.test_set": found.test_set.digest}
        client.create_model_version(NAME, f"s3://mlflow/{number}", run, tags=tags, await_creation_for=0)
        decided = {"action": "promote", "candidate": number, "champion": number, "previous": number - 1 or None}
        log = append(store, log, Outcome(**decided, challenger=None, reasons=("higher test accuracy",)))
    client.set_registered_model_alias(NAME, "champion", str(VERSIONS))


def evaluate(store: S3Store, data: DatasetVersion, home: Path, seed: int) -> StoredEvaluation:
    torch.manual_seed(seed)
    saved = SavedModel(f"models:/m-{uuid.uuid4().hex}", uuid.uuid4().hex * 2)
    return ensure_evaluated(store, saved, data, home / "cache", opened=OpenedModel(Linear().eval(), 2_000_000))


def copied(store: S3Store, scores: StoredEvaluation) -> StoredEvaluation:
    """The same scores for another model."""
    other = scores.model_copy(update={"model_sha256": uuid.uuid4().hex * 2})
    key = f"evaluations/{other.test_set.digest[:16]}/{other.model_sha256[:16]}/evaluation.json"
    store.put(key, canonical_json(other.model_dump(mode="json")))
    return other


def memory(home: Path) -> float:
    """MB that the processes of the API server do not share with others."""
    return sum(each.memory_full_info().uss for each in marked(home, "airflow-api-server")) / MEGABYTE


def processor_seconds(home: Path) -> float:
    """That the processes of the API server have computed."""
    return sum(sum(each.cpu_times()[:2]) for each in marked(home, "airflow-api-server"))


class Shown(NamedTuple):
    """Seconds."""

    in_view: float
    """All rows, and the charts that are in view without scrolling."""
    complete: float
    """All charts."""


class Page:
    """The page of a stack, for a user who is logged in."""

    def __init__(self, home: Path) -> None:
        self._password, self._url = stack.airflow_password(home), Settings().airflow_url
        with airflow(str(self._url), stack.AIRFLOW_USER, self._password) as client:
            self._login = {"Authorization": f"Bearer {client.configuration.access_token}"}

    def seconds(self, address: str) -> float:
        """Of the server, for one answer."""
        began = time.perf_counter()
        answer = requests.get(f"{self._url}/{address}", headers=self._login, timeout=30)
        answer.raise_for_status()
        return time.perf_counter() - began

    def warm(self, times: int, home: Path) -> tuple[dict[str, float], dict[str, float]]:
        """Seconds of an answer, and of them those that the server computes; medians and means."""
        taken, computed = dict[str, float](), dict[str, float]()
        for view, query in VIEWS.items():
            before = processor_seconds(home)
            taken[view] = statistics.median(self.seconds(query) for _ in range(times))
            computed[view] = (processor_seconds(home) - before) / times
        return taken, computed

    def seconds_in_browser(self, rounds: int) -> dict[str, Shown]:
        """From the first byte of Airflow's own page on; medians."""
        with sync_playwright() as playwright:
            found = next(filter(None, map(which, ("chromium", "chromium-browser", "google-chrome"))), None)
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(str(self._url))
            page.fill("input[name=username]", stack.AIRFLOW_USER)
            page.fill("input[name=password]", self._password)
            page.keyboard.press("Enter")
            page.get_by_role("link", name="Dags", exact=True).wait_for()
            taken = {view: [self._seconds_until_shown(page, view) for _ in range(rounds + 1)] for view in VIEWS}
            browser.close()
            return {
                view: Shown(*map(statistics.median, zip(*seconds[1:], strict=True))) for view, seconds in taken.items()
            }

    def _seconds_until_shown(self, page: Any, view: str) -> Shown:
        page.goto(f"{self._url}/{VIEWS[view].replace('models-page/page', 'plugin/models')}", wait_until="commit")
        seconds = []
        for may_be_missing in ("figure.getBoundingClientRect().top > innerHeight", "false"):
            shown = (
                "const box = document.querySelector('.cifar-models h1');"
                "const figures = [...document.querySelectorAll('.cifar-models figure')];"
                f"return box && figures.every(figure => figure.querySelector('.main-svg') || {may_be_missing})"
            )
            page.wait_for_function(f"() => {{ {shown} }}", polling="raf")
            timing = "performance.now() - performance.getEntriesByType('navigation')[0].responseStart"
            seconds.append(float(page.evaluate(timing)) / 1000)
        return Shown(*seconds)

    def many_users(self, addresses: list[str], duration: float) -> tuple[int, int, float]:
        """Answers, errors, and the time within which nine of ten came."""
        seconds: list[float] = []
        errors: list[Exception] = []
        end = time.monotonic() + duration

        def look() -> None:
            while time.monotonic() < end:
                for address in addresses:
                    try:
                        seconds.append(self.seconds(address))
                    except requests.RequestException as error:
                        errors.append(error)

        users = [threading.Thread(target=look) for _ in range(USERS)]
        for user in users:
            user.start()
        for user in users:
            user.join()
        return len(seconds), len(errors), statistics.quantiles(seconds, n=10)[-1]
