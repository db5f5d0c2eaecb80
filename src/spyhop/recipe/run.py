"""Run a recipe: every step at most once, independent steps in parallel processes."""

import signal
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from spyhop.lazy import missing
from spyhop.processes import ProcessDied, WorkerProcess, WorkItem, ready
from spyhop.recipe.events import RunLog, Watch
from spyhop.recipe.graph import Recipe, RecipeStep, has_parts, models, parents
from spyhop.recipe.plan import check_extras, check_models, check_samples, plan
from spyhop.recipe.resolve import Resolved
from spyhop.runtime import Runtime, Shard
from spyhop.schema import (
    ArtifactError,
    Config,
    NotInstalled,
    RecipeError,
    SpyhopError,
    Unfinished,
)
from spyhop.stage import REPORT_S, Progress, Stage, StageInput
from spyhop.store import Artifact, canonical, forget, point, remove_parts

STOPPING = (signal.SIGTERM, signal.SIGHUP)
GRACE_S = 35.0
"""A little more than a served model waits for answers on their way."""


def run(
    resolved: Resolved,
    runtime: Runtime,
    watch: Watch = lambda event: None,
    *,
    reopen: Collection[str] = (),
    forgets: bool = True,
    shard: Shard | None = None,
) -> dict[str, Artifact]:
    """Run every step of the recipe and return the artifacts by step.

    With one worker, steps run in this process; with more, each in its own process. A run that
    was stopped in any way, even killed, is resumed by the next one.

    Args:
        resolved: The recipe in its store.
        runtime: Where and how fast to run.
        watch: Receives every event; events are also written to `runs/<name>/events.jsonl`.
        reopen: Steps to run even if they are finished: journaled replies are reused, failed
            requests are sent again. The old artifact is kept until the new one replaces it.
        forgets: Release the artifacts of steps that the recipe no longer has, so that `clean` may
            delete them.
        shard: Make only its parts of the steps that have parts and whose inputs are there. Which
            parts is a matter of numbers: shards need no lock and wait for nothing. The one that
            finds the parts of all makes the artifact. Steps without parts are made by the first
            shard, or by the one numbered 0, which has no parts.

    Raises:
        Unfinished: If a step waits for other shards, or for replies.
        RecipeError: If the runtime names a step that the recipe does not have.
        SpyhopError: The first error of a step; other running steps are stopped.
    """
    recipe = resolved.recipe
    check_steps(recipe, runtime)
    check_extras(resolved)
    part = "" if shard is None or shard.number <= 1 else f".shard-{shard.number}"
    if not part:
        check_models(resolved)
    planned_s = {line.step.name: 3600 * line.hours for line in plan(resolved)}
    log = RunLog(resolved, planned_s, watch, part)
    is_here = shard is not None or runtime.workers == 1
    make = partial(_make_here, shard=shard) if is_here else _make_beside
    try:
        make(resolved, runtime, log, reopen)
    except BaseException as error:
        log.close(error)
        raise
    log.close(None)
    if forgets and shard is None:
        forget(resolved.root, recipe.name, {step.name for step in recipe.steps})
    return resolved.made


def check_steps(recipe: Recipe, runtime: Runtime) -> None:
    """Refuse resources for a step that the recipe does not have, and samples that are equal."""
    check_samples(recipe)
    if runtime.on and (text := missing(f"on = {runtime.on!r}", "ray")):
        raise NotInstalled(text)
    known = [step.name for step in recipe.steps]
    for name in runtime.steps:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise RecipeError(f"runtime.steps.{name}: no step has this name; {hint}")


def _make_here(
    resolved: Resolved,
    runtime: Runtime,
    log: RunLog,
    reopen: Collection[str],
    shard: Shard | None = None,
) -> None:
    left: list[str] = []
    is_first = shard is None or shard.number <= 1
    for step in resolved.recipe.steps:
        if any(parent.name not in resolved.made for parent in parents(step)):
            continue  # left to other shards
        hit = resolved.refresh(step)
        if hit and step.name not in reopen:
            _end(resolved, log, step, hit, is_hit=True)
            if is_first:
                remove_parts(resolved.root, hit.name)
            continue
        if not has_parts(step) and not is_first:
            left.append(f"{step.name} (by shard 1)")
            continue
        log.started(step)
        item = _item(resolved, runtime, step, reopen, shard if has_parts(step) else None)
        try:
            artifact = item.make(resolved.root, partial(log.moved, step))
        except Unfinished as error:
            if shard is None:
                raise
            left.append(str(error))
        else:
            _end(resolved, log, step, artifact, is_hit=False)
    if left:
        raise Unfinished(f"shard {shard} has done its parts; waiting for {'; '.join(left)}")


def _item(
    resolved: Resolved,
    runtime: Runtime,
    step: RecipeStep,
    reopen: Collection[str],
    shard: Shard | None = None,
) -> "StepItem":
    return StepItem(
        step=step.name, stage=step.stage, config=step.config, inputs=resolved.inputs(step),
        runtime=runtime.of_step(step.name), origins=resolved.labels(step), served=_served(step),
        force=step.name in reopen, shard=shard,
    )  # fmt: skip


