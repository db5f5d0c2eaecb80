"""What a person sees while a recipe runs, and of a plan."""

import math
from collections.abc import Iterable, Sequence
from time import monotonic
from types import TracebackType

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from spyhop.recipe.graph import Node
from spyhop.recipe.plan import PlannedNode, calls_of
from spyhop.stage import Progress as StageProgress
from spyhop.store import Artifact

LINE_S = 20.0
"""Time between two lines of progress where there is no terminal to draw on."""


BAR_FROM_COLUMNS = 100
"""Narrower terminals have no room for a bar."""


class _Bars(Progress):
    """Moving lines, each with its note in full below it."""

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if note := task.fields["note"]:
                yield Padding(Text(note, style="dim", no_wrap=False, overflow="fold"), (0, 0, 0, 2))


class Display:
    """One moving line per running node, one lasting line per node that is made."""

    def __init__(self, console: Console) -> None:
        self._console = console
        has_room = console.width >= BAR_FROM_COLUMNS
        self._bars = _Bars(
            TextColumn("{task.fields[node]:<22} {task.description:<24}"),
            *([BarColumn(bar_width=24)] if has_room else []),
            TextColumn("{task.fields[amount]:>16}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._started = monotonic()
        self._num_hits = self._num_made = 0
        self._last_line = monotonic()

    def __enter__(self) -> "Display":
        """Begin to draw."""
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing and tell what was done."""
        self._bars.stop()
        seconds = monotonic() - self._started
        end = "stopped" if kind else "done"
        self._console.print(
            f"{end} in {seconds:.1f} s: {self._num_made} made, {self._num_hits} made before"
        )

    def started(self, node: Node) -> None:
        """Add the node's line."""
        self._tasks[node.name] = self._bars.add_task(
            "starting", total=None, node=node.name, amount="", note=""
        )

    def moved(self, node: Node, progress: StageProgress) -> None:
        """Move the node's line, or print what should last."""
        if progress.is_lasting:
            self._console.print(f"note {node.name}: {progress.doing}", markup=False)
            return
        of = f"/{progress.total:,.0f}" if progress.total else ""
        amount = f"{progress.done:,.0f}{of} {progress.unit}"
        self._bars.update(
            self._tasks[node.name],
            description=progress.doing,
            completed=progress.done,
            total=progress.total,
            amount=amount,
            note=progress.note,
        )
        if not self._console.is_terminal and monotonic() - self._last_line > LINE_S:
            self._last_line = monotonic()
            self._console.print(
                f".... {node.name}: {progress.doing} {amount} {progress.note}", markup=False
            )

    def ended(self, node: Node, artifact: Artifact, *, is_hit: bool) -> None:
        """Replace the node's line by a lasting one."""
        if is_hit:
            self._num_hits += 1
            return
        self._num_made += 1
        self._bars.remove_task(self._tasks.pop(node.name))
        rows = f"{artifact.num_rows:,} rows" if artifact.record.rows is not None else ""
        dropped = sum(artifact.record.dropped.values())
        lost = f", {dropped:,} dropped" if dropped else ""
        self._console.print(
            f"made {node.name:<24} {rows + lost:<26} {artifact.record.seconds:7.1f} s",
            markup=False,
        )


def plan_table(lines: Sequence[PlannedNode]) -> Table:
    """Return a plan as a table; its last line is the remaining work."""
    table = Table(box=None, pad_edge=False)
    table.add_column("step", overflow="fold")
    table.add_column("stage", overflow="fold")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    table.add_column("bottleneck")
    for line in lines:
        last = "done" if line.is_made else _limits(line)
        table.add_row(line.node.name, line.node.stage.name, *_figures([line]), last)
    due = [line for line in lines if not line.is_made]
    if any(line.hangs_on for line in due):
        sure = [line for line in due if not line.hangs_on]
        table.add_row("remaining, certain", "", *_figures(sure), "", style="bold")
        table.add_row("remaining, at most", "", *_figures(due), "", style="bold")
    else:
        table.add_row("remaining", "", *_figures(due), "", style="bold")
    return table


def deadlines(lines: Sequence[PlannedNode], days: float) -> list[str]:
    """Return, for each step and rate-limited model, the endpoints needed to finish in time."""
    found = []
    for line in lines:
        for name, demand in line.demands.items():
            if demand.binds:
                exact = demand.endpoints_within(24 * days)
                found.append(
                    f"{line.node.name}: {max(1, math.ceil(exact))} endpoints such as {name}'s "
                    f"finish within {days:g} days ({exact:.2f}; configured: {demand.num_endpoints})"
                )
    return found


def _limits(line: PlannedNode) -> str:
    hangs = f"waiting for {', '.join(line.hangs_on)} to be decided" if line.hangs_on else ""
    return "; ".join(text for text in (hangs, line.binds) if text)


COLUMNS = ("rows", "requests", "tokens in", "tokens out", "trained", "USD", "at most", "hours")


def _figures(lines: Sequence[PlannedNode]) -> list[str]:
    calls = [calls_of(line.estimate) for line in lines]
    counts = (
        sum(line.estimate.rows for line in lines),
        sum(each.requests for each in calls),
        sum(each.prompt_tokens for each in calls),
        sum(each.response_tokens for each in calls),
        sum(line.estimate.trained_tokens for line in lines),
    )
    return [
        *(f"{count:,}" for count in counts),
        f"{sum(line.usd for line in lines):,.2f}",
        f"{sum(line.most_usd for line in lines):,.2f}",
        f"{sum(line.hours for line in lines):,.2f}",
    ]
