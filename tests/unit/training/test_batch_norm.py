"""Batch norm's running statistics before the first step; its statistics over processes are in test_distributed.py."""

import torch
from cifar_tasks.models.cnn import VGGStyleCNN
from torch import nn

from cifar_tasks.training.batch_norm import begin_statistics


def test_a_new_model_evaluates_as_it_trains_from_the_first_step_on():
    """With torch's own mean 0 and variance 1 it is off by several times what its logits differ by."""
    torch.manual_seed(0)
    model, images = VGGStyleCNN(dropout=0.0), 3 * torch.randn(64, 3, 32, 32) + 1
    with torch.no_grad():
        wanted = model.train()(images)
        begin_statistics(model, images)
        seen = model.eval()(images)
    assert (seen - wanted).std() < 0.05 * wanted.std()


def test_later_steps_move_the_statistics_as_torch_does():
    model = nn.Sequential(nn.BatchNorm2d(3))
    begin_statistics(model, torch.ones(8, 3, 4, 4))
    assert model[0].momentum == nn.BatchNorm2d(3).momentum
    model.train()(torch.zeros(8, 3, 4, 4))
    assert torch.allclose(model[0].running_mean, torch.full((3,), 0.9))
