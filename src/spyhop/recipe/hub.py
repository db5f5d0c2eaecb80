"""Push a finished run to the Hugging Face hub: model and data set with cards, scores, checksums."""

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from spyhop.lazy import library
from spyhop.recipe.events import RUN
from spyhop.recipe.published import DATASET, FOLDER, PublishedRun, publish
from spyhop.schema import InputError
from spyhop.store import Artifact
from spyhop.store.artifact import LOGS, RECORD, digests, load
from spyhop.text.template import write_markdown

KINDS = {"train.release": "model", DATASET: "dataset"}
"""Stages whose folders are pushed, and the kind of their repository."""
CARD, SUMS = "README.md", "SHA256SUMS"


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
