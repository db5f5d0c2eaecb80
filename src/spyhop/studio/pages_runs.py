"""Runs: the list, a live run as its graph, and what an edit of its recipe would cost."""

import asyncio
import shlex
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from spyhop.schema import InputError
from spyhop.store import RUNS, pointed
from spyhop.studio.helper import ask
from spyhop.studio.runs import RunDescription, RunState, describe
from spyhop.studio.site import event, fragment, page, site_of

nav = [("Runs", "/")]
LOOK_S = 1.0
PARTS = ("figures", "graph", "notes")


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
    folder = site.run(store, name)
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
