"""Artifacts to one self-contained HTML file that people can read without anything else."""

from spyhop.report.arm_figures import ArmPair, ArmRun
from spyhop.report.arms import ArmsConfig, arms_page
from spyhop.report.corpus import CorpusPageConfig, corpus_page
from spyhop.report.curation import CuratedSet
from spyhop.report.dataset import DatasetConfig, dataset
from spyhop.report.humpback import HumpbackPageConfig, humpback_page
from spyhop.report.page import ReportConfig, page
from spyhop.report.students import CombinedPageConfig, StudentRun, combined_page
