"""A browser that is logged in to Airflow, for all pages."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from cifar_tasks.deployment import stack as embedded
from tests.conftest import RunningStack

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# The last four keep it from talking to anybody but the pages under test.
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)


@pytest.fixture(scope="module")
def page(stack: RunningStack) -> Iterator[Page]:
    """A page that is logged in to Airflow."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(30_000)
        expect.set_options(timeout=30_000)
        page.goto(stack.airflow_url)
        page.fill("input[name=username]", embedded.AIRFLOW_USER)
        page.fill("input[name=password]", embedded.airflow_password(stack.home))
        page.keyboard.press("Enter")
        expect(page.get_by_role("link", name="Dags", exact=True)).to_be_visible()
        yield page
        browser.close()


@pytest.fixture
def keep(page: Page) -> Callable[[str], None]:
    """Keep a screenshot, where somebody asked for pictures."""

    def keep(name: str) -> None:
        if folder := os.environ.get("PICTURES"):
            page.wait_for_timeout(1500)  # charts draw themselves slowly
            page.screenshot(path=Path(folder) / f"{name}.png")

    return keep
