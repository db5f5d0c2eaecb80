"""Logs of spyhop, lm-eval, inspect, AlpacaEval and arena-hard as one small row."""

from spyhop.evaluate.logs.read import COLUMNS, Log, read_log, read_logs
from spyhop.evaluate.logs.row import LogRow, digest

__all__ = ["COLUMNS", "Log", "LogRow", "digest", "read_log", "read_logs"]
