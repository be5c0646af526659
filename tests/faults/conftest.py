"""Fixtures of the browser, for tests of pages that are slow or wait for a person."""

from tests.browser.conftest import keep, page

__all__ = ["keep", "page"]
