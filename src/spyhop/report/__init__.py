"""Artifacts to one self-contained HTML file that people can read without anything else."""

from spyhop.report.arm_figures import ArmPair, ArmRun
from spyhop.report.arms import ArmsConfig, arms_page
from spyhop.report.export import ExportConfig, export
from spyhop.report.page import ReportConfig, page

__all__ = [
    "ArmPair",
    "ArmRun",
    "ArmsConfig",
    "ExportConfig",
    "ReportConfig",
    "arms_page",
    "export",
    "page",
]
