"""Web pages to self-contained segments."""

from spyhop.corpus.stages import SampleConfig, decontaminate, deduplicate, sample, segment
from spyhop.corpus.work import SegmentConfig
