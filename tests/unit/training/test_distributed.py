"""Two processes on the CPU train as one would: same batches, same numbers.

That none is left, whatever happens, is tested in `tests/faults/test_distributed_faults.py`.
"""

import os
from typing import Any

import pytest
import torch

from cifar_tasks.errors import ConfigError
from cifar_tasks.training import distributed
from tests.unit import ranks_of_a_test as ranks

METRICS = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


@pytest.fixture(scope="module", autouse=True)
def no_gpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return distributed.run(ranks.look, 1)


@pytest.fixture(scope="module")
def together() -> dict[str, Any]:
    return distributed.run(ranks.look, 2)


def test_one_process_is_this_one():
    assert distributed.run(os.getpid, 1) == os.getpid()


def test_each_batch_is_shared_out_without_overlap_and_augmented_the_same(alone, together):
    (whole,) = alone["batches"]
    first, second = together["batches"]
    assert len(whole) == ranks.IMAGES // ranks.BATCH
    for batch, one_half, other_half in zip(whole, first, second, strict=True):
        assert len(one_half) == len(other_half) == ranks.BATCH // 2
        assert not one_half.keys() & other_half.keys()
        assert one_half | other_half == batch


@pytest.mark.parametrize("training", ["trained", "sharpness aware", "head first"])
def test_after_one_epoch_all_metrics_equal_those_of_one_process(training, alone, together):
    (expected,) = alone[training][0]["metrics"]
    for rank in together[training]:
        (metrics,) = rank["metrics"]
        assert {name: metrics[name] for name in METRICS} == pytest.approx(
            {name: expected[name] for name in METRICS}, abs=1e-3
        )


@pytest.mark.parametrize("training", ["trained", "sharpness aware", "head first"])
def test_after_one_epoch_all_weights_and_running_statistics_equal_those_of_one_process(training, alone, together):
    expected = alone[training][0]["weights"]
    first, second = (rank["weights"] for rank in together[training])
    assert first == second
    assert first.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(torch.tensor(first[name]), torch.tensor(values), rtol=0, atol=1e-4, msg=name)


def test_all_processes_stop_early_in_the_same_epoch_with_the_same_weights(alone, together):
    (expected,) = alone["stopped"]
    assert expected["ending"] == "validation loss did not fall for 2 epochs"
    for rank in together["stopped"]:
        assert rank["ending"] == expected["ending"]
        assert len(rank["metrics"]) == len(expected["metrics"])
    first, second = together["stopped"]
    assert first["weights"] == second["weights"]


def test_what_the_first_process_resumes_all_resume(together):
    whole, again = together["resumed"]["whole"], together["resumed"]["again"]
    assert together["resumed"]["epochs"] == 2 + 1
    assert again[0]["weights"] == again[1]["weights"] == whole[0]["weights"]
    for rank in again:
        assert [epoch["train_loss"] for epoch in rank["metrics"]] == [
            epoch["train_loss"] for epoch in whole[0]["metrics"]
        ]


def test_they_stay_in_the_process_group_and_share_the_cores(alone, together):
    assert together["group"] == os.getpgid(0)
    assert together["threads"] == max(1, alone["threads"] // 2)


def test_they_listen_on_the_loopback_interface_only(together):
    assert len(together["addresses"]) == 3  # two processes and the store in this one
    assert set(together["addresses"]) == {"127.0.0.1"}


@pytest.mark.parametrize(("batch_size", "processes"), [(33, 2), (2, 3)])
def test_a_batch_that_cannot_be_shared_equally_is_refused_with_both_numbers(batch_size, processes):
    with pytest.raises(ConfigError, match=rf"batch of {batch_size} images .* by {processes} processes"):
        distributed.check_batch(batch_size, processes)
