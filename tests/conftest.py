"""What all tests share: repeatable Hypothesis runs, and torchvision's model definitions."""

import os
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

# No test depends on the speed of the machine: no deadline, and slow generation is not an error.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "exploring",
    deadline=None,
    max_examples=1000,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def torchvision_models() -> ModuleType:
    """`torchvision.models`, importable whichever build of torch it was compiled for."""
    import torch

    # torchvision registers Python parts of these ops on import.  Where its compiled part does not
    # load (it is linked against another build of torch) they must exist before; no model runs them.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

    from torchvision import models

    return models
