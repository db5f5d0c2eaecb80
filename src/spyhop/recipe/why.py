"""Why a step must run: which config field, which input or which content changed."""

from collections.abc import Iterator, Mapping
from typing import Any

from spyhop.recipe.graph import RecipeStep, parents
from spyhop.recipe.resolve import Resolved
from spyhop.stage import by_name
from spyhop.store import Artifact, Record, pointed
from spyhop.store.artifact import load

SHOWN_CHARS = 60
SHOWN_PARENTS = 3


def why(resolved: Resolved, step: RecipeStep) -> list[str]:
    """Return the reasons, the nearest first; an empty list when the step is up to date."""
    if step.name in resolved.made:
        return []
    if undecided := resolved.undecided()[step.name]:
        return [f"waiting for {', '.join(undecided)} to be decided"]
    folder = pointed(resolved.root, resolved.recipe.name, step.name)
    if folder is None:
        return ["it was never made here"]
    before = load(folder)
    if before is None:
        return ["what the last run made is gone"]
    again = [parent.name for parent in parents(step) if parent.name not in resolved.made]
    reasons = [f"{name} runs again" for name in again[:SHOWN_PARENTS]]
    if len(again) > SHOWN_PARENTS:
        reasons.append(f"so do {len(again) - SHOWN_PARENTS} other inputs")
    reasons += differences(resolved, step, before.record)
    return reasons or ["what the last run made is gone"]


def differences(resolved: Resolved, step: RecipeStep, before: Record) -> Iterator[str]:
    """Yield how a step differs from one that was made: version, settings, finished inputs."""
    if before.version != step.stage.version:
        yield f"{step.stage.name} is now version {step.stage.version}"
    yield from _changes(before.config, step.config.model_dump(mode="json"), "")
    now = resolved.inputs(step)
    labels = resolved.labels(step)
    for name, old in before.inputs.items():
        items = by_name(now[name]) if name in now else {}
        if len(items) != len(old):
            yield f"{name}: {len(old)} inputs became {len(items)}"
            continue
        for (slot, item), record in zip(items.items(), old, strict=True):
            called = labels[name][slot]
            folder = item if isinstance(item, Artifact) else item.folder
            if folder is not None and not folder.digest:
                continue  # it runs again, and says so itself
            if item.digest == record.digest:
                if step.stage.shows_names and slot != record.slot:
                    yield f"{name}: {record.slot!r} is now called {slot!r}"
            elif called != record.name:
                yield f"{name}: {called} in place of {record.name}"
            else:
                changed = "the content of " if isinstance(item, Artifact) else ""
                yield f"{name}: {changed}{called} changed"


def _changes(old: Any, new: Any, path: str) -> Iterator[str]:  # noqa: ANN401 (plain JSON)
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _changes(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _changes(one, other, f"{path}[{place}]")
    else:
        yield f"{path}: {_short(old)} became {_short(new)}"


def _short(value: Any) -> str:  # noqa: ANN401 (plain JSON)
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 3]}..."
