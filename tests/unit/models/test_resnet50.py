"""ResNet50 with the report's head, and where its weights may come from."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50

from cifar_tasks.errors import ConfigError, WeightsError
from cifar_tasks.models import build_resnet50, count_parameters, load_imagenet_weights


def ignore(line: str) -> None:
    """Progress is not what these tests look at."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file like torchvision's, of random weights, and its SHA-256."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(resnet50(weights=None).state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_head_is_dense_1024_512_classes():
    dense = [m for m in build_resnet50().fc if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in dense] == [(2048, 1024), (1024, 512), (512, 10)]
    assert [sum(p.numel() for p in m.parameters()) for m in dense] == [2_098_176, 524_800, 5_130]


def test_hidden_units_widen_both_layers_of_the_head():
    head = build_resnet50(10, hidden_units=300).fc
    assert [m.out_features for m in head if isinstance(m, nn.Linear)] == [300, 150, 10]


def test_parameters_are_those_of_the_reference():
    counted = count_parameters(build_resnet50())
    assert counted["trainable"] == 26_136_138
    assert counted["not_trainable"] == 53_120


def test_the_backbone_without_its_top_has_23508032_parameters():
    network = build_resnet50()
    head = sum(p.numel() for p in network.fc.parameters())
    assert count_parameters(network)["trainable"] - head == 23_508_032


def test_the_last_feature_map_of_224_pixels_is_7_by_7_by_2048():
    network = build_resnet50().eval()
    shapes = []
    network.layer4.register_forward_hook(lambda m, i, output: shapes.append(tuple(output.shape)))
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 10)
    assert shapes == [(1, 2048, 7, 7)]


def test_weights_from_a_file_reach_the_backbone_and_leave_the_head(weights):
    path, digest = weights
    network = build_resnet50()
    head = network.fc[0].weight.clone()
    assert load_imagenet_weights(network, str(path), digest, ignore) == digest
    stored = torch.load(path, weights_only=True)
    assert torch.equal(network.conv1.weight, stored["conv1.weight"])
    assert torch.equal(network.layer4[2].bn3.running_var, stored["layer4.2.bn3.running_var"])
    assert torch.equal(network.fc[0].weight, head)


def test_weights_with_another_digest_are_refused(weights):
    with pytest.raises(WeightsError, match="expected " + "0" * 64):
        load_imagenet_weights(build_resnet50(), str(weights[0]), "0" * 64, ignore)


def test_a_digest_must_be_given_for_a_file_and_the_error_names_it(weights):
    path, digest = weights
    with pytest.raises(ConfigError, match=digest):
        load_imagenet_weights(build_resnet50(), str(path), None, ignore)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    with pytest.raises(WeightsError, match="not a ResNet50's"):
        load_imagenet_weights(build_resnet50(), str(path), hashlib.sha256(path.read_bytes()).hexdigest(), ignore)


def test_a_missing_file_is_named():
    with pytest.raises(WeightsError, match="no weights at /nowhere"):
        load_imagenet_weights(build_resnet50(), "/nowhere", "0" * 64, ignore)


@pytest.fixture
def weights_host(weights, tmp_path, monkeypatch):
    """torchvision's own loader against a local HTTP server: the name ends in the first digits of the SHA-256."""
    path, digest = weights
    (tmp_path / "served").mkdir()
    name = f"resnet50-{digest[:8]}.pth"
    (tmp_path / "served" / name).write_bytes(path.read_bytes())

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def log_message(self, *arguments):
            """Not in the test's output."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    torch_home = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    monkeypatch.setattr(ResNet50_Weights.IMAGENET1K_V2._value_, "url", f"http://127.0.0.1:{server.server_port}/{name}")
    yield tmp_path / "served" / name
    server.shutdown()
    server.server_close()
    torch.hub.set_dir(torch_home)


def test_torchvision_s_loader_downloads_and_checks_the_hash(weights, weights_host):
    assert load_imagenet_weights(build_resnet50(), None, None, ignore) == weights[1]


def test_a_download_with_the_wrong_hash_is_refused(weights_host):
    weights_host.write_bytes(weights_host.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match="cannot be had"):
        load_imagenet_weights(build_resnet50(), None, None, ignore)


def test_an_unreachable_host_says_what_to_do(weights_host):
    weights_host.unlink()
    with pytest.raises(WeightsError, match="CIFAR_RESNET50_WEIGHTS"):
        load_imagenet_weights(build_resnet50(), None, None, ignore)