def _make_beside(
    resolved: Resolved, runtime: Runtime, log: RunLog, reopen: Collection[str]
) -> None:
    waiting, due = list(resolved.recipe.steps), list[RecipeStep]()
    steps = {step.name: step for step in waiting}
    made = resolved.made
    made.clear()
    workers = Workers(resolved.root)
    try:
        while waiting or due or workers.busy:
            while ready := [s for s in waiting if all(p.name in made for p in parents(s))]:
                for step in ready:
                    waiting.remove(step)
                    hit = resolved.refresh(step)
                    if hit and step.name not in reopen:
                        _end(resolved, log, step, hit, is_hit=True)
                    else:
                        made.pop(step.name, None)  # reopened: dependent steps wait for it
                        due.append(step)
            while len(workers.busy) < runtime.workers:
                asked = {model for item in workers.busy.values() for model in item.served}
                free = [step for step in due if asked.isdisjoint(_served(step))]
                if not free:
                    break
                due.remove(free[0])
                log.started(free[0])
                workers.start(_item(resolved, runtime, free[0], reopen))
            for name, news in workers.news():
                if isinstance(news, Exception):
                    raise news
                if isinstance(news, Progress):
                    log.moved(steps[name], news)
                else:
                    _end(resolved, log, steps[name], news, is_hit=False)
    finally:
        workers.close()


def _served(step: RecipeStep) -> frozenset[str]:
    """Return the served models of a step: a model is used by one step at a time."""
    return frozenset(
        canonical(use.config) for use in models(step).values() if use.service is not None
    )


def _end(
    resolved: Resolved, log: RunLog, step: RecipeStep, artifact: Artifact, *, is_hit: bool
) -> None:
    resolved.made[step.name] = artifact
    point(resolved.root, resolved.recipe.name, step.name, artifact)
    log.ended(step, artifact, is_hit=is_hit)


@dataclass(frozen=True, slots=True)
class StepItem(WorkItem):
    """One step to make."""

    step: str
    stage: Stage
    config: Config
    inputs: dict[str, StageInput]
    runtime: Runtime
    origins: dict[str, dict[str, str]]
    served: frozenset[str] = frozenset()
    """Served models that it asks, and may have paid."""
    force: bool = False
    """Made even if it is there."""
    shard: Shard | None = None

    def make(self, root: Path, report: Callable[[Progress], None]) -> Artifact:
        """Make the step's artifact in this process; an error names the step."""
        try:
            return self.stage.run(
                root, self.config, runtime=self.runtime, report=report, origins=self.origins,
                force=self.force, shard=self.shard, **self.inputs,
            )  # fmt: skip
        except SpyhopError as error:
            raise type(error)(f"{self.step}: {error}") from None


News = Progress | Artifact | Exception
"""Progress of a step, or its end with an artifact or an error."""


class Workers:
    """Processes of which each makes one step at a time and keeps its imports warm."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._idle: list[WorkerProcess] = []
        self.busy: dict[WorkerProcess, StepItem] = {}

    def start(self, item: StepItem) -> None:
        """Send a step to an idle worker, or to a new process."""
        if "__main__" in (item.stage.function.__module__, type(item.config).__module__):
            raise ArtifactError(
                f"{item.step}: its stage is defined in the script that runs, so worker processes "
                "cannot import it; move it to a module, or set workers = 1"
            )
        if self._idle:
            worker = self._idle.pop()
        else:
            worker = WorkerProcess("spyhop.recipe.run:serve")
            worker.send(self._root)
        worker.send(item)
        self.busy[worker] = item

    def news(self) -> Iterator[tuple[str, News]]:
        """Wait for news of the running steps and yield them by step, if any step runs."""
        for worker in ready(list(self.busy)):
            step = self.busy[worker].step
            try:
                news: News = worker.receive()
            except ProcessDied as error:
                text = f"{step}: worker process died ({error}); rerun to resume"
                news = ArtifactError(text)
                del self.busy[worker]
            else:
                if not isinstance(news, Progress):
                    del self.busy[worker]
                    self._idle.append(worker)
            yield step, news

    def close(self) -> None:
        """End all processes, whatever they are doing: their work can be resumed.

        Those that ask served models first wait for the replies in flight.
        """
        asking = [worker for worker, item in self.busy.items() if item.served]
        for worker in asking:
            worker.terminate()
        for worker in asking:
            worker.kill(GRACE_S)
        for worker in [*self._idle, *self.busy]:
            worker.kill()


def serve(receive: Callable[[], Any], send: Callable[[News], None]) -> None:
    """Make one step after the other; the first message is the store."""
    for number in STOPPING:
        signal.signal(number, _stop)
    root: Path = receive()
    last_s = 0.0

    def report(progress: Progress) -> None:
        """Send progress to the run, seldom enough to cost nothing."""
        nonlocal last_s
        now = monotonic()
        if progress.is_lasting or now - last_s >= REPORT_S:
            last_s = now
            send(progress)

    with suppress(KeyboardInterrupt):  # told to stop: the replies in flight are in the journal now
        while True:
            item: StepItem = receive()
            last_s = 0.0
            try:
                send(item.make(root, report))
            except SpyhopError as error:
                send(error)
            except Exception:  # noqa: BLE001 (the edge of a process: the traceback crosses as text)
                send(RuntimeError(f"{item.step}:\n{traceback.format_exc()}"))


def _stop(number: int, frame: object) -> None:
    """Unwind the work in progress, as Ctrl-C does in a run of one process."""
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
