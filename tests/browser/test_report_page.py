"""The report page alone, in Chromium: as a file, and in a frame with the sandbox of MLflow's viewer."""

import html
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from cifar_tasks.steps.report import render
from tests.browser.conftest import CHROMIUM, FLAGS, needs_chromium
from tests.names import NASTY_NAMES
from tests.unit.cli.test_summary import REPORT, ROW
from tests.unit.steps.test_report import PIXEL, version

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A page that shows every name at every place."""
    table = "\n".join(f"{name:>90}      0.000     1.000" for name in NASTY_NAMES if name.isprintable())
    model = {"name": "cnn", "params_source": None, "figures": [("Curves", PIXEL)], "table": table}
    row = ROW.model_copy(update={"aliases": ["champion", "challenger", "previous"]})
    names = {"reasons": list(NASTY_NAMES), "banner": "".join(NASTY_NAMES)}
    summary = REPORT.model_copy(update={**names, "rows": [row] * 3})
    path = tmp_path / "report.html"
    path.write_text(render(summary, version("".join(NASTY_NAMES)), [model], PIXEL))
    return path


def test_the_page_runs_no_name_and_fits_1024_pixels(browser: Browser, report: Path) -> None:
    page = browser.new_page(viewport={"width": 1024, "height": 768})
    page.goto(report.as_uri())
    page.wait_for_timeout(300)
    assert page.title().startswith("Training report: <img")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1024
    assert page.locator("script, img[onerror]").count() == 0


def test_a_click_in_mlflow_s_viewer_leaves_the_report_where_it_is(browser: Browser, report: Path) -> None:
    page = browser.new_page()
    source = html.escape(report.read_text())
    page.set_content(f'<iframe sandbox="allow-scripts" width="900" height="600" srcdoc="{source}"></iframe>')
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="cnn", exact=True).first.click()
    page.wait_for_timeout(300)
    assert frame.get_by_role("heading", name="Training report").is_visible()
    assert frame.get_by_text(REPORT.compare_url, exact=True).first.is_visible()
