"""What `cifar trace` prints."""

import pytest

from cifar_tasks.cli.lineage_commands import _content, _print
from cifar_tasks.errors import ConfigError
from cifar_tasks.tracking.lineage import Trace, TracedDataset, TracedEntry


def entry(number: int, kind: str, url: str | None) -> TracedEntry:
    at = "2026-01-02 03:04 UTC"
    return TracedEntry(line="pets", entry=number, kind=kind, time=at, objects=7, listing="l", by="ada", url=url)


def test_a_trace_names_the_address_of_each_delivery_unbroken(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://localhost:8080/dags/cifar10_dataset/runs/{'x' * 200}[b]"
    entries = (entry(3, "accepted", url), entry(4, "quarantined", "s3://reports/4"), entry(5, "released", None))
    dataset = TracedDataset(digest="d" * 64, uri="s3://d", name="pets", images={"train": 1}, entries=entries)
    _print(Trace(models=(), datasets=(dataset,)))
    lines = capsys.readouterr().out.splitlines()
    assert f"pets 3: {url}" in lines
    assert "pets 4: s3://reports/4" in lines
    assert not [line for line in lines if line.startswith("pets 5")]


@pytest.mark.parametrize("where", ["~nosuchuser/cat.jpg", "no/such/cat.jpg"])
def test_a_picture_that_cannot_be_read_is_named(where: str) -> None:
    with pytest.raises(ConfigError, match=f"^{where} is no version, alias"):
        _content(where)
