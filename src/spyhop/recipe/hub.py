"""Push a finished run to the Hugging Face hub: model and data set with cards, scores, checksums."""

import hashlib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from spyhop.collect.fetch import needed
from spyhop.recipe.events import RUN
from spyhop.recipe.published import FOLDER, PublishedRun, publish
from spyhop.schema import InputError
from spyhop.store import Artifact
from spyhop.store.artifact import load
from spyhop.text.template import write_markdown

KINDS = {"train.release": "model", "report.dataset": "dataset"}
"""Stages whose folders are pushed, and the kind of their repository."""
CARD, SUMS = "README.md", "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files of one repository, a model's or a data set's, with their SHA-256."""

    kind: str
    repo: str
    files: dict[str, Path | bytes]
    sums: dict[str, str]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            name: len(file) if isinstance(file, bytes) else file.stat().st_size
            for name, file in self.files.items()
        }


def bundles(folder: Path, repo: str, papers: dict[str, tuple[str, ...]]) -> list[Bundle]:
    """Return what a run's folder has to push to `repo` (OWNER/NAME).

    `papers` are the arXiv ids of each recipe's papers, which cards name.

    Raises:
        InputError: If the run is not finished, or has neither a model nor a data set.
    """
    run, settings = publish(folder)
    steps = {step.name: KINDS[step.stage] for step in run.steps if step.stage in KINDS}
    if not steps:
        raise InputError(f"{folder}: this run has no step of {' or '.join(KINDS)} to push")
    own = {f"{FOLDER}/{name}": text.encode() for name, text in settings.items()}
    own[f"{FOLDER}/{RUN}"] = run.model_dump_json(indent=1).encode()
    made = []
    for name, kind in steps.items():
        artifact = load(folder / name)
        assert artifact is not None  # as `publish` has checked
        files: dict[str, Path | bytes] = {n: artifact.file(n) for n in artifact.record.files}
        more = {"datasets": [repo]} if kind == "model" and "dataset" in steps.values() else {}
        files |= {CARD: _card(artifact, more, run, papers[run.recipe]), **own}
        sums = {name: _sha256(file) for name, file in files.items()}
        files[SUMS] = "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items()).encode()
        made.append(Bundle(kind, repo, files, sums))
    return made


def _card(
    artifact: Artifact, more: dict[str, Any], run: PublishedRun, papers: tuple[str, ...]
) -> bytes:
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
        for step in run.steps
        if step.name in measured
        for suite, (right, n) in step.scores.items()
    ]
    if results:
        head["model-index"] = [{"name": run.name, "results": results}]
    yaml_head = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    how = write_markdown("spyhop.report", "reproduce.md", run=run, papers=papers)
    return f"---\n{yaml_head}---\n{text.rstrip()}\n\n{how}".encode()


def _sha256(file: Path | bytes) -> str:
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def upload(bundle: Bundle, *, is_public: bool = False) -> str:
    """Create the repository if needed, push all files in one commit, and return its address.

    The hub's checksums are compared at the end.

    Raises:
        InputError: If the hub refuses, has other content than was sent, or has a public repository
            of this name although a private one is wanted.
    """
    hub, errors = needed("huggingface_hub"), import_module("huggingface_hub.errors")
    api, about = hub.HfApi(), {"repo_id": bundle.repo, "repo_type": bundle.kind}
    files = [hub.CommitOperationAdd(name, file) for name, file in bundle.files.items()]
    try:
        api.create_repo(**about, private=not is_public, exist_ok=True)
        if not is_public and not api.repo_info(**about).private:
            raise InputError(f"{bundle.repo}: this repository is public; add --public to push to it")
        made = api.create_commit(**about, operations=files, commit_message="Push a spyhop run")
        stored = api.get_paths_info(**about, paths=list(bundle.files), revision=made.oid)
    except (errors.HTTPError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{bundle.repo}: cannot be pushed ({reason:.300})") from None
    sums = {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in stored}
    for name, file in bundle.files.items():
        if sums.get(name) not in (bundle.sums.get(name), _git_id(file)):
            raise InputError(f"{bundle.repo}: the hub's {name} has another checksum; push again")
    return str(made.commit_url)


def _git_id(file: Path | bytes) -> str:
    """Return the id that git gives to a file; the hub states it for small ones."""
    content = file if isinstance(file, bytes) else file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
