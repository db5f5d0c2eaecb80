"""Artifacts to one self-contained HTML file that people can read without anything else."""

from spyhop.report.arm_figures import ArmRun, Comparison
from spyhop.report.arms import ArmsConfig, arms_page
from spyhop.report.page import ReportConfig, page

__all__ = ["ArmRun", "ArmsConfig", "Comparison", "ReportConfig", "arms_page", "page"]
