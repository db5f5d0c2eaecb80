"""Records, rows, and rows as a model is trained on them, readable in a terminal."""

import glob
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from spyhop.models.folder import load_tokenizer
from spyhop.models.local import pick_format
from spyhop.recipe.events import RUN
from spyhop.recipe.graph import Recipe
from spyhop.recipe.resolve import resolve
from spyhop.render import Renderer, TrainOn
from spyhop.schema import ArtifactError, InputError
from spyhop.store import RUNS, Artifact
from spyhop.store.artifact import load
from spyhop.train.encoding import Encoding, MaskedRow, encode_rows, masked_row

LONG_CHARS = 2000
TARGET, CONTEXT, SPECIAL = "black on green", "dim", "bold magenta"
SPECIAL_TARGET = "bold magenta on green"


def find_artifact(root: Path, name: str, recipe: Recipe | None) -> Artifact:
    """Return an artifact by its folder's name, by a step of the runs in `root`, or of a recipe."""
    if recipe is not None:
        recipe.step(name)
        made = resolve(recipe, root).made.get(name)
        if made is None:
            raise ArtifactError(f"{name} has not run yet in {root}; `spyhop run` runs it")
        return made
    links = [path for path in (root / RUNS).glob(f"*/{glob.escape(name)}") if load(path)]
    if len({path.resolve() for path in links}) > 1:
        names = ", ".join(sorted(f"`spyhop show {path}`" for path in links))
        raise ArtifactError(f"{name}: {len(links)} runs have a step of this name; use {names}")
    for path in (root / name, *links):
        if (found := load(path)) is not None:
            return Artifact(path.resolve(), found.record)
    raise ArtifactError(f"{name}: no finished artifact of that name in {root}")


def read_folder(folder: Path) -> Artifact | list[dict[str, Any]]:
    """Return the artifact that a folder is; else its runs: of an output folder all, of a run one.

    A run has `name`, `path`, `state`, `started` and `steps`, each with `name`, `path`, `stage` and
    `rows`; the stage of a deleted step is null, as are the rows of a folder of files.
    """
    if (found := load(folder)) is not None:
        return Artifact(folder.resolve(), found.record)
    if (folder / RUNS).is_dir():
        return [_read_run(path) for path in sorted((folder / RUNS).iterdir()) if path.is_dir()]
    if folder.resolve().parent.name == RUNS:
        return [_read_run(folder)]
    raise ArtifactError(
        f"{folder}: neither an artifact, nor a run, nor an output folder; name a step, such as "
        f"{Path('spyhop-out') / RUNS}/<run>/<step>"
    )


def _read_run(run: Path) -> dict[str, Any]:
    try:
        about = json.loads((run / RUN).read_text())
        state = {"state": about["state"], "started": about["started"]}
    except (OSError, ValueError, KeyError, TypeError):
        state = {"state": None, "started": None}  # of an earlier version, or damaged
    steps = []
    for link in sorted(path for path in run.iterdir() if path.is_symlink()):
        record = None if (step := load(link)) is None else step.record
        figures = {"stage": record and record.stage, "rows": record and record.rows}
        steps.append({"name": link.name, "path": str(link), **figures})
    return {"name": run.name, "path": str(run), **state, "steps": steps}


def run_lines(runs: Sequence[Mapping[str, Any]], *, has_steps: bool) -> Iterator[str]:
    """Yield a line for each run, and for each of its steps."""
    for run in runs:
        started = f"{run['state']}, started {run['started'][:19]}, " if run["state"] else ""
        path = "" if has_steps else f"{run['path']}  "
        yield f"{path}{started}{len(run['steps'])} finished steps"
        for step in run["steps"] if has_steps else ():
            rows = "files" if step["rows"] is None else f"{step['rows']:,} rows"
            figures = f"{step['stage']}  {rows}" if step["stage"] else "deleted"
            yield f"{step['path']}  {figures}"


