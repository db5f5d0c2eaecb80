r"""Symbolic equality of two mathematical answers, by math-verify in a process that may be killed.

An extra, `[math]`: without it no two answers are equal symbolically. math-verify runs out of time
and memory on some inputs, and raises outside a main thread.
"""

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from spyhop.processes import ProcessDied, Service, WorkItem

TIME_S = 5.0
MEMORY_BYTES = 4 << 30
MAX_CHARS = 400
"""Longer answers are not compared."""
_LOOKS_MATHEMATICAL = re.compile(r"[0-9\\^=+*/<>]|\b[a-zA-Z]\b")
_WORD = re.compile(r"\b(?!(?:sqrt|sin|cos|tan|log|exp|mod|pi)\b)[a-zA-Z]{2,}")


def is_mathematical(text: str) -> bool:
    """Return whether a text is a formula, set, interval or equation, without other words."""
    plain = re.sub(r"\\[a-zA-Z]+", "\\\\", text)
    is_formula = bool(_LOOKS_MATHEMATICAL.search(text)) and not _WORD.search(plain)
    return is_formula and 0 < len(text) <= MAX_CHARS


@lru_cache(maxsize=4096)
def is_equal(answer: str, gold: str) -> bool:
    """Return whether two formulas are equal; False also where that cannot be decided in time."""
    if not (is_mathematical(answer) and is_mathematical(gold)) or find_spec("math_verify") is None:
        return False
    if "," in gold and "{" not in gold and gold.strip(" $")[:1] not in ("(", "["):
        return False  # a list, which math-verify compares as a set
    limits = WorkItem(time_s=TIME_S, memory_bytes=MEMORY_BYTES)
    for _ in range(2):  # the worker may have died before: with the thread that started it
        try:
            return bool(_WORKER.ask(limits, (gold, answer)))
        except ProcessDied as error:
            if "time cap" in str(error):
                break
    return False


_WORKER = Service("spyhop.text.symbolic:serve", WorkItem(time_s=TIME_S), ("1", "1"))


def serve(receive: Callable[[], Any], send: Callable[[Any], None]) -> None:
    """Compare formulas until the parent ends."""
    from math_verify import parse, verify

    logging.disable()  # it warns that it has no time limit; this process has one
    while True:
        receive()
        texts = receive()
        is_same = False
        with suppress(Exception):  # whatever its parsers raise, the two are not shown to be equal
            gold, answer = (parse(f"${t.strip('$ ')}$", parsing_timeout=None) for t in texts)
            is_same = verify(gold, answer, timeout_seconds=None)
        send(is_same)
