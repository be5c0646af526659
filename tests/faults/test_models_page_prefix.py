"""The page "Models" of an Airflow below a path, behind a reverse proxy that passes nothing but that path."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from matplotlib.figure import Figure
from playwright.sync_api import expect, sync_playwright

from benchmarks.temporary_stack import free_port
from cifar_tasks.settings import PROJECT, Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.approval_figures import keep_figure
from tests.browser.conftest import CHROMIUM, FLAGS, needs_chromium
from tests.conftest import RunningStack
from tests.integration.conftest import registered  # noqa: F401 – a fixture
from tests.waiting import wait_until

pytestmark = needs_chromium
PREFIX, PASSWORD = "/airflow/", "password"


@pytest.fixture
def proxy() -> Iterator[ThreadingHTTPServer]:
    """Passes requests below the path to the port in `upstream`; every other one is not found."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.startswith(PREFIX):
                self.forward()
            else:
                outside.append(self.path)
                self.send_error(404)

        do_POST = do_PATCH = do_GET  # noqa: N815

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = HTTPConnection("127.0.0.1", server.upstream, timeout=60)
            host = self.headers["Host"]
            forwarded = {"X-Forwarded-Host": host, "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}
            upstream.request(self.command, self.path, body, {**dict(self.headers), **forwarded})
            answer = upstream.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            return

    outside: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.upstream, server.outside = free_port(), outside
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def airflow_url(proxy: ThreadingHTTPServer, tracked: RunningStack, tmp_path: Path) -> Iterator[str]:
    """Address of an Airflow behind the proxy: its API server alone, with the DAGs."""
    url = f"http://127.0.0.1:{proxy.server_port}{PREFIX}"
    (tmp_path / "passwords.json").write_text(json.dumps({"admin": PASSWORD}))
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    own |= {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(tmp_path / "passwords.json"),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(proxy.upstream),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": "secret" * 12,
        "CIFAR_AIRFLOW_URL": url,
    }
    airflow = [sys.executable, "-m", "airflow"]
    log = (tmp_path / "airflow.log").open("w")
    for command in (["db", "migrate"], ["dags", "reserialize"]):
        subprocess.run([*airflow, *command], env=own, stdout=log, stderr=log, check=True, timeout=240)
    server = subprocess.Popen([*airflow, "api-server", "--proxy-headers"], env=own, stdout=log, stderr=log)
    try:
        wait_until(lambda: server.poll() is not None or is_up(url), 240)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


def is_up(url: str) -> bool:
    try:
        return requests.get(f"{url}api/v2/monitor/health", timeout=5).ok
    except requests.RequestException:
        return False


def test_page_charts_pictures_forms_and_links_work_below_the_path(airflow_url, proxy, registered, tmp_path):  # noqa: F811
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        page.goto(airflow_url)
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", PASSWORD)
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Models", exact=True).click()
        page.goto(f"{airflow_url}plugin/models?registered_model={registered.name}")
        expect(page.locator(".cifar-badge.champion")).to_be_visible()
        assert page.locator(".cifar-models").evaluate("box => getComputedStyle(box).overflow") == "auto", "styled"
        for link in page.locator("a[data-state]").all():
            assert link.evaluate("link => link.href").startswith(f"{airflow_url}plugin/models"), "may be sent"
        with page.context.expect_page() as opened:
            page.get_by_role("link", name="1", exact=True).click(modifiers=["ControlOrMeta"])
        compared = opened.value
        expect(compared.get_by_role("heading", name=re.compile("would not replace version 2"))).to_be_visible()
        expect(compared.locator(".cifar-charts .main-svg").first).to_be_visible()
        picture = compared.locator(".cifar-pictures img").first
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 32
        figure = Figure(figsize=(3, 2))
        address = keep_figure(S3Store(Settings().bucket), figure, "x").rpartition("](")[2].rstrip(")")
        show = (
            "address => { const image = new Image(); image.src = address; return image.decode().then(() => image.src) }"
        )
        assert compared.evaluate(show, address) == f"{airflow_url}{address}", "as in the Markdown of an approval"
        form = compared.get_by_role("form", name="Promote version 1")
        form.get_by_label("Mode").select_option("never")
        form.get_by_role("button").click()
        compared.wait_for_url(f"{airflow_url}dags/cifar10_promotion/runs/**")
        browser.close()
    assert [path for path in proxy.outside if path != "/favicon.ico"] == []
