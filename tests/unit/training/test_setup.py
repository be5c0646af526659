"""What a training starts from: samples, statistics of the channels, running statistics, and no copy of the images."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cifar_tasks.config import with_values
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import build_classifier
from cifar_tasks.training import setup
from cifar_tasks.training.device import precision
from cifar_tasks.training.setup import channel_statistics, init_running_stats, run_params, sample_indices, to_split

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
CPU = torch.device("cpu")


@pytest.mark.parametrize("chunk", [7, 512])
def test_channel_statistics_are_those_of_values_from_zero_to_one(chunk, monkeypatch):
    monkeypatch.setattr(setup, "CHUNK", chunk)
    mean, deviation = channel_statistics(IMAGES)
    values = IMAGES / 255
    assert mean == pytest.approx(tuple(values.mean((0, 1, 2))))
    assert deviation == pytest.approx(tuple(values.std((0, 1, 2))))


def test_a_channel_without_contrast_is_not_divided_by_zero():
    images = IMAGES.copy()
    images[..., 1] = 77
    mean, deviation = channel_statistics(images)
    assert mean[1] == pytest.approx(77 / 255)
    assert deviation[1] == 1


def test_a_sample_is_the_same_for_the_same_seed_and_another_for_another():
    labels = np.arange(40) % 3
    first, again, other = (sample_indices(labels, 10, seed).tolist() for seed in (0, 0, 1))
    assert first == again == sorted(set(first))
    assert len(first) == 10
    assert first != other


@pytest.mark.parametrize("counts", [[4500] * 10, [1, 2, 7, 90], [5000, 50], [3] * 1000])
@pytest.mark.parametrize("wanted", [1, 37, 100])
def test_a_sample_holds_of_each_class_its_share_rounded_up_or_down(counts, wanted):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    for seed in range(3):
        sample = sample_indices(labels, wanted, seed)
        assert len(set(sample.tolist())) == wanted
        share = np.array(counts) * wanted / len(labels)
        assert (np.abs(np.bincount(labels[sample], minlength=len(counts)) - share) < 1).all()


def test_fifteen_hundred_of_ten_equal_classes_are_150_of_each():
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 4500))
    assert np.bincount(labels[sample_indices(labels, 1500, 0)]).tolist() == [150] * 10


def test_a_new_model_evaluates_as_it_trains_from_the_first_step_on():
    """With torch's own mean 0 and variance 1 it is off by several times what its logits differ by."""
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    model = build_classifier(get_model("cnn").recipes["demo"], 10, *channel_statistics(images))
    with torch.no_grad():
        wanted = model.train()(torch.from_numpy(images))
        init_running_stats(model, images)
        seen = model.eval()(torch.from_numpy(images))
    assert (seen - wanted).std() < 0.05 * wanted.std()


def test_running_statistics_start_with_images_from_all_over_the_data():
    """Folders come class by class: the first images would be those of one class."""
    model = nn.Sequential(Floats(), nn.BatchNorm2d(3))
    init_running_stats(model, np.repeat(np.array([0, 200], np.uint8), 400)[:, None, None, None] + IMAGES[:1] * 0)
    assert model[1].running_mean.tolist() == pytest.approx([100, 100, 100], abs=1)


@pytest.mark.parametrize(("size", "expected"), [(16, 240), (32, 240), (128, 16), (512, 8)])
def test_running_statistics_start_with_fewer_images_where_they_are_large(size, expected):
    model, seen = nn.Sequential(Floats(), nn.BatchNorm2d(3)), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    init_running_stats(model, np.broadcast_to(np.uint8(7), (480, size, size, 3)))
    assert seen == [expected]


def test_later_steps_move_the_running_statistics_as_torch_does():
    model = nn.Sequential(Floats(), nn.BatchNorm2d(3))
    init_running_stats(model, np.ones((8, 4, 4, 3), np.uint8))
    assert model[1].momentum == nn.BatchNorm2d(3).momentum
    model.train()(torch.zeros(8, 4, 4, 3, dtype=torch.uint8))
    assert torch.allclose(model[1].running_mean, torch.full((3,), 0.9))


class Floats(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2).float()


def test_images_that_are_mapped_into_memory_are_neither_copied_nor_warned_of(tmp_path: Path):
    IMAGES.tofile(tmp_path / "images")
    mapped = np.memmap(tmp_path / "images", np.uint8, "r", shape=IMAGES.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = to_split(CPU, mapped, np.arange(40))
    assert split.images.data_ptr() == mapped.ctypes.data
    assert split.labels.tolist() == list(range(40))


def test_a_run_s_parameters_are_the_configuration_the_model_and_the_machine():
    config = with_values(get_model("cnn").recipes["demo"], {"sam_radius": 0.3, "flip": False})
    model = build_classifier(config, 10, *channel_statistics(IMAGES))
    params = run_params(config, model, "random", CPU)
    assert (params["model"], params["sam_radius"], params["flip"]) == ("cnn", 0.3, False)
    assert params["parameters_total"] == 2_429_270
    assert params["initial_weights"] == "random"
    assert "threads" in params["device"]
    assert params["precision"] == str(precision(CPU)).removeprefix("torch.")


def test_the_number_of_threads_is_recorded_because_it_changes_the_last_digits():
    config = get_model("cnn").config("demo")
    model = build_classifier(config, 3, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert run_params(config, model, "random", CPU)["threads"] == threads
    finally:
        torch.set_num_threads(before)
