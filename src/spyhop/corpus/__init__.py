"""Web pages to self-contained segments."""

from spyhop.corpus.sample import SampleConfig, sample
from spyhop.corpus.stages import decontaminate, deduplicate, segment
from spyhop.corpus.work import SegmentConfig
