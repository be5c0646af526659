"""What is trained on the prepared data: the recipe of each model with what the user has set."""

import pytest

from cifar_tasks.config import Overrides, with_values
from cifar_tasks.models import get_model
from cifar_tasks.steps.plan import plan_training
from tests.unit.data.sources import NoiseSource


@pytest.mark.parametrize("profile", ["demo", "full"])
def test_each_model_is_trained_by_the_recipe_of_the_profile_with_what_the_user_has_set(services, profile):
    overrides = Overrides(epochs=2, seed=0)
    data = services.prepared(models=["resnet50", "cnn"], profile=profile, overrides=overrides)
    plans = plan_training(data)
    assert [plan.config for plan in plans] == [
        with_values(get_model(name).config(profile), {"epochs": 2, "seed": 0}) for name in ("resnet50", "cnn")
    ]
    assert all(set(plan.fixed) == {"epochs", "seed"} for plan in plans)
    assert all(plan.data == data and plan.params_source is None for plan in plans)
    assert plans[1].config.augmentation.flip


def test_digits_are_never_mirrored_whatever_the_user_has_set(services):
    source = NoiseSource()
    source.placeholder = True
    (plan,) = plan_training(services.prepared(source, overrides=Overrides(flip=True)))
    assert not plan.config.augmentation.flip
    assert plan.fixed == ["flip"]
