"""Logs of anybody's evaluation as one small row: spyhop, lm-eval, inspect, AlpacaEval, arena-hard."""

from spyhop.evaluate.logs.read import COLUMNS, Log, read_log, read_logs
from spyhop.evaluate.logs.row import LogRow, digest

__all__ = ["COLUMNS", "Log", "LogRow", "digest", "read_log", "read_logs"]
