"""Logs of spyhop, lm-eval, inspect, AlpacaEval and arena-hard as one small row."""

from spyhop.evaluate.logs.formats import LogRow
from spyhop.evaluate.logs.read import Log, read_log, read_logs

__all__ = ["Log", "LogRow", "read_log", "read_logs"]
