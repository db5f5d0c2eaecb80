"""Runs: the list, a live run as its graph, and what an edit of its recipe would cost."""

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Mapping
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
from spyhop.studio.runs import RunState
from spyhop.studio.site import event, fragment, page, site_of

nav = [("Runs", "/")]
LOOK_S = 1.0
BOX, GAP = (168, 40), (44, 14)
"""Width and height of a step in the graph, and the distance between two."""


def runs(request: Request) -> Response:
    """List the runs of every store, the newest first."""
    site = site_of(request)
    found = []
    for store, root in site.stores.items():
        for folder in (root / RUNS).glob("*/"):
            state = RunState(folder).describe()
            num = sum(each.is_symlink() for each in folder.iterdir())
            found.append((store, state, num))
    found.sort(key=lambda each: str(each[1].described.get("started", "")), reverse=True)
    return page(request, "runs.html", runs=found)


def run(request: Request) -> Response:
    """Show a run."""
    return page(request, "run.html", **_view(request))


async def events(request: Request) -> Response:
    """Send the parts of a run's page that changed, until the page is closed."""
    site_of(request).run(request.path_params["store"], request.path_params["run"])

    async def parts() -> AsyncIterator[str]:
        sent: dict[str, str] = {}
        said = ""
        while True:
            view = await run_sync(_view, request)
            html = {
                "figures": fragment(request, "run_figures.html", **view),
                "graph": fragment(request, "run_graph.html", **view),
                "notes": fragment(request, "run_notes.html", **view),
            } | {
                f"step-{place}": fragment(request, "run_step.html", place=place, step=step, **view)
                for place, step in enumerate(view["steps"])
            }
            for name, text in html.items():
                if sent.get(name) != text:
                    sent[name] = text
                    yield event("part", text)
            state = view["run"].state
            if said and said != state:
                yield event("say", f"The run is {state}.")
            said = state
            yield ": still here\n\n"
            await asyncio.sleep(LOOK_S)

    return StreamingResponse(parts(), media_type="text/event-stream")


def edit(request: Request) -> Response:
    """Show what the recipe's file, as it is now, would run again, and what that takes."""
    store, name = request.path_params["store"], request.path_params["run"]
    folder = site_of(request).run(store, name)
    root = site_of(request).store(store)
    recipe, changes = _recipe(RunState(folder).describe().described, root, name)
    lines = ask("plan", recipe, changes, root)
    return page(request, "run_edit.html", lines=lines, recipe=recipe, store=store, name=name)


def _recipe(described: Mapping[str, Any], root: Path, name: str) -> tuple[Path, list[str]]:
    """Return the recipe file of a run and its `--set` changes, from the command that started it."""
    words = shlex.split(str(described.get("command", "")))
    if words[1:2] == ["run"] and len(words) > 2:
        files = [word for word in words[2:] if word.endswith(".toml") or not word.startswith("-")]
        changes = [value for flag, value in pairwise(words) if flag == "--set"]
        path = Path(str(described.get("folder", "."))) / Path(files[0]).expanduser()
        if path.is_file():
            return path, changes
    if (path := root / f"{name}.toml").is_file():
        return path, []
    raise InputError(
        f"{name}: its recipe file is not found; only runs of a recipe file can be planned"
    )


def _view(request: Request) -> dict[str, Any]:
    store, name = request.path_params["store"], request.path_params["run"]
    site = site_of(request)
    folder, root = site.run(store, name), site.store(store)
    state: RunState = site.keep(("run", str(folder)), lambda: RunState(folder)).look()
    links = {each: pointed(root, name, each) for each in state.steps}
    steps = [*state.steps.values()]
    usage = [each.event.usage if each.event else {} for each in steps]
    spent = sum(each.get("usd", 0.0) for each in usage)
    projected = sum(
        each.get("usd", 0.0) / (step.frac or 1.0) for each, step in zip(usage, steps, strict=True)
    )
    errors: dict[str, int] = {}
    limits = {}
    for step in steps:
        for kind, num in (step.event.errors if step.event else {}).items():
            errors[kind] = errors.get(kind, 0) + num
        if step.state == "running" and step.event:
            shares = re.findall(r"([a-z][\w /]*?) (\d+)%", step.event.detail)
            limits |= {f"{step.name}: {limit}": int(share) / 100 for limit, share in shares}
    return {
        "store": store, "name": name, "run": state, "steps": steps, "spent": spent,
        "projected": projected, "errors": errors, "limits": limits,
        "links": {each: link.name for each, link in links.items() if link},
        "graph": _graph(state), "tokens": sum(_tokens(each) for each in usage),
    }  # fmt: skip


def _tokens(usage: Mapping[str, float]) -> float:
    return (
        usage.get("tokens", 0.0)
        + usage.get("prompt_tokens", 0.0)
        + usage.get("response_tokens", 0.0)
    )


def _graph(run: RunState) -> dict[str, Any]:
    """Return the place of each step, in columns from sources to results, and the lines between."""
    described = {each["name"]: each for each in run.described.get("steps", [])}
    names = [each for each in run.steps if each in described] or [*run.steps]
    parents = {}
    for name in names:
        labels = [
            label for some in described.get(name, {}).get("inputs", {}).values() for label in some
        ]
        inner = [re.sub(r".*\((.*)\)$", r"\1", str(label)) for label in labels]
        parents[name] = [
            each for each in dict.fromkeys(inner) if each in run.steps and each != name
        ]
    layer: dict[str, int] = {}
    for name in names:  # in an order in which they can run
        layer[name] = 1 + max((layer.get(each, 0) for each in parents[name]), default=-1)
    places, filled = {}, dict[int, int]()
    for name in names:
        row = filled.get(layer[name], 0)
        filled[layer[name]] = row + 1
        places[name] = (layer[name] * (BOX[0] + GAP[0]) + 4, row * (BOX[1] + GAP[1]) + 4)
    lines = [
        (places[each][0] + BOX[0], places[each][1] + BOX[1] // 2, x, y + BOX[1] // 2)
        for name, (x, y) in places.items() for each in parents[name] if each in places
    ]  # fmt: skip
    width = (max(layer.values(), default=0) + 1) * (BOX[0] + GAP[0])
    height = max(filled.values(), default=0) * (BOX[1] + GAP[1]) + 4
    return {"places": places, "lines": lines, "width": width, "height": height, "box": BOX}


routes = [
    Route("/", runs),
    Route("/runs/{store}/{run}", run),
    Route("/runs/{store}/{run}/events", events),
    Route("/runs/{store}/{run}/edit", edit),
]
