"""A proposal in a process of its own, which tells what it took."""

import sys
import time
from typing import Any

from cifar_tasks.steps.payloads import WorkflowRun
from cifar_tasks.steps.promote import propose
from cifar_tasks.steps.promotion_payloads import PromotionRequest


def propose_alone(request: PromotionRequest, workflow: WorkflowRun) -> dict[str, Any]:
    """Seconds of the processor for the faster one of two, which other processes do not make longer, and which of these
    libraries were loaded."""
    seconds = []
    for _ in range(2):
        began = time.process_time()
        propose(request, workflow)
        seconds.append(time.process_time() - began)
    return {"seconds": min(seconds), "loaded": [name for name in ("scipy", "torch") if name in sys.modules]}
