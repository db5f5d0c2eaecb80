"""Jinja templates of benchmarks, evaluated over rows in Jinja's sandbox without loaders.

A template may be anybody's: its process is killed at its caps on time and memory.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

from spyhop.lazy import jinja2
from spyhop.processes import ProcessDied, Service, WorkItem
from spyhop.schema import InputError

TIME_S = 10.0
"""Longest time for a batch of rows."""
MEMORY_BYTES = 2 << 30
MAX_CHARS = 1 << 20
"""Longest text, and longest list, that a template may give."""
BATCH_ROWS = 256
_SCALARS = (str, int, float, bool, type(None))
_Template = Callable[[dict[str, Any]], Any]


class Sandbox:
    """Evaluates templates over rows; the process starts with the first template.

    A template with `{{` or `{%` gives text; any other one is an expression and gives its value. It
    sees the row's columns, and the values of the templates before it.
    """

    def __init__(self) -> None:
        self._worker = Service("spyhop.text.sandbox:serve")

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()

    def values(
        self, templates: Mapping[str, str], rows: Iterable[tuple[str, dict[str, Any]]]
    ) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Yield the place of each row, the row, and the value of each template by its name."""
        rows = iter(rows)
        limits = WorkItem(time_s=TIME_S, memory_bytes=MEMORY_BYTES)
        while batch := list(islice(rows, BATCH_ROWS)):
            found: list[dict[str, Any]] = [{} for _ in batch]
            fault = ""
            if templates:
                try:
                    request = dict(templates), [row for _, row in batch]
                    found, fault = self._worker.ask(limits, request)
                except ProcessDied as error:
                    raise InputError(
                        f"{batch[0][0]}: the templates {', '.join(templates)} exceed "
                        f"{TIME_S:.0f} s or {MEMORY_BYTES >> 30} GB ({error})"
                    ) from None
            if fault:
                raise InputError(f"{batch[len(found)][0]}: {fault}")
            for (where, row), values in zip(batch, found, strict=True):
                yield where, row, values


def is_text(template: str) -> bool:
    """Whether a template gives text, not the value of an expression."""
    return "{{" in template or "{%" in template or "{#" in template


def serve(receive: Callable[[], Any], send: Callable[[Any], None]) -> None:
    """Evaluate batches until the parent ends."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["regex_replace"] = (  # lm-eval's only filter of its own
        lambda text, pattern, repl, count=0: re.sub(pattern, repl, text, count=count)
    )

    @cache
    def compiled(source: str) -> _Template:
        if is_text(source):
            return environment.from_string(source).render
        expression = environment.compile_expression(source, undefined_to_none=False)
        return lambda row: expression({"row": row, **row})

    while True:
        receive()
        send(_work(compiled, *receive()))


def _work(
    compiled: Callable[[str], _Template], templates: dict[str, str], rows: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], str]:
    """Return the values of the rows up to the first for which a template fails, and the reason."""
    found: list[dict[str, Any]] = []
    for row in rows:
        values: dict[str, Any] = {}
        for name, template in templates.items():
            try:
                values[name] = _plain(compiled(template)({**values, **row}))
            except MemoryError:
                return found, f"the template {name!r} needs more than its memory"
            except Exception as error:  # noqa: BLE001 (whatever a template may raise)
                reason = " ".join(str(error).split()) or type(error).__name__
                return found, f"the template {name!r} fails: {reason:.120}"
        found.append(values)
    return found, ""


def _plain(value: object, depth: int = 0) -> Any:  # noqa: ANN401 (plain data)
    """Return a value as plain data of limited size."""
    if isinstance(value, str) and len(value) > MAX_CHARS:
        raise ValueError(f"a text of {len(value):,} characters; at most {MAX_CHARS:,}")
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise ValueError("an integer of more than 64 bits")
    if isinstance(value, _SCALARS):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, Mapping) or not isinstance(value, Iterable) or depth > 2:
        str(value)  # an undefined value raises its own message
        raise ValueError(f"{type(value).__name__} is neither text, a number nor a list")
    items = list(islice(value, MAX_CHARS + 1))
    if len(items) > MAX_CHARS:
        raise ValueError(f"a list of more than {MAX_CHARS:,} values")
    return [_plain(each, depth + 1) for each in items]
