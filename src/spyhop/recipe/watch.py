"""Terminal output of runs and plans."""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from spyhop.recipe.events import Outlook, RunEvent
from spyhop.recipe.plan import PlannedStep

FIRST_LINE_S, LINE_S = 5.0, 20.0
"""Seconds to the first line of progress, and between two, if the output is not a terminal."""

BILLS = {
    "usd": "paid for replies: ${:,.4f}",
    "maybe_billed": "requests that may have been billed without a reply: {:,.0f}",
    "maybe_billed_twice": "requests that may have been billed twice: {:,.0f}",
    "maybe_billed_usd": "at most, for these: ${:,.4f}",
}
BAR_FROM_COLUMNS = 100
"""Narrower terminals show no bar."""


class _Bars(Progress):
    """A bar per running step, each with its note in full below it; overall progress comes last."""

    overall = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if note := task.fields["note"]:
                yield Padding(Text(note, style="dim", no_wrap=False, overflow="fold"), (0, 0, 0, 2))
        yield Text(self.overall, style="dim")


class Display:
    """Shows the events of a run: overall progress, a bar per running step, a line per ended one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        has_room = console.width >= BAR_FROM_COLUMNS
        self._bars = _Bars(
            TextColumn("{task.fields[step]:<22} {task.description:<24}"),
            *([BarColumn(bar_width=24)] if has_room else []),
            TextColumn("{task.fields[amount]:>16}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._outlook = Outlook()
        self._started = monotonic()
        self._last_line = self._started - LINE_S + FIRST_LINE_S
        self._bills = dict.fromkeys(BILLS, 0.0)
        self._num_reused = self._num_run = 0

    def __enter__(self) -> "Display":
        """Start to draw."""
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Stop drawing and print a summary."""
        seconds = monotonic() - self._started
        end = "stopped" if kind else "done"
        with suppress(OSError):
            self._bars.stop()
            self._console.print(
                f"{end} in {seconds:.1f} s: {self._num_run} steps run, {self._num_reused} reused"
            )
            for name, text in BILLS.items():
                if amount := self._bills[name]:
                    self._console.print(text.format(amount))

    def __call__(self, event: RunEvent) -> None:
        """Show an event; a terminal that was closed stops no run."""
        self._outlook.take(event)
        with suppress(OSError):
            self._show(event)

    def _show(self, event: RunEvent) -> None:
        left, line = self._outlook.seconds_left(), ""
        time = f", about {duration(left)} left" if left is not None else ""
        overall = f"{self._outlook.num_done} of {self._outlook.num_steps} steps done{time}"
        if event.kind == "step_started":
            self._tasks[event.step] = self._bars.add_task(
                "starting", total=None, step=event.step, amount="", note=""
            )
        elif event.kind == "progress":
            of = f"/{event.total:,.0f}" if event.total else ""
            amount = f"{event.done:,.0f}{of} {event.unit}"
            self._bars.update(
                self._tasks[event.step], description=event.text, completed=event.done,
                total=event.total, amount=amount, note=event.detail,
            )  # fmt: skip
            if not self._console.is_terminal and monotonic() - self._last_line > LINE_S:
                self._last_line = monotonic()
                line = f".... {event.step}: {event.text} {amount} {event.detail}; {overall}"
        elif event.kind == "note":
            line = f"note {event.step}: {event.text}"
        elif event.kind == "step_ended" and event.is_reused:
            self._num_reused += 1
        elif event.kind == "step_ended":
            self._num_run += 1
            for name in BILLS:
                self._bills[name] += event.usage.get(name, 0.0)
            self._bars.remove_task(self._tasks.pop(event.step))
            rows = f"{event.rows:,} rows" if event.rows is not None else ""
            dropped = sum(event.dropped.values())
            rows += f", {dropped:,} dropped" if dropped else ""
            line = f"done {event.step:<24} {rows:<26} {event.seconds:7.1f} s"
        if line:
            self._console.print(line, markup=False)
        self._bars.overall = overall


def duration(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def plan_table(lines: Sequence[PlannedStep]) -> Table:
    """Return a plan as a table; its last line is the remaining work."""
    table = Table(box=None, pad_edge=False)
    table.add_column("step", overflow="fold")
    table.add_column("stage", overflow="fold")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    table.add_column("bottleneck")
    for line in lines:
        waits = f"waiting for {', '.join(line.waits_for)} to be decided" if line.waits_for else ""
        last = "done" if line.is_made else "; ".join(filter(None, (waits, line.binds)))
        table.add_row(line.step.name, line.step.stage.name, *_figures([line]), last)
    due = [line for line in lines if not line.is_made]
    if any(line.waits_for for line in due):
        sure = [line for line in due if not line.waits_for]
        table.add_row("remaining, certain", "", *_figures(sure), "", style="bold")
        table.add_row("remaining, at most", "", *_figures(due), "", style="bold")
    else:
        table.add_row("remaining", "", *_figures(due), "", style="bold")
    return table


def deadlines(lines: Sequence[PlannedStep], days: float) -> list[str]:
    """Return, for each step and rate-limited model, the endpoints needed to finish in time."""
    found = []
    for line in lines:
        for name, demand in line.demands.items():
            if demand.binds not in ("", "batch"):
                exact = demand.endpoints_within(24 * days)
                found.append(
                    f"{line.step.name}: {max(1, math.ceil(exact))} endpoints such as {name}'s "
                    f"finish within {days:g} days ({exact:.2f}; configured: {demand.num_endpoints})"
                )
    return found


COLUMNS = ("rows", "requests", "tokens in", "tokens out", "trained", "USD", "at most", "hours")


def _figures(lines: Sequence[PlannedStep]) -> list[str]:
    return [
        f"{value:,.2f}" if name in ("usd", "most_usd", "hours") else f"{value:,}"
        for name, value in figures(lines).items()
    ]


def figures(lines: Sequence[PlannedStep]) -> dict[str, float]:
    """Return the sums of steps, in the order of `COLUMNS`."""
    calls = [each for line in lines for each in line.estimate.calls.values()]
    counted, billed = ("requests", "prompt_tokens", "response_tokens"), ("usd", "most_usd", "hours")
    return {
        "rows": sum(line.estimate.rows for line in lines),
        **{name: sum(getattr(each, name) for each in calls) for name in counted},
        "trained_tokens": sum(line.estimate.trained_tokens for line in lines),
        **{name: sum(getattr(each, name) for each in lines) for name in billed},
    }


def plan_values(lines: Sequence[PlannedStep]) -> dict[str, Any]:
    """Return a plan as plain data: every step, and the remaining work, certain and at most."""
    due = [line for line in lines if not line.is_made]
    steps = [
        dict(
            name=line.step.name, stage=line.step.stage.name, is_finished=line.is_made,
            **figures([line]), bottleneck=line.binds, waits_for=line.waits_for,
        )
        for line in lines
    ]  # fmt: skip
    sure = figures([line for line in due if not line.waits_for])
    return {"steps": steps, "remaining": sure, "remaining_at_most": figures(due)}
