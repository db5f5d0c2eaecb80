"""Artifacts to one self-contained HTML file that people can read without anything else."""

from spyhop.report.arm_figures import ArmPair, ArmRun
from spyhop.report.arms import ArmsConfig, arms_page
from spyhop.report.corpus import CorpusPageConfig, corpus_page
from spyhop.report.dataset import DatasetConfig, dataset
from spyhop.report.page import ReportConfig, page

__all__ = [
    "ArmPair",
    "ArmRun",
    "ArmsConfig",
    "CorpusPageConfig",
    "DatasetConfig",
    "ReportConfig",
    "arms_page",
    "corpus_page",
    "dataset",
    "page",
]
