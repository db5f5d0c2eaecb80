"""The one model interface and what stands behind it: local weights, recorded answers, a fake."""

from spyhop.models.base import (
    Choice,
    Likelihood,
    Model,
    ModelConfig,
    ModelUse,
    Reply,
    Request,
    Sampling,
)
from spyhop.models.fake import FakeModel
from spyhop.models.local import Local
from spyhop.models.replay import Replay

__all__ = [
    "Choice",
    "FakeModel",
    "Likelihood",
    "Local",
    "Model",
    "ModelConfig",
    "ModelUse",
    "Replay",
    "Reply",
    "Request",
    "Sampling",
]
