"""Run a recipe: every step at most once, independent steps in parallel."""

from collections.abc import Callable
from difflib import get_close_matches

from spyhop.recipe.events import RunLog, Watch
from spyhop.recipe.graph import Node, Recipe, Use, parents, refs
from spyhop.recipe.plan import plan
from spyhop.recipe.resolve import Resolved
from spyhop.recipe.workers import Event, NodeItem, Workers
from spyhop.runtime import Runtime
from spyhop.schema import RecipeError, SpyhopError
from spyhop.stage import Progress
from spyhop.store import Artifact, canonical, forget, point

NONE: frozenset[str] = frozenset()


def run(
    resolved: Resolved,
    runtime: Runtime,
    watch: Watch = lambda event: None,
    *,
    reopen: frozenset[str] = NONE,
    forgets: bool = True,
) -> dict[str, Artifact]:
    """Run every step of the recipe and return the artifacts by step.

    With one worker, steps run in this process; with more, each in a process of its own. A run that
    was stopped in any way, even killed, is resumed by the next one.

    Args:
        resolved: The recipe in its store.
        runtime: Where and how fast to run.
        watch: Receives every event; events are also written to `runs/<name>/events.jsonl`.
        reopen: Steps to run even if they are finished: journaled replies are reused, failed
            requests are sent again. The old artifact is kept until the new one replaces it.
        forgets: Release the artifacts of steps that the recipe no longer has, so that `clean` may
            delete them.

    Raises:
        RecipeError: If the runtime names a step that the recipe does not have.
        SpyhopError: The first error of a step; other running steps are stopped.
    """
    recipe = resolved.recipe
    check_steps(recipe, runtime)
    planned_s = {line.node.name: 3600 * line.hours for line in plan(resolved)}
    log = RunLog(resolved, planned_s, watch)
    make = _make_here if runtime.workers == 1 else _make_beside
    try:
        make(resolved, runtime, log, reopen)
    except BaseException as error:
        log.close(error)
        raise
    log.close(None)
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


def _make_here(resolved: Resolved, runtime: Runtime, log: RunLog, reopen: frozenset[str]) -> None:
    for node in resolved.recipe.nodes:
        hit, is_again = resolved.refresh(node), node.name in reopen
        if hit and not is_again:
            _end(resolved, log, node, hit, is_hit=True)
            continue
        log.started(node)
        try:
            artifact = node.stage.run(
                resolved.root,
                node.config,
                runtime=runtime.of_step(node.name),
                report=_teller(log, node),
                names=resolved.names(node),
                is_again=is_again,
                **resolved.inputs(node),
            )
        except SpyhopError as error:
            raise type(error)(f"{node.name}: {error}") from None
        resolved.made[node.name] = artifact
        _end(resolved, log, node, artifact, is_hit=False)


def _teller(log: RunLog, node: Node) -> Callable[[Progress], None]:
    return lambda progress: log.moved(node, progress)


def _make_beside(resolved: Resolved, runtime: Runtime, log: RunLog, reopen: frozenset[str]) -> None:
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
                        _end(resolved, log, node, hit, is_hit=True)
                    else:
                        resolved.made.pop(node.name, None)  # reopened: dependent steps wait for it
                        due.append(node)
            while workers.has_room() and (found := _next(due, workers)):
                node = found
                due.remove(node)
                log.started(node)
                item = NodeItem(
                    node=node.name,
                    stage=node.stage,
                    config=node.config,
                    inputs=resolved.inputs(node),
                    runtime=runtime.of_step(node.name),
                    names=resolved.names(node),
                    served=_served(node),
                    is_again=node.name in reopen,
                )
                workers.start(item)
            for event in workers.events():
                _take(resolved, log, nodes[event.node], event)
    finally:
        workers.close()


def _next(due: list[Node], workers: Workers) -> Node | None:
    """Return the first step whose served models no running step uses."""
    busy = workers.served()
    return next((node for node in due if not _served(node) & busy), None)


def _served(node: Node) -> frozenset[str]:
    """Return the served models of a step: a model is used by one step at a time."""
    uses = [ref for ref in refs(node) if isinstance(ref, Use) and ref.service is not None]
    return frozenset(canonical(use.config) for use in uses)


def _ready(resolved: Resolved, waiting: list[Node]) -> list[Node]:
    return [
        node for node in waiting if all(parent.name in resolved.made for parent in parents(node))
    ]


def _take(resolved: Resolved, log: RunLog, node: Node, event: Event) -> None:
    if event.error is not None:
        raise event.error
    if event.progress is not None:
        log.moved(node, event.progress)
    if event.artifact is not None:
        resolved.made[node.name] = event.artifact
        _end(resolved, log, node, event.artifact, is_hit=False)


def _end(resolved: Resolved, log: RunLog, node: Node, artifact: Artifact, *, is_hit: bool) -> None:
    point(resolved.root, resolved.recipe.name, node.name, artifact)
    log.ended(node, artifact, is_hit=is_hit)
