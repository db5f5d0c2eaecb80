"""Run a recipe: every node at most once, independent nodes side by side."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Protocol

from spyhop.recipe.graph import Node, Recipe, models, parents
from spyhop.recipe.resolve import Resolved
from spyhop.recipe.workers import Event, NodeItem, Workers
from spyhop.runtime import Runtime
from spyhop.schema import RecipeError, SpyhopError
from spyhop.stage import Progress
from spyhop.store import Artifact, canonical, forget, point


class Watcher(Protocol):
    """Told how a run goes on."""

    def started(self, node: Node) -> None:
        """A node begins."""

    def moved(self, node: Node, progress: Progress) -> None:
        """A node has come further."""

    def ended(self, node: Node, artifact: Artifact, *, is_hit: bool) -> None:
        """A node is made, or was made before."""


NONE: frozenset[str] = frozenset()


def run(
    resolved: Resolved,
    runtime: Runtime,
    watcher: Watcher,
    *,
    reopen: frozenset[str] = NONE,
    forgets: bool = True,
) -> dict[str, Artifact]:
    """Make every node of the recipe and return the artifacts by node name.

    With one worker nodes run in this process, else each in a process of its own. A run that is
    stopped at any moment, however hard, is continued by the next one.

    The nodes named in `reopen` are made even if they are finished: the journal answers what it
    holds, and since failures are never replayed, what failed is asked anew. The old artifact stays
    until the new one replaces it.

    With `forgets`, nodes of an earlier run that the recipe no longer has are not needed by it
    any more, so that cleaning may free them.

    Raises:
        RecipeError: If the runtime names a step that the recipe does not have.
        SpyhopError: The first error of a node; nodes that were running beside it are stopped.
    """
    recipe = resolved.recipe
    check_steps(recipe, runtime)
    make = _make_here if runtime.workers == 1 else _make_beside
    make(resolved, runtime, watcher, reopen)
    if forgets:
        forget(resolved.root, recipe.name, {node.name for node in recipe.nodes})
    return resolved.made


def check_steps(recipe: Recipe, runtime: Runtime) -> None:
    """Refuse resources for a step that the recipe does not have.

    Raises:
        RecipeError: Naming a step that is like it, or all.
    """
    known = [node.name for node in recipe.nodes]
    for name in runtime.steps:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise RecipeError(f"runtime.steps.{name}: no step has this name; {hint}")


def _make_here(
    resolved: Resolved, runtime: Runtime, watcher: Watcher, reopen: frozenset[str]
) -> None:
    for node in resolved.recipe.nodes:
        hit, force = resolved.refresh(node), node.name in reopen
        if hit and not force:
            _end(resolved, watcher, node, hit, is_hit=True)
            continue
        watcher.started(node)
        try:
            artifact = node.stage.run(
                resolved.root,
                node.config,
                runtime=runtime.of_step(node.name),
                report=_teller(watcher, node),
                origins=resolved.labels(node),
                force=force,
                **resolved.inputs(node),
            )
        except SpyhopError as error:
            raise type(error)(f"{node.name}: {error}") from None
        resolved.made[node.name] = artifact
        _end(resolved, watcher, node, artifact, is_hit=False)


def _teller(watcher: Watcher, node: Node) -> Callable[[Progress], None]:
    return lambda progress: watcher.moved(node, progress)


def _make_beside(
    resolved: Resolved, runtime: Runtime, watcher: Watcher, reopen: frozenset[str]
) -> None:
    waiting, due = list(resolved.recipe.nodes), list[Node]()
    nodes = {node.name: node for node in waiting}
    resolved.made.clear()
    workers = Workers(resolved.root, runtime.workers)
    try:
        while waiting or due or workers.is_busy():
            while ready := _ready(resolved, waiting):
                for node in ready:
                    waiting.remove(node)
                    hit = resolved.refresh(node)
                    if hit and node.name not in reopen:
                        _end(resolved, watcher, node, hit, is_hit=True)
                    else:
                        resolved.made.pop(node.name, None)  # a reopened one: children wait for it
                        due.append(node)
            while workers.has_room() and (found := _next(due, workers)):
                node = found
                due.remove(node)
                watcher.started(node)
                item = NodeItem(
                    node=node.name,
                    stage=node.stage,
                    config=node.config,
                    inputs=resolved.inputs(node),
                    runtime=runtime.of_step(node.name),
                    origins=resolved.labels(node),
                    served=_served(node),
                    force=node.name in reopen,
                )
                workers.start(item)
            for event in workers.events():
                _take(resolved, watcher, nodes[event.node], event)
    finally:
        workers.close()


def _next(due: list[Node], workers: Workers) -> Node | None:
    """Return the first node that asks no served model which another one is asking now."""
    busy = workers.served()
    return next((node for node in due if not _served(node) & busy), None)


def _served(node: Node) -> frozenset[str]:
    """Return the served models that a node asks: each has one owner at a time."""
    return frozenset(
        canonical(use.config) for use in models(node).values() if use.service is not None
    )


def _ready(resolved: Resolved, waiting: list[Node]) -> list[Node]:
    return [
        node for node in waiting if all(parent.name in resolved.made for parent in parents(node))
    ]


def _take(resolved: Resolved, watcher: Watcher, node: Node, event: Event) -> None:
    if event.error is not None:
        raise event.error
    if event.progress is not None:
        watcher.moved(node, event.progress)
    if event.artifact is not None:
        resolved.made[node.name] = event.artifact
        _end(resolved, watcher, node, event.artifact, is_hit=False)


def _end(
    resolved: Resolved, watcher: Watcher, node: Node, artifact: Artifact, *, is_hit: bool
) -> None:
    point(resolved.root, resolved.recipe.name, node.name, artifact)
    watcher.ended(node, artifact, is_hit=is_hit)
