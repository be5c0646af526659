"""What the page "Models" refuses, and what it never shows: markup in names, secrets, files of others."""

import asyncio
import re
import uuid
from html import unescape
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from matplotlib.figure import Figure
from models_page.page_state import View
from models_page.routes import create_app

from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.approval_figures import figure_key, keep_figure
from tests.models_page_app import NASTY, numbers, read


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


def test_a_name_is_text_and_no_markup(page, registered):
    html = read(page, registered_model=registered.name)
    assert NASTY not in html
    assert NASTY in unescape(html)


@pytest.mark.parametrize("tag", ["cifar.mlflow_url", "cifar.report_url", "cifar.airflow_url", "cifar.line_url"])
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


@pytest.mark.parametrize(
    "path",
    [
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


@pytest.mark.parametrize("query", ["model={}", "registered_model={}", "run_id={}", "a={}"])
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
        policy = dict(part.split(maxsplit=1) for part in response.headers["content-security-policy"].split("; "))
        assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
        assert not re.search(r"<script|<[^>]*\son\w+=|https?://(?!127\.0\.0\.1)", response.text)


def test_an_unknown_registered_model_has_no_versions_and_mlflow_does_not_count_as_away(page, registered):
    html = read(page, registered_model=f"unknown-{uuid.uuid4().hex}")
    assert "There is no version yet. Start the DAG cifar10_training." in html
    assert "cifar-problem" not in html
    assert f"<option>{registered.name}" in unescape(html), "the choice of another model"
    assert numbers(read(page, registered_model=registered.name)) == [3, 2, 1]


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
