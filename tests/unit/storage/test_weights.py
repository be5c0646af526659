"""Files of pretrained weights: from where the settings say or from their publisher, never with another digest."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from cifar_tasks.errors import WeightsError
from cifar_tasks.models import ModelSpec, PretrainedWeights, available_models, get_model
from cifar_tasks.settings import Settings, WeightsFile
from cifar_tasks.storage.weights import fetch_weights

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def requests() -> list[str]:
    return []


@pytest.fixture
def published(tmp_path: Path, requests: list[str]) -> Iterator[ModelSpec]:
    """ResNet50 whose weights a local server publishes."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "resnet50.pth").write_bytes(CONTENT)

    class Served(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def log_message(self, *arguments):
            requests.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/resnet50.pth"
        yield replace(get_model("resnet50"), pretrained=PretrainedWeights(url, DIGEST[:8]))
        server.shutdown()


def settings(home: Path, **weights: WeightsFile) -> Settings:
    return Settings(home=home / "home", pretrained_weights=weights)


def own(path: Path | str, sha256: str = DIGEST) -> WeightsFile:
    return WeightsFile(source=str(path), sha256=sha256)


def test_published_weights_are_downloaded_once_per_machine(tmp_path, published, requests):
    told: list[str] = []
    for _ in range(2):
        path, digest = fetch_weights(published, settings(tmp_path), told.append)
        assert (path.read_bytes(), digest) == (CONTENT, DIGEST)
    assert requests == ["/resnet50.pth"]
    assert told == [f"fetching the pretrained weights of resnet50 ({published.pretrained.url})"]


def test_a_download_with_the_wrong_digest_is_refused_and_fetched_again_the_next_time(tmp_path, published):
    served = tmp_path / "served" / "resnet50.pth"
    served.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(WeightsError, match=f"expected {DIGEST[:8]}"):
        fetch_weights(published, settings(tmp_path), print)
    served.write_bytes(CONTENT)
    assert fetch_weights(published, settings(tmp_path), print)[1] == DIGEST


PLANTED = {
    "random": b"\x93random" * 500,
    "empty": b"",
    "truncated": CONTENT[:-1],
    "html": b"<!doctype html><title>Sign in</title>",
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_copy_that_is_not_the_published_file_is_named_and_fetched_again(tmp_path, published, planted):
    path, _ = fetch_weights(published, settings(tmp_path), print)
    path.write_bytes(PLANTED[planted])
    told: list[str] = []
    assert fetch_weights(published, settings(tmp_path), told.append) == (path, DIGEST)
    assert path.read_bytes() == CONTENT
    assert f"{path} is damaged" in told[0]


@pytest.mark.parametrize("planted", PLANTED)
def test_a_copy_that_cannot_be_fetched_again_is_not_used(tmp_path, published, planted):
    path, _ = fetch_weights(published, settings(tmp_path), print)
    path.write_bytes(PLANTED[planted])
    (tmp_path / "served" / "resnet50.pth").unlink()
    with pytest.raises(WeightsError, match="not available"):
        fetch_weights(published, settings(tmp_path), print)


@pytest.mark.parametrize("digest", ["", "ab", DIGEST[:7]])
def test_a_digest_that_is_too_short_proves_nothing(tmp_path, published, digest):
    assert published.pretrained is not None
    weak = replace(published, pretrained=replace(published.pretrained, sha256=digest))
    with pytest.raises(WeightsError, match="expected"):
        fetch_weights(weak, settings(tmp_path), print)


@pytest.mark.parametrize("digest", ["", "abc", DIGEST[:8], DIGEST + "0", "g" * 64])
def test_the_settings_demand_a_whole_digest(digest):
    with pytest.raises(ValidationError, match="sha256"):
        own("weights.pth", digest)


def test_published_weights_are_known_by_their_whole_digest():
    for spec in available_models().values():
        assert spec.pretrained is None or len(spec.pretrained.sha256) == 64


def test_a_folder_or_an_unwritable_home_is_one_line(tmp_path, published):
    with pytest.raises(WeightsError, match="no weights at"):
        fetch_weights(published, settings(tmp_path, resnet50=own(tmp_path)), print)
    (tmp_path / "home").write_text("a file")
    with pytest.raises(WeightsError, match="not available"):
        fetch_weights(published, settings(tmp_path), print)


def test_an_unreachable_host_says_what_to_do(tmp_path, published):
    (tmp_path / "served" / "resnet50.pth").unlink()
    with pytest.raises(WeightsError, match=r"not available from http.*CIFAR_PRETRAINED_WEIGHTS"):
        fetch_weights(published, settings(tmp_path), print)


def test_a_file_of_one_s_own_is_used_where_it_lies(tmp_path, published, requests):
    path = tmp_path / "own.pth"
    path.write_bytes(CONTENT)
    assert fetch_weights(published, settings(tmp_path, resnet50=own(path)), print) == (path, DIGEST)
    assert not requests


def test_a_file_of_one_s_own_with_another_digest_is_refused_and_left_there(tmp_path, published):
    path = tmp_path / "own.pth"
    path.write_bytes(CONTENT)
    with pytest.raises(WeightsError, match="expected " + "0" * 64):
        fetch_weights(published, settings(tmp_path, resnet50=own(path, "0" * 64)), print)
    assert path.exists()


def test_a_missing_file_is_named(tmp_path, published):
    with pytest.raises(WeightsError, match="no weights at /nowhere"):
        fetch_weights(published, settings(tmp_path, resnet50=own("/nowhere")), print)


def test_a_model_without_pretrained_weights_says_so(tmp_path):
    with pytest.raises(WeightsError, match="cnn has no pretrained weights: choose pretrained = none"):
        fetch_weights(get_model("cnn"), settings(tmp_path), print)
