"""Promotions for the tests of steps, each as a workflow run of its own."""

import uuid
from typing import Any

from cifar_tasks.promotion.limits import Limits
from cifar_tasks.steps.payloads import Answer, Promotion, PromotionRequest, Proposal, RegisteredModel
from cifar_tasks.steps.promote import propose, record
from tests.trainings import workflow


def proposed(registered: RegisteredModel, **request: Any) -> Proposal:
    asked = PromotionRequest(
        registered_model=registered.name, version=registered.version, **{"limits": Limits(), **request}
    )
    return propose(asked, workflow(f"promotion-{uuid.uuid4().hex[:8]}"))


def promote(registered: RegisteredModel, answer: Answer | None = None, **request: Any) -> Promotion:
    return record(proposed(registered, **request), answer)
