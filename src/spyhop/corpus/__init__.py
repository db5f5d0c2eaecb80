"""Web pages to self-contained segments."""

from spyhop.corpus.stages import decontaminate, deduplicate, segment
from spyhop.corpus.work import SegmentConfig

__all__ = ["SegmentConfig", "decontaminate", "deduplicate", "segment"]
