"""Logs of spyhop, lm-eval, inspect, AlpacaEval and arena-hard as one small row."""

from spyhop.evaluate.logs.formats import LogRow
from spyhop.evaluate.logs.read import Log, read_log
from spyhop.evaluate.logs.write import export_scores

__all__ = ["Log", "LogRow", "export_scores", "read_log"]
