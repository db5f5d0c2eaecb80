"""Runs: the list, a live run as its graph, and what an edit of its recipe would cost.

A file of events may be large, grow while it is read, end in the middle of a line, and contain the
events of two runs at once. It is read once and then from where the last reading ended, in blocks of
whole lines; of the progress that a step reports in a block, only the last is parsed.
"""

import asyncio
import os
import re
import shlex
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from anyio.to_thread import run_sync
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from spyhop.recipe.events import EVENTS, RUN, Outlook, RunEvent, when
from spyhop.recipe.graph import NAME
from spyhop.schema import InputError
from spyhop.store import RUNS, pointed
from spyhop.store.atomic import is_alive
from spyhop.studio.helper import ask
from spyhop.studio.site import event, fragment, page, site_of

nav = [("Runs", "/")]
LOOK_S = 1.0
PARTS = ("figures", "graph", "notes")
BLOCK, MOST_READ, MOST_NOTES = 8 << 20, 128 << 20, 40
"""Bytes of a block, bytes that one look reads at most, and notes that are kept."""
_KIND = re.compile(rb'^.*?"kind":"([a-z_]+)"(?:,"step":"([^"]*)")?.*$', re.MULTILINE)


class StepDescription(BaseModel):
    """A step as `run.json` describes it."""

    name: str
    inputs: dict[str, list[str]] = {}


class RunDescription(BaseModel):
    """What `run.json` says of the last run."""

    state: str = "stopped"
    command: str = ""
    folder: str = "."
    pid: int = 0
    started: str = ""
    error: str = ""
    steps: list[StepDescription] = []


def describe(folder: Path) -> RunDescription:
    """Read `run.json`; a missing or damaged one is an empty description."""
    try:
        found = RunDescription.model_validate_json((folder / RUN).read_bytes())
    except (OSError, ValidationError):
        return RunDescription()
    is_gone = found.state == "running" and not (found.pid > 0 and is_alive(found.pid))
    return found.model_copy(update={"state": "stopped"}) if is_gone else found


@dataclass(slots=True)
class StepState:
    """A step of the last run."""

    name: str
    state: str = "waiting"
    event: RunEvent | None = None
    """Its last progress, or its end."""
    recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=12))
    """Time and amount of its last reports."""

    @property
    def frac(self) -> float:
        """Share of its current activity that is done."""
        total = self.event.total if self.event and self.state == "running" else None
        return min(1.0, self.event.done / total) if self.event and total else 0.0


