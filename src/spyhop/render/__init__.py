"""Messages to token ids and loss mask. The mask is built from segments, never by searching.

The same functions serve training, generation and evaluation, so a model is always asked in the
form that it was trained in.
"""

from spyhop.render.form import (
    FORMATS,
    HUMPBACK,
    ORCA,
    SEED_TAG,
    SPECIAL_TOKENS,
    TURNS,
    WEB_TAG,
    Format,
    Segment,
    segments,
)
from spyhop.render.renderer import (
    Encoded,
    Form,
    FormName,
    Renderer,
    TrainOn,
    named_form,
    read_form,
)
from spyhop.render.template import Chat

__all__ = [
    "FORMATS",
    "HUMPBACK",
    "ORCA",
    "SEED_TAG",
    "SPECIAL_TOKENS",
    "TURNS",
    "WEB_TAG",
    "Chat",
    "Encoded",
    "Form",
    "FormName",
    "Format",
    "Renderer",
    "Segment",
    "TrainOn",
    "named_form",
    "read_form",
    "segments",
]
