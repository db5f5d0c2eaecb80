"""A finished run as others can repeat it: pushed to the Hugging Face hub, and compared again.

A published folder has `spyhop/run.json` (the record), `spyhop/recipe.toml` (the settings), and the
settings files that the recipe names, such as those of teachers.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from spyhop.lazy import library
from spyhop.recipe.events import RUN
from spyhop.recipe.resolve import Resolved
from spyhop.recipe.why import differences
from spyhop.schema import InputError
from spyhop.settings import read_toml, to_toml
from spyhop.statistics import wilson
from spyhop.store import Artifact, Record
from spyhop.store.artifact import LOGS, RECORD, digests, load
from spyhop.text.template import write_markdown
from spyhop.train.release import totals

FOLDER, RECIPE = "spyhop", "recipe.toml"
CARD, SUMS = "README.md", "SHA256SUMS"
MEASURE, DATASET = "evaluate.measure", "report.dataset"
KINDS = {"train.release": "model", DATASET: "dataset"}
"""Stages whose folders are pushed, and the kind of their repository."""
GOOD = ("same", "not run", "within interval")
"""States of steps and scores that no repetition has to explain."""
_PLACE = re.compile(r"(^|\()/.*/")


class PublishedRun(BaseModel):
    """The steps of a finished run in the order of the recipe, without pages: they state dates."""

    model_config = ConfigDict(frozen=True)

    spyhop: str
    recipe: str
    name: str
    steps: dict[str, Record]
    """Inputs from outside are called by the names of their files."""
    scores: dict[str, dict[str, tuple[int, int]]]
    """Right answers and items by step and benchmark."""


def publish(folder: Path) -> tuple[PublishedRun, dict[str, str]]:
    """Return the record of a run's folder, and its settings files by their path in `FOLDER`.

    Raises:
        InputError: If the run is not finished, or its settings are not known.
    """
    try:
        about = json.loads((folder / RUN).read_text())
        tables, names = about["settings"], [step["name"] for step in about["steps"]]
        is_done = about["state"] == "done"
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder}: no run (runs/<name> of an output folder)") from None
    made = {name: artifact for name in names if (artifact := load(folder / name))}
    if not is_done or len(made) < len(names):
        missing = ", ".join(name for name in names if name not in made)
        raise InputError(f"{folder}: this run is not finished{missing and f': {missing}'}")
    if tables is None:
        raise InputError(f"{folder}: made by a script, so the settings of this run are not known")
    run = PublishedRun(
        spyhop=about["spyhop"], recipe=tables["recipe"], name=about["recipe"],
        steps={
            name: _portable_record(artifact.record) for name, artifact in made.items()
            if not artifact.record.stage.startswith("report.") or artifact.record.stage == DATASET
        },
        scores={
            name: {suite: (right, num) for suite, right, num in totals(artifact)}
            for name, artifact in made.items() if artifact.record.stage == MEASURE
        },
    )  # fmt: skip
    own = Path(about["settings_folder"])
    return run, _settings(PurePosixPath(RECIPE), tables, own, {RECIPE: Path(), RUN: Path()})


def _portable_record(record: Record) -> Record:
    inputs = {
        key: [each.model_copy(update={"name": _PLACE.sub(r"\1", each.name)}) for each in some]
        for key, some in record.inputs.items()
    }
    return record.model_copy(update={"inputs": inputs, "files": {}})


def _settings(
    place: PurePosixPath, tables: Mapping[str, Any], folder: Path, places: dict[str, Path]
) -> dict[str, str]:
    """Return the text of a settings file by its place, and those of the files that it names."""
    files = {str(place): to_toml(_portable(tables, folder, places))}
    for name, path in places.items():
        inner = place.parent / name
        if path.suffix == ".toml":
            files |= _settings(inner, read_toml(path), path.parent, {})
        elif path.suffix in (".yaml", ".yml"):
            files[str(inner)] = path.read_text(encoding="utf-8")
    return files


def _portable(value: Any, folder: Path, places: dict[str, Path]) -> Any:  # noqa: ANN401 (TOML)
    """Return settings whose paths lead to `places` beside them."""
    if isinstance(value, Mapping):
        stated = {name: each for name, each in value.items() if each is not None}
        return {name: _portable(each, folder, places) for name, each in stated.items()}
    if isinstance(value, list):
        return [_portable(each, folder, places) for each in value]
    if not isinstance(value, str) or (given := Path(value)).name in ("", "..", "~"):
        return value
    try:
        path = folder / given.expanduser()
        if not path.exists():
            return value
    except (OSError, RuntimeError, ValueError):  # a text that cannot name a file
        return value
    is_beside = not given.is_absolute() and not {"..", "~"} & {*given.parts}
    name = value if is_beside else given.name
    while places.setdefault(name, path) != path:
        name = f"other/{name}"  # a file's own name is part of its identity
    return name


def write_repositories(
    folder: Path, place: Path, repo: str, papers: dict[str, tuple[str, ...]]
) -> dict[Path, str]:
    """Write what a run's folder has to push to folders in `place`; return them with their kind.

    Large files are links. `papers` are the arXiv ids of each recipe's papers, which cards name.

    Raises:
        InputError: If the run is not finished, or has neither a model nor a data set.
    """
    run, settings = publish(folder)
    steps = {n: KINDS[record.stage] for n, record in run.steps.items() if record.stage in KINDS}
    if not steps:
        makers = "`orca`, `humpback` and `train` make them"
        raise InputError(f"{folder}: no model or data set to push; {makers}")
    own = {RUN: run.model_dump_json(indent=1), **settings}
    for name, kind in steps.items():
        artifact, out = load((folder / name).resolve()), place / name
        assert artifact is not None  # as `publish` has checked
        artifact.verify()
        skipped = shutil.ignore_patterns(CARD, RECORD, LOGS)
        shutil.copytree(artifact.path, out, ignore=skipped, copy_function=os.symlink)
        more = {"datasets": [repo]} if kind == "model" and "dataset" in steps.values() else {}
        texts = {CARD: _card(artifact, more, run, papers[run.recipe])}
        for path, text in (
            texts | {f"{FOLDER}/{name}": text for name, text in own.items()}
        ).items():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_text(text, encoding="utf-8")
        sums = [f"{sha256}  {path}\n" for path, (sha256, _) in digests(out).items()]
        (out / SUMS).write_text("".join(sums), encoding="utf-8")
    return {place / name: kind for name, kind in steps.items()}


def _card(
    artifact: Artifact, more: dict[str, Any], run: PublishedRun, papers: tuple[str, ...]
) -> str:
    """Return the card with tags, its scores as metadata, and how to repeat the run."""
    _, old, text = artifact.file(CARD).read_text(encoding="utf-8").split("---\n", 2)
    head = {**yaml.safe_load(old), **more}
    head["tags"] = [*head.get("tags", ["spyhop"]), *(f"arxiv:{paper}" for paper in papers)]
    measured = {each.name for each in artifact.record.inputs.get("scores", ())}
    results = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": suite, "type": suite},
            "metrics": [
                {"type": "accuracy", "name": f"accuracy in %, n = {n}", "value": 100 * right / n}
            ],
        }
        for step, scores in run.scores.items()
        if step in measured
        for suite, (right, n) in scores.items()
    ]
    if results:
        head["model-index"] = [{"name": run.name, "results": results}]
    yaml_head = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    how = write_markdown("spyhop.report", "reproduce.md", run=run, papers=papers)
    return f"---\n{yaml_head}---\n{text.rstrip()}\n\n{how}"


def upload(folder: Path, kind: str, repo: str, *, is_public: bool = False) -> str:
    """Create the repository if needed, push all files in one commit, and return its address.

    Raises:
        InputError: If the hub refuses, or if a public repository has this name and a private one is
            wanted.
    """
    api, errors = library("huggingface_hub", "push").HfApi(), library("huggingface_hub.errors")
    about = {"repo_id": repo, "repo_type": kind}
    try:
        api.create_repo(**about, private=not is_public, exist_ok=True)
        if not is_public and not api.repo_info(**about).private:
            raise InputError(f"{repo}: this repository is public; add --public to push to it")
        made = api.upload_folder(**about, folder_path=folder, commit_message="Push a spyhop run")
    except (errors.HTTPError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{repo}: cannot be pushed ({reason:.300})") from None
    return str(made.commit_url)


def read_published(card: Path) -> tuple[PublishedRun, Path]:
    """Return the record beside a model's or data set's card, and the recipe file beside it."""
    folder = card if card.is_dir() else card.parent
    place = folder / FOLDER / RUN
    try:
        return PublishedRun.model_validate_json(place.read_bytes()), place.with_name(RECIPE)
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no record of a run"
        raise InputError(f"{place}: cannot be read ({reason}); `spyhop push` writes it") from None


def check_steps(run: PublishedRun, resolved: Resolved) -> Iterator[tuple[str, str, str]]:
    """Yield each step: name, state, and the settings and inputs that differ.

    It is `same`, `not run`, `different`, or of `other content` with equal settings and inputs.
    """
    steps = {step.name: step for step in resolved.recipe.steps}
    for name, old in run.steps.items():
        reasons = ["the recipe has no such step now"]
        if name in steps:
            reasons = list(differences(resolved, steps[name], old))
        if reasons:
            yield name, "different", "; ".join(reasons)
        elif name not in resolved.made:
            yield name, "not run", ""
        else:
            is_same = resolved.made[name].digest == old.digest
            yield name, "same" if is_same else "other content", ""


def check_scores(run: PublishedRun, resolved: Resolved) -> Iterator[tuple[str, str, str]]:
    """Yield each score: name, `same`, `within interval` or `different`, and both values.

    The interval is the published one, of 95 % (Wilson).
    """
    for name, scores in run.scores.items():
        for suite, right, num in totals(resolved.made[name]) if name in resolved.made else ():
            if suite in scores:
                then, now = wilson(*scores[suite]), right / num
                state = "within interval" if then.low <= now <= then.high else "different"
                is_same = scores[suite] == (right, num)
                text = f"{100 * then.value:.1f} % ({100 * then.low:.1f} to {100 * then.high:.1f})"
                about = f"{text} became {100 * now:.1f} %, n = {num}"
                yield f"{name} {suite}", "same" if is_same else state, about
