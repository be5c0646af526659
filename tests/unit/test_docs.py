"""Tables of the documentation that repeat what the code decides."""

import re

import pytest

from cifar_tasks.config import PROFILES
from cifar_tasks.models import get_model
from cifar_tasks.settings import PROJECT

PROFILE_ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \| ([\d,]+|all) \| (\d+|as prepared) \|$", re.MULTILINE)


@pytest.mark.parametrize("model", ["cnn", "efficientnet_lite0", "resnet50"])
def test_the_table_of_profiles_has_the_values_of_the_recipes(model):
    rows = PROFILE_ROW.findall((PROJECT / "docs/settings.md").read_text("utf-8"))
    documented = {profile: values for name, profile, *values in rows if name == model}
    recipes = {profile: get_model(model).recipes[profile] for profile in PROFILES}
    assert documented == {
        profile: [
            str(recipe.epochs),
            f"{recipe.train_images:,}" if recipe.train_images else "all",
            str(recipe.input_size or "as prepared"),
        ]
        for profile, recipe in recipes.items()
    }
