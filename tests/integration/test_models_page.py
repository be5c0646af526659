"""The page "Models": rendered from a real registry and real object storage; Airflow's log-in is replaced here."""

import asyncio
import re
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from fastapi import HTTPException
from fastapi.testclient import TestClient
from matplotlib.figure import Figure
from torch import Tensor, nn

from cifar_tasks.data.preparation import prepare
from cifar_tasks.data.versions import DatasetVersion
from cifar_tasks.settings import PROJECT, Settings
from cifar_tasks.storage.promotion_log import Outcome, append, read_log
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.approval_figures import figure_key, keep_figure
from cifar_tasks.tracking.evaluations import ensure_evaluated
from cifar_tasks.tracking.saved_model import DIGEST_TAG, OpenedModel, SavedModel
from tests.conftest import RunningStack
from tests.names import NASTY_NAMES
from tests.unit.data.sources import NoiseSource, quiet

sys.path.append(str(PROJECT / "plugins"))  # as Airflow does

from models_page import pages, pairs, pictures, reading, version_table
from models_page.page_state import View
from models_page.routes import create_app

NASTY = next(name for name in NASTY_NAMES if "onerror" in name)


class Brightness(nn.Module):
    """Logits of two classes from the mean of the red channel; at 0.5 and more it is for the second."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, images: Tensor) -> Tensor:
        brightness = images[..., 0].float().mean(dim=(1, 2)) / 255 - self.threshold
        return torch.stack((-brightness, brightness), dim=1) * 20


@dataclass(frozen=True)
class Registered:
    """A registered model with three versions, of which the second is the champion."""

    name: str
    data: DatasetVersion


@pytest.fixture
def registered(client, tracked: RunningStack, tmp_path: Path) -> Registered:
    store, name = S3Store(Settings().bucket), f"page-{uuid.uuid4().hex[:8]}"
    data = prepare(NoiseSource(), store, 0, quiet)
    client.create_registered_model(name)
    for number, threshold in enumerate((0.4, 0.5, 0.6), start=1):
        saved = SavedModel(f"models:/m-{uuid.uuid4().hex}", uuid.uuid4().hex * 2)
        found = ensure_evaluated(store, saved, data, tmp_path, opened=OpenedModel(Brightness(threshold), 2_000_000))
        tags = {
            DIGEST_TAG: saved.sha256,
            "cifar.model": NASTY if number == 3 else "cnn",
            "cifar.dataset": data.digest,
            "cifar.test_set": found.test_set.digest,
            "cifar.test_images": str(found.test_set.images),
            "cifar.test_accuracy": str(found.accuracy),
            "cifar.validation_accuracy": str(0.9 - number / 100),
            "cifar.workflow": f"cifar10_training/run-{number}",
        }
        client.create_model_version(name, source=f"s3://models/{number}", tags=tags)
    client.set_registered_model_alias(name, "champion", "2")
    return Registered(name, data)


@pytest.fixture
def page(tracked: RunningStack) -> Iterator[TestClient]:
    """The app, for a person who may read the DAG."""
    for cached in (version_table.versions, version_table.registered_models):
        cached.clear()
    reading._away.clear()
    with TestClient(create_app(lambda: None), raise_server_exceptions=True) as client:
        yield client


def read(page: TestClient, **query: object) -> str:
    response = page.get("/page", params=query)
    assert response.status_code == 200
    return response.text


def numbers(html: str) -> list[int]:
    """Version numbers in the order of the rows."""
    return [int(found) for found in re.findall(r'<td class="number"><a data-state[^>]*>(\d+)</a>', html)]


def test_every_route_asks_for_permission():
    def refuse() -> None:
        raise HTTPException(401)

    app = create_app(refuse)
    paths = [route.path for route in app.routes]
    assert {"/page", "/static/{name}", "/pictures/{dataset}/{number}.png", "/figures/{sha256}.png"} == set(paths)
    with TestClient(app) as anonymous:
        for path in paths:
            filled = path.format(name="models.js", dataset="0" * 16, number=1, sha256="0" * 64)
            for address in (filled, f"{filled}?nonsense=1"):
                assert anonymous.get(address).status_code == 401, address


def test_the_versions_stand_in_a_table_with_alias_accuracy_and_interval(page, registered):
    html = read(page, registered_model=registered.name)
    assert numbers(html) == [3, 2, 1]
    assert html.count("cifar-badge champion") == 1
    accuracy = re.search(r"([\d.]+)%\s*<span class=\"cifar-muted\">\(([\d.]+)%–([\d.]+)%\)", html)
    assert accuracy
    shown, low, high = map(float, accuracy.groups())
    assert low < shown < high or shown in (low, high)


def test_a_link_to_another_state_leads_to_the_page_also_in_another_tab(page, registered):
    for view in get_args(View):
        links = re.findall(r'<a data-state href="([^"]*)"', read(page, view=view, registered_model=registered.name))
        assert links
        assert all(link.startswith("plugin/models?") for link in links), view


def test_the_address_sorts_and_filters(page, registered):
    by_validation = {"registered_model": registered.name, "sort": "validation"}
    assert numbers(read(page, **by_validation)) == [1, 2, 3]
    assert numbers(read(page, **by_validation, ascending=True)) == [3, 2, 1]
    assert numbers(read(page, registered_model=registered.name, model="cnn")) == [2, 1]


@pytest.mark.parametrize(
    ("dag", "expected"), [("cifar10_training", [2, 1]), ("cifar10_promotion", [2, 1]), ("cifar10_rollback", [2])]
)
def test_of_a_run_the_page_shows_its_versions_and_the_champion_beside_them(page, registered, dag, expected):
    of_run = {"registered_model": registered.name, "dag_id": dag, "run_id": "run-1"}
    assert numbers(read(page, **of_run)) == expected


def test_a_name_is_text_and_no_markup(page, registered):
    html = read(page, registered_model=registered.name)
    assert NASTY not in html
    assert NASTY in unescape(html)


@pytest.mark.parametrize(
    "tag", ["cifar.mlflow_url", "cifar.workflow_mlflow_url", "cifar.airflow_url", "cifar.line_url"]
)
def test_an_address_of_a_tag_is_a_link_only_if_it_is_one_of_the_web(page, client, registered, tag):
    client.set_model_version_tag(registered.name, "1", tag, "javascript:alert(1)")
    client.set_model_version_tag(registered.name, "2", tag, "https://example.org/it")
    for html in (
        read(page, registered_model=registered.name),
        read(page, registered_model=registered.name, view="compare", a=1, b=2),
    ):
        assert 'href="https://example.org/it"' in html
        assert "javascript:" not in html


def test_side_by_side_names_are_text_and_no_markup(page, registered):
    html = read(page, view="compare", registered_model=registered.name, a=3, b=2)
    assert NASTY not in html
    assert NASTY in unescape(html)


def test_a_disk_on_which_nothing_can_be_written_costs_the_pictures_alone(page, registered, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CIFAR_HOME", str(tmp_path / "file" / "home"))
    pictures._test_images.cache_clear()
    assert page.get(f"/pictures/{registered.data.digest}/0.png").status_code == 404
    html = read(page, view="compare", registered_model=registered.name, a=1, b=2)
    assert "cifar-problem" not in html


def test_two_versions_side_by_side_show_the_verdict_of_the_promotion_and_where_they_differ(page, registered):
    html = read(page, view="compare", registered_model=registered.name, a=1, b=2)
    assert "version 1 (cnn) would not replace version 2 (cnn)" in html
    assert html.count("data-chart=") == 6, "no curves: these versions have no run"
    pictures = re.findall(r'src="models-page(/pictures/[^"]+)"', html)
    assert pictures
    shown = page.get(pictures[0])
    assert shown.headers["content-type"] == "image/png"
    assert "immutable" in shown.headers["cache-control"]


def test_the_images_are_of_all_classes_or_of_the_one_in_the_address(monkeypatch):
    def disagreement(number: int, true: str) -> pairs.Disagreement:
        return pairs.Disagreement(number, true, (true, 0.9), ("other", 0.8), first_is_right=True)

    monkeypatch.setattr(pages, "MAX_PICTURES", 4)
    found = [disagreement(number, true) for number, true in enumerate(["ant"] * 9 + ["bee"] * 3)]
    assert [each.true for each in pages._shown(found, None)] == ["ant", "bee", "ant", "bee"]
    assert [each.image for each in pages._shown(found, "bee")] == [9, 10, 11]


def test_the_verdict_uses_the_limits_of_the_settings(page, registered, monkeypatch):
    monkeypatch.setenv("CIFAR_PROMOTION_LIMITS", '{"confidence": 0.99}')
    html = read(page, view="compare", registered_model=registered.name, a=1, b=2)
    assert "99 % interval" in html
    assert "95 % interval" not in html


def test_without_a_choice_the_newest_version_is_compared_with_the_champion(page, registered):
    html = read(page, view="compare", registered_model=registered.name)
    assert '<option value="3" selected>' in html
    assert '<option value="2" selected>' in html


def test_versions_that_cannot_be_compared_are_named_with_what_to_do(page, registered, client):
    client.create_model_version(registered.name, source="s3://models/4", tags={DIGEST_TAG: "0" * 64})
    html = read(page, view="compare", registered_model=registered.name, a=4, b=2)
    assert f"version 4 of {registered.name} was registered without an evaluation. Start the DAG" in html
    assert "has no version 9" in read(page, view="compare", registered_model=registered.name, a=9, b=2)


def test_the_history_shows_each_decision_with_its_reasons(page, registered):
    store = S3Store(Settings().bucket)
    outcome = Outcome(action="promote", candidate=2, champion=2, previous=1, challenger=None, who=NASTY)
    append(store, read_log(store, registered.name), outcome.model_copy(update={"reasons": ("better by 2 points",)}))
    html = read(page, view="history", registered_model=registered.name)
    assert "better by 2 points" in html
    assert NASTY not in html
    assert NASTY in unescape(html)
    assert 'data-trigger="cifar10_rollback"' in html


def test_the_history_has_a_new_entry_as_soon_as_the_page_reads_again(page, registered, monkeypatch):
    monkeypatch.setattr(reading, "FRESH_SECONDS", 0.0)
    store, outcome = (
        S3Store(Settings().bucket),
        Outcome(action="keep", candidate=2, champion=2, previous=1, challenger=None),
    )
    for number in (1, 2):
        append(store, read_log(store, registered.name), outcome)
        assert read(page, view="history", registered_model=registered.name).count("<li>\n    <div") == number


@pytest.mark.parametrize(
    "path",
    [
        "/page?nonsense=1",
        "/page?view=secrets",
        f"/page?model={'x' * 400}",
        "/page?view=history&registered_model=../../mlflow",
        "/page?view=history&registered_model=..%2f..%2fmlflow%2fartifacts",
        "/page?registered_model=x'%20OR%20name%20LIKE%20'%25",
        "/page?view=compare&a=1%20OR%201",
        "/static/..%2froutes.py",
        "/static/routes.py",
        "/pictures/..%2f..%2fpromotions/1.png",
        "/pictures/0000000000000000/1.png",
        "/pictures/secrets/1.png",
        "/pictures/%2e%2e/1.png",
        "/pictures/s3:%2f%2fmlflow%2fartifacts/1.png",
        f"/figures/{'0' * 64}.png",
        f"/figures/{'A' * 64}.png",
        "/figures/..%2f..%2fpromotions.png",
        f"/figures/{'0' * 64}%0a.png",
        f"/figures/s3:%2f%2fmlflow%2f{'0' * 50}.png",
    ],
)
def test_what_is_not_of_the_page_is_refused(page, path):
    assert page.get(path).status_code in (404, 422)


@pytest.mark.parametrize("query", ["model={}", "registered_model={}", "run_id={}", "a={}", "{}=1"])
def test_a_query_of_10_mb_is_refused_in_one_line_that_repeats_none_of_it(page, query):
    status, text = asyncio.run(answer(page.app, "/page", query.format("9" * 10_000_000)))
    assert status == 422
    assert text.startswith("The address is not valid. ")
    assert len(text) < 400


async def answer(app: Any, path: str, query: str) -> tuple[int, str]:
    """Status and text. The test client refuses such a long address itself."""
    sent: list[dict[str, Any]] = []
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


def test_a_figure_for_the_person_who_is_asked_is_cached_for_good_and_refused_when_it_was_altered(page, tracked):
    store = S3Store(Settings().bucket)
    figure = Figure(figsize=(3, 2))
    figure.text(0, 0, uuid.uuid4().hex)
    address = keep_figure(store, figure, "a name").rpartition("(models-page")[2].rstrip(")")
    shown = page.get(address)
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/png")
    assert shown.content.startswith(b"\x89PNG")
    assert "immutable" in shown.headers["cache-control"]
    assert "private" in shown.headers["cache-control"]
    store.put(figure_key(Path(address).stem), b"<script>")
    assert page.get(address).status_code == 404


def test_a_picture_that_is_not_in_the_test_set_is_not_found(page, registered):
    for number in (-1, 10**6):
        assert page.get(f"/pictures/{registered.data.digest}/{number}.png").status_code == 404


def test_answers_hold_no_secret_and_run_no_script_from_elsewhere(page, registered, tracked):
    environment = {name: value for name, value in tracked.environment.items() if len(value) > 5}
    secrets = [value for name, value in environment.items() if re.search("SECRET|PASSWORD|KEY|CONN|STORE_URI", name)]
    secrets.append(str(tracked.home))
    assert len(secrets) > 5
    unknown = {"registered_model": f"unknown {uuid.uuid4()}"}
    queries = [
        {"view": view, **of} for view in get_args(View) for of in ({"registered_model": registered.name}, unknown)
    ]
    for query in queries:
        response = page.get("/page", params=query)
        assert not [secret for secret in secrets if secret in response.text]
        assert "script-src 'self'" in response.headers["content-security-policy"]
        assert not re.search(r"<script|<[^>]*\son\w+=|https?://(?!127\.0\.0\.1)", response.text)


def test_an_address_with_a_log_in_is_not_shown_when_its_server_is_away(page, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:hunter2@127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://somebody:hunter2@127.0.0.1:9")
    for view in get_args(View):
        html = read(page, view=view, registered_model=f"never-read-{uuid.uuid4().hex}")
        assert "cifar-problem" in html
        assert "hunter2" not in html


def test_a_link_to_mlflow_holds_no_log_in(page, registered, tracked, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked.mlflow_url.replace("//", "//somebody:hunter2@"))
    html = read(page, registered_model=registered.name)
    assert numbers(html) == [3, 2, 1]
    assert f'"{tracked.mlflow_url}/#/models/{registered.name}/versions/3?' in html
    assert "hunter2" not in html


def test_a_host_whose_name_is_gone_is_named_within_3_seconds(page, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    began = time.monotonic()
    assert "no host has the name in MLFLOW_TRACKING_URI" in read(page, registered_model=f"gone-{uuid.uuid4().hex}")
    assert time.monotonic() - began < 3


def unknown(*arguments: Any, **options: Any) -> None:
    """As for the name of a container that was stopped."""
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Address of a server that takes requests and does not answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


S3, MLFLOW = "AWS_ENDPOINT_URL_S3", "MLFLOW_TRACKING_URI"


@pytest.mark.parametrize(("servers", "views_that_say_so"), [([S3], 2), ([MLFLOW], 3), ([S3, MLFLOW], 3)])
def test_a_server_that_does_not_answer_is_named_within_3_seconds_beside_what_was_read(
    page, registered, tracked, monkeypatch, silent_server, servers, views_that_say_so
):
    store, name = S3Store(Settings().bucket), registered.name
    outcome = Outcome(action="promote", candidate=2, champion=2, previous=1, challenger=None, reasons=("it is better",))
    append(store, read_log(store, name), outcome)
    views = {"versions": {}, "compare": {"a": 1, "b": 2}, "history": {}}
    read_before = {view: read(page, view=view, registered_model=name, **query) for view, query in views.items()}
    monkeypatch.setattr(reading, "FRESH_SECONDS", 0.0)
    for server in servers:
        monkeypatch.setenv(server, silent_server)
    said = 0
    for view, query in views.items():
        reading._away.clear()
        began = time.monotonic()
        html = read(page, view=view, registered_model=name, **query)
        assert time.monotonic() - began < 3, view
        said += "Shown is what was read at" in html
        assert content(html).replace(silent_server, tracked.mlflow_url) == content(read_before[view]), view
    assert said == views_that_say_so  # the table of versions comes from MLflow alone


def content(html: str) -> str:
    """What stands below the problems."""
    return html[html.index("<h1") :].replace("\n", "")


def test_while_s3_does_not_answer_many_readers_wait_once(page, registered, monkeypatch, silent_server):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", silent_server)
    began = time.monotonic()
    with ThreadPoolExecutor(10) as readers:
        query = {"view": "history", "registered_model": registered.name}
        pages = list(readers.map(lambda _: read(page, **query), range(10)))
    assert time.monotonic() - began < 3
    assert all("cifar-problem" in html for html in pages)


def test_with_mlflow_away_the_page_shows_what_it_had_and_says_so(page, registered, monkeypatch):
    query = {"registered_model": registered.name}
    read(page, **query)
    monkeypatch.setattr(reading, "FRESH_SECONDS", 0.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    html = read(page, **query)
    assert numbers(html) == [3, 2, 1]
    assert "Shown is what was read at" in html


def test_with_mlflow_away_from_the_start_the_page_says_what_is_wrong(page, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    html = read(page, registered_model=f"never-read-{uuid.uuid4().hex}")
    assert "127.0.0.1:9" in html
    assert numbers(html) == []


def test_the_library_of_the_charts_comes_from_its_wheel(page):
    response = page.get("/static/plotly.min.js")
    assert response.status_code == 200
    assert response.content == pages.plotly_bundle().read_bytes()
