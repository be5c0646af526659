"""The two networks of the report, each with its preprocessing inside."""

from cifar_tasks.models.classifier import Channels, ImageClassifier, build_classifier, count_parameters, summarise
from cifar_tasks.models.cnn import VGGStyleCNN
from cifar_tasks.models.resnet50 import backbone_of, build_resnet50, load_imagenet_weights

__all__ = [
    "Channels",
    "ImageClassifier",
    "VGGStyleCNN",
    "backbone_of",
    "build_classifier",
    "build_resnet50",
    "count_parameters",
    "load_imagenet_weights",
    "summarise",
]
