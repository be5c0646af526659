"""Networks of timm by name: their input, head, stages and published weights, without a download."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from cifar_tasks.config import with_values
from cifar_tasks.errors import ConfigError, WeightsError
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import ImageClassifier, build_classifier, check_export, load_pretrained
from cifar_tasks.models.timm_backbone import NAMES, names_of_timm, published_at, timm_names
from cifar_tasks.settings import PROJECT
from cifar_tasks.training.optimizer import build_optimizers
from cifar_tasks.training.transfer import LastLayers, compute_features

RESNET, CONVNEXT, VIT = "timm/resnet10t.c3_in1k", "timm/convnext_atto.d2_in1k", "timm/vit_tiny_patch16_224.augreg_in21k"
GREY = (0.5, 0.5, 0.5)


def classifier(name: str, **values) -> ImageClassifier:
    torch.manual_seed(0)
    return build_classifier(config(name, **values), 10, GREY, GREY)


def config(name: str, **values):
    return with_values(get_model(name).config("demo"), {"input_size": 64, **values})


def test_the_known_names_are_those_of_the_installed_timm():
    """After another version of timm: write `names_of_timm()` to the file."""
    assert (PROJECT / "cifar_tasks" / "models" / NAMES).read_text() == names_of_timm()
    assert {RESNET, CONVNEXT, VIT, "timm/convnext_tiny.fb_in22k", "timm/resnet18.a1_in1k"} <= timm_names()


def test_its_full_recipe_has_the_size_of_its_weights_and_slower_stages_near_the_image():
    full, measured = (get_model(name).recipes["full"] for name in (RESNET, "efficientnet_lite0"))
    assert (full.model, full.input_size) == (RESNET, None)
    assert full.transfer.stage_decay < measured.transfer.stage_decay == 1


@pytest.mark.parametrize("name", [RESNET, CONVNEXT, VIT])
def test_a_network_has_a_head_for_the_classes_and_can_be_exported(name):
    model = classifier(name).eval()
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    logits, features = model(images), compute_features(model, get_model(name).head(model.network), images)
    head = LastLayers(model.network.get_submodule(get_model(name).head(model.network)), 1.0)
    assert logits.shape == (2, 10)
    assert torch.allclose(head(features), logits, atol=0.02)  # features may be bfloat16's
    check_export(model, name, 32)


@pytest.mark.parametrize("name", [RESNET, CONVNEXT, VIT])
def test_features_are_what_timm_gives_to_its_head(name, monkeypatch):
    monkeypatch.setattr("cifar_tasks.training.device.precision", lambda _: torch.float32)
    model = classifier(name).eval()
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        of_timm = model.network.forward_head(model.network.forward_features(model.prepare(images)), pre_logits=True)
    assert torch.allclose(compute_features(model, get_model(name).head(model.network), images), of_timm, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [(RESNET, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), (VIT, GREY, GREY)],
)
def test_normalisation_and_input_size_are_those_of_the_weights(name, mean, std):
    model = classifier(name, input_size=None)
    assert (model.mean.flatten() / 255).tolist() == pytest.approx(mean)
    assert (model.std.flatten() / 255).tolist() == pytest.approx(std)
    assert model.input_size == timm.get_pretrained_cfg(name.removeprefix("timm/")).input_size[-1]


@pytest.mark.parametrize(("images", "side"), [(32, 64), (64, 64), (96, 64)])
def test_a_network_of_one_size_gets_all_images_in_it(images, side):
    assert classifier(VIT).prepare(torch.zeros(1, images, images, 3, dtype=torch.uint8)).shape == (1, 3, side, side)


def test_a_network_of_any_size_gets_larger_images_as_they_are():
    assert classifier(RESNET).prepare(torch.zeros(1, 96, 96, 3, dtype=torch.uint8)).shape[-1] == 96


def test_an_input_size_that_a_network_cannot_take_is_refused_with_its_own():
    with pytest.raises(ConfigError, match=r"cannot build maxvit_tiny.* an input size of 8 pixels.* its own, 224\."):
        classifier("timm/maxvit_tiny_tf_224", input_size=8)


@pytest.mark.parametrize("name", [RESNET, CONVNEXT, VIT])
def test_the_rates_fall_from_the_head_to_the_image_by_timm_s_groups(name):
    wanted = config(name, stage_decay=0.5, learning_rate=1.0)
    model = classifier(name)
    stages = get_model(name).stages_to_head(model.network)
    head = get_model(name).head(model.network)
    assert {stage == 0 for parameter, stage in stages.items() if parameter.startswith(f"{head}.")} == {True}
    assert min(stage for parameter, stage in stages.items() if not parameter.startswith(f"{head}.")) == 1
    assert set(stages.values()) == set(range(max(stages.values()) + 1))
    (optimizer,) = build_optimizers(model, wanted)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for parameter, weight in model.network.named_parameters():
        assert rates[id(weight)] == pytest.approx(0.5 ** stages[parameter]), parameter


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
@pytest.mark.parametrize("name", [RESNET, VIT])
def test_published_weights_reach_all_but_the_head_whatever_the_input_size(name, kind, tmp_path):
    torch.manual_seed(1)
    published = timm.create_model(name.removeprefix("timm/")).state_dict()
    path = tmp_path / "weights"
    save_file(published, path) if kind == "safetensors" else torch.save(published, path)
    model = classifier(name)
    load_pretrained(model, config(name), path, print)
    head = get_model(name).head(model.network)
    for parameter, value in model.network.state_dict().items():
        same = parameter in published and torch.equal(value, published[parameter])
        assert same != (parameter.startswith(f"{head}.") or parameter == "pos_embed"), parameter  # resized to 64 pixels


@pytest.mark.parametrize("change", ["missing", "unknown", "another shape"])
def test_a_file_that_does_not_match_is_refused(tmp_path, change):
    published = timm.create_model(RESNET.removeprefix("timm/")).state_dict()
    weight = published.pop("layer1.0.conv1.weight")
    if change == "unknown":
        published |= {"layer1.0.conv1.weight": weight, "layer9.weight": weight.clone()}
    if change == "another shape":
        published["layer1.0.conv1.weight"] = weight[:-1].contiguous()
    save_file(published, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"w\.safetensors does not hold the weights of timm/resnet10t"):
        load_pretrained(classifier(RESNET), config(RESNET), tmp_path / "w.safetensors", print)


def test_a_network_of_two_heads_says_so():
    name = "timm/deit_tiny_distilled_patch16_224.fb_in1k"
    with pytest.raises(ConfigError, match=r"deit_tiny_distilled_patch16_224\.fb_in1k has not one head but 2"):
        build_classifier(config(name), 10, GREY, GREY)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pit_ti_224", r"timm does not say what the stages of timm/pit_ti_224 are"),  # no groups
        ("rdnet_tiny", r"timm does not say what the stages of timm/rdnet_tiny are"),  # groups of blocks alone
        ("lambda_resnet26t", r"timm/lambda_resnet26t cannot be trained in channels_last layout"),
    ],
)
def test_a_network_that_cannot_be_trained_says_why_and_what_to_do(name, reason):
    with torch.device("meta"), pytest.raises(ConfigError, match=rf"{reason}: choose another network\."):
        classifier(f"timm/{name}")


@pytest.mark.parametrize("name", ["gemma4_vit_167m_enc", "qwen3_vit_88m_enc"])  # no dropout, no head
@pytest.mark.parametrize("input_size", [64, None])
def test_a_network_that_no_input_size_helps_is_refused_without_advice_on_it(name, input_size):
    with torch.device("meta"), pytest.raises(ConfigError, match=f"cannot build {name}, choose another") as caught:
        classifier(f"timm/{name}", input_size=input_size)
    assert "size" not in str(caught.value)


def test_a_network_without_published_weights_says_what_to_do():
    assert published_at("timm/resnet18.a1_in1k") == ("timm/resnet18.a1_in1k", "")
    with pytest.raises(WeightsError, match=r"no weights of timm/resnet10t_nothing.*CIFAR_PRETRAINED_WEIGHTS"):
        published_at("timm/resnet10t_nothing")
