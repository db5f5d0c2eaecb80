"""The one model interface and its kinds: endpoints, local weights, recorded answers, a fake."""

from spyhop.models.base import BatchModel, Model, ModelConfig, ModelUse
from spyhop.models.calls import (
    Choice,
    Labels,
    Reply,
    Request,
    SampledGeneration,
    Sampling,
    TokenLogprobs,
)
from spyhop.models.classifier import TOXIC, Classifier, pick_label
from spyhop.models.endpoint import Remote
from spyhop.models.local import Local
from spyhop.models.replay import Replay
from spyhop.models.service import Endpoint, Service
from spyhop.models.teacher import Teacher, read_teacher