def artifact_values(artifact: Artifact, num_rows: int, *, dropped: bool) -> dict[str, Any]:
    """Return the record and the first rows as plain data."""
    record = artifact.record.model_dump(exclude={"files"})
    rows = list(_first_rows(artifact, num_rows, dropped=dropped))
    return {"name": artifact.name, "path": str(artifact.path), **record, "first_rows": rows}


def _first_rows(artifact: Artifact, num_rows: int, *, dropped: bool) -> Iterator[dict[str, Any]]:
    lost = ({"reason": reason, **json.loads(row)} for reason, row in artifact.dropped())
    kept = (row for batch in artifact.batches() for row in batch.to_pylist())
    return islice(lost if dropped else kept, num_rows)


def show_rows(artifact: Artifact, num_rows: int, console: Console, *, dropped: bool) -> None:
    """Print the record's main figures and the first rows."""
    record = artifact.record
    console.print(f"{artifact.path.name}  ({record.rows or 0} rows, {record.seconds:.1f} s)")
    for name in ("counts", "dropped", "usage"):
        if values := getattr(record, name):
            digits = {key: 0 if float(value).is_integer() else 4 for key, value in values.items()}
            figures = ", ".join(f"{key} {values[key]:,.{num}f}" for key, num in digits.items())
            console.print(f"  {name}: {figures}", markup=False)
    for row in _first_rows(artifact, num_rows, dropped=dropped):
        console.rule()
        for column, value in row.items():
            if column == "messages":
                for turn in value:
                    console.print(f"[{turn['role']}]", markup=False, style="bold")
                    console.print(turn["content"][:LONG_CHARS], markup=False)
            elif value not in (None, "", []):
                console.print(f"{column}: {value!s:.{LONG_CHARS}}", markup=False)


def show_mask(
    artifact: Artifact,
    num_rows: int,
    console: Console,
    *,
    model: Path,
    chat_format: str = "saved",
    train_on: TrainOn = "all",
) -> None:
    """Print the first rows of answers as they are trained on.

    Supervised tokens are on green, context is dim, special tokens are magenta. Without colour,
    supervised tokens are between `[[` and `]]`.
    """
    columns = {"id", "messages"}
    if not all(columns <= set(batch.schema.names) for batch in islice(artifact.batches(), 1)):
        raise InputError(f"{artifact.path.name}: its rows have no `messages`; nothing to mask")
    tokenizer = load_tokenizer(model)
    renderer = Renderer(tokenizer, pick_format(chat_format, model, tokenizer))
    encoding = Encoding(renderer, max_tokens=sys.maxsize, train_on=train_on)
    has_colour = bool(console.color_system)
    legend = Text.assemble(
        ("supervised tokens", TARGET), ", ", ("context", CONTEXT), ", ", ("special tokens", SPECIAL)
    )
    console.print(legend if has_colour else "[[supervised tokens]] and context", markup=False)
    values = (row for b in artifact.batches() for row in b.to_pylist(maps_as_pydicts="strict"))
    for made in encode_rows(encoding, list(islice(values, num_rows))):
        console.rule()
        name = made.row.id
        if not made.sequences:
            reason = made.detail or made.reason
            console.print(f"{name}: {reason}; not trained on", markup=False)
            continue
        for each in made.sequences:
            shown = masked_row(name, each.ids, each.is_supervised, renderer)
            num = f"{len(shown.pieces):,} tokens, {shown.num_supervised:,} of them supervised"
            console.print(f"{name}: {num}", style="bold")
            console.print(_coloured(shown, has_colour=has_colour))


def _coloured(row: MaskedRow, *, has_colour: bool) -> Text:
    text = Text()
    was_supervised = False
    for (is_supervised, is_special), some in groupby(row.pieces, key=itemgetter(1, 2)):
        if not has_colour and is_supervised != was_supervised:
            text.append("[[" if is_supervised else "]]")
        was_supervised = is_supervised
        style = TARGET if is_supervised else CONTEXT
        if is_special:
            style = SPECIAL_TARGET if is_supervised else SPECIAL
        text.append("".join(piece.text for piece in some), style)
    if not has_colour and was_supervised:
        text.append("]]")
    return text
