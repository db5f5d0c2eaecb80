"""Messages to token ids and loss mask. The mask is built from spans, never by searching.

The same functions serve training, generation and evaluation.
"""

from spyhop.render.formats import (
    FORMATS,
    HUMPBACK,
    ORCA,
    SEED_TAG,
    SPECIAL_TOKENS,
    TURNS,
    WEB_TAG,
    BlockFormat,
    spans,
)
from spyhop.render.renderer import (
    ChatFormat,
    Encoded,
    FormatName,
    Renderer,
    named_format,
    read_format,
)
from spyhop.render.template import History, TemplateFormat, Thinking, TrainOn