class RunState:
    """The last run in a folder of `runs`, up to the events that were read."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock, self._file = folder, threading.Lock(), (0, 0)
        self.described, self.offset, self.size = RunDescription(), 0, 0
        self._begin(RunEvent(kind="run_started"))

    def _begin(self, event: RunEvent) -> None:
        self.steps = {name: StepState(name) for name in event.planned_s}
        self.notes = deque[RunEvent](maxlen=MOST_NOTES)
        self.ended: RunEvent | None = None
        self.outlook = Outlook()
        self.outlook.take(event)

    def look(self) -> "RunState":
        """Read what was written since the last look."""
        with self._lock:
            self.described = describe(self._folder)
            try:
                with (self._folder / EVENTS).open("rb") as stream:
                    self._read(stream)
            except OSError:
                self.size = 0
        return self

    @property
    def state(self) -> str:
        """State of the run: running, done, failed or stopped."""
        return self.ended.state if self.ended is not None else self.described.state

    def _read(self, stream: BinaryIO) -> None:
        stat = os.fstat(stream.fileno())
        if (stat.st_dev, stat.st_ino) != self._file or stat.st_size < self.offset:
            self._file, self.offset = (stat.st_dev, stat.st_ino), 0
            self._begin(RunEvent(kind="run_started"))
        self.size, stop = stat.st_size, self.offset + MOST_READ
        stream.seek(self.offset)
        while self.offset < stop and (block := stream.read(BLOCK)):
            whole = block.rfind(b"\n") + 1 or (len(block) if len(block) == BLOCK else 0)
            for line in _worth_reading(block[:whole]):
                self._take(line)
            self.offset += whole
            stream.seek(self.offset)
            if not whole:
                break  # a line that is still written, or was cut

    def _take(self, line: bytes) -> None:
        try:
            event = RunEvent.model_validate_json(line)
        except ValidationError:
            return  # cut by a kill, or of a later version
        if event.kind == "run_started":
            self._begin(event)
            return
        self.outlook.take(event)
        if event.kind == "note":
            self.notes.append(event)
        elif event.kind == "run_ended":
            self.ended = event
            for each in self.steps.values():
                each.state = event.state if each.state == "running" else each.state
        elif step := self.steps.get(event.step):
            if event.kind == "step_ended":
                step.state = "reused" if event.is_reused else "done"
            else:
                step.state = "running"
                if step.event is None or step.event.text != event.text:
                    step.recent.clear()
                step.recent.append((when(event), event.done))
            step.event = event


def _worth_reading(block: bytes) -> Iterator[bytes]:
    """Yield the lines of events; of the progress of a step between others, only the last."""
    latest: dict[bytes, bytes] = {}
    for found in _KIND.finditer(block):
        if found[1] == b"progress":
            latest[found[2]] = found[0]
        else:
            yield from (*latest.values(), found[0])
            latest.clear()
    yield from latest.values()


def runs(request: Request) -> Response:
    """List the runs of every store, the newest first."""
    found = [
        (store, folder.name, describe(folder), sum(link.is_symlink() for link in folder.iterdir()))
        for store, root in site_of(request).stores.items()
        for folder in (root / RUNS).glob("*/")
    ]
    found.sort(key=lambda each: each[2].started, reverse=True)
    return page(request, "runs.html", runs=found)


def run(request: Request) -> Response:
    """Show a run."""
    return page(request, "run.html", **_view(request))


async def events(request: Request) -> Response:
    """Send the parts of a run's page that changed, until the page is closed."""
    await run_sync(_view, request)  # a run that there is not is an error page

    async def parts() -> AsyncIterator[str]:
        sent, said = dict[str, str](), ""
        while True:
            view = await run_sync(_view, request)
            html = {name: fragment(request, f"run_{name}.html", **view) for name in PARTS}
            for place, step in enumerate(view["steps"]):
                row = fragment(request, "run_step.html", place=place, step=step, **view)
                html[f"step-{place}"] = row
            for name, text in html.items():
                if sent.get(name) != text:
                    sent[name] = text
                    yield event("part", text)
            state = view["run"].state
            yield event("say", f"The run is {state}.") if said not in ("", state) else ":\n\n"
            said = state
            await asyncio.sleep(LOOK_S)

    return StreamingResponse(parts(), media_type="text/event-stream")


def edit(request: Request) -> Response:
    """Show what the recipe's file, as it is now, would run again, and what that takes."""
    view = _view(request)
    root = site_of(request).store(view["store"])
    recipe, changes = _recipe(view["run"].described, root / f"{view['name']}.toml")
    lines = ask("plan", recipe, changes, root)
    return page(request, "run_edit.html", lines=lines, recipe=recipe, **view)


def _recipe(described: RunDescription, beside: Path) -> tuple[Path, list[str]]:
    """Return the recipe file of a run and its `--set` changes, from the command that started it."""
    words = shlex.split(described.command)
    paths = [Path(described.folder) / word for word in words[2:] if word.endswith(".toml")]
    if words[1:2] == ["run"] and paths and paths[0].is_file():
        return paths[0], [value for flag, value in pairwise(words) if flag == "--set"]
    if beside.is_file():
        return beside, []
    raise InputError(f"the recipe's file is not found; `{described.command:.200}` has no file")


def _view(request: Request) -> dict[str, Any]:
    site, store = site_of(request), request.path_params["store"]
    name, root = request.path_params["run"], site.store(store)
    folder = root / RUNS / name
    if not NAME.fullmatch(name) or not folder.is_dir():
        raise HTTPException(404, f"{store} has no run {name:.100}.")
    state: RunState = site.keep(("run", str(folder)), lambda: RunState(folder)).look()
    links = {step: link.name for step in state.steps if (link := pointed(root, name, step))}
    steps = [*state.steps.values()]
    return {"store": store, "name": name, "run": state, "steps": steps, "links": links}


routes = [
    Route("/", runs),
    Route("/runs/{store}/{run}", run),
    Route("/runs/{store}/{run}/events", events),
    Route("/runs/{store}/{run}/edit", edit),
]
