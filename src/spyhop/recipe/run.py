"""Run a recipe: every node at most once, independent nodes side by side."""

from collections.abc import Callable
from typing import Protocol

from spyhop.recipe.graph import Node, parents
from spyhop.recipe.resolve import Resolved
from spyhop.recipe.workers import Event, Job, Workers
from spyhop.schema import SpyhopError
from spyhop.stage import Progress, Runtime
from spyhop.store import Artifact, forget, point


class Watcher(Protocol):
    """Told how a run goes on."""

    def started(self, node: Node) -> None:
        """A node begins."""

    def moved(self, node: Node, progress: Progress) -> None:
        """A node has come further."""

    def ended(self, node: Node, artifact: Artifact, *, is_hit: bool) -> None:
        """A node is made, or was made before."""


def run(resolved: Resolved, runtime: Runtime, watcher: Watcher) -> dict[str, Artifact]:
    """Make every node of the recipe and return the artifacts by node name.

    With one worker nodes run in this process, else each in a process of its own. A run that is
    stopped at any moment, however hard, is continued by the next one.

    Raises:
        SpyhopError: The first error of a node; nodes that were running beside it are stopped.
    """
    recipe = resolved.recipe
    make = _make_here if runtime.workers == 1 else _make_beside
    make(resolved, runtime, watcher)
    forget(resolved.root, recipe.name, {node.name for node in recipe.nodes})
    return resolved.made


def _make_here(resolved: Resolved, runtime: Runtime, watcher: Watcher) -> None:
    for node in resolved.recipe.nodes:
        if hit := resolved.refresh(node):
            _end(resolved, watcher, node, hit, is_hit=True)
            continue
        watcher.started(node)
        try:
            artifact = node.stage.run(
                resolved.root,
                node.config,
                runtime=runtime,
                report=_teller(watcher, node),
                names=resolved.names(node),
                **resolved.inputs(node),
            )
        except SpyhopError as error:
            raise type(error)(f"{node.name}: {error}") from None
        resolved.made[node.name] = artifact
        _end(resolved, watcher, node, artifact, is_hit=False)


def _teller(watcher: Watcher, node: Node) -> Callable[[Progress], None]:
    return lambda progress: watcher.moved(node, progress)


def _make_beside(resolved: Resolved, runtime: Runtime, watcher: Watcher) -> None:
    waiting, due = list(resolved.recipe.nodes), list[Node]()
    nodes = {node.name: node for node in waiting}
    resolved.made.clear()
    workers = Workers(resolved.root, runtime)
    try:
        while waiting or due or workers.is_busy():
            while ready := _ready(resolved, waiting):
                for node in ready:
                    waiting.remove(node)
                    if hit := resolved.refresh(node):
                        _end(resolved, watcher, node, hit, is_hit=True)
                    else:
                        due.append(node)
            while due and workers.has_room():
                node = due.pop(0)
                watcher.started(node)
                names, inputs = resolved.names(node), resolved.inputs(node)
                workers.start(Job(node.name, node.stage, node.config, inputs, names))
            for event in workers.events():
                _take(resolved, watcher, nodes[event.node], event)
    finally:
        workers.close()


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
