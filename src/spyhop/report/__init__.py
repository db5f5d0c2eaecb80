"""Artifacts to one self-contained HTML file that people can read without anything else."""

from spyhop.report.page import ReportConfig, page

__all__ = ["ReportConfig", "page"]
