"""Export a trained model: a folder that other tools load, and its model card."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from spyhop.lazy import safe, torch, transformers
from spyhop.models.folder import load_tokenizer
from spyhop.models.local import pick_dtype, saved_format
from spyhop.render import Renderer
from spyhop.schema import PEOPLE, Config, Score, TrainingError
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.statistics import wilson
from spyhop.store import Artifact, atomic_write
from spyhop.store.artifact import RECORD
from spyhop.text.escape import markdown
from spyhop.text.template import write_markdown
from spyhop.train.base import ADAPTER, ADAPTER_FILE
from spyhop.train.tensors import INDEX, weight_files

SUFFIXES = (".jinja", ".json", ".model", ".safetensors", ".txt")
OWN = (RECORD, "metrics.json")
"""Files about the training itself; the card states what others need of them."""
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
"""Files of the base that its licence may want to be passed on."""
CHECKED = ("outcome/", "right/", "moderated/")
FIGURES = {"num_rows": "rows/read", "num_tokens": "tokens", "num_labels": "response_tokens"}
"""Sums over all trainings, by the counts that they are read from."""
UNKNOWN = "unknown"
TEACHER, LICENCE = "answered_by/", "licence/"
"""Counts of a training: the rows that it read, by who answered and by licence."""
PROBE_FAILED = "probe_failed"
"""Count of a probe whose model raised an error."""
_LICENCE = re.compile(r"^license(?:_name)?:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)
TERMS = (
    "Not stated. Some services forbid training models that compete with theirs on what they "
    "answer: read the terms of the service behind {teachers} before you publish this model."
)
USE = (
    "Answering prompts of the kind that it was trained on, in research; anything else is to be "
    "measured first."
)
LIMITS = (
    "It states wrong things fluently; explanations that sound like its teacher's are no proof of "
    "the same ability. It takes over the biases of its base and of its teacher. What it was not "
    "measured on below is not known."
)


class CardConfig(Config):
    """Texts for the model card; all figures are read from the run."""

    title: str = ""
    """Empty is the name of the run."""
    language: str = "en"
    """Language code for the card's metadata."""
    base_name: str = ""
    """As it is published, such as `org/name`; empty is the name of the base's folder."""
    base_licence: str = ""
    """Licence of the base; empty is the one on the base's own card."""
    data_licence: str = ""
    """Of rows that name none."""
    teacher_terms: str = ""
    """Terms of the service that answered, in a sentence."""
    intended_use: str = Field(USE, min_length=1)
    """Paragraph on intended use."""
    limitations: str = Field(LIMITS, min_length=1)
    """Paragraph on limitations."""


class ReleaseConfig(Config):
    """Contents of the exported model folder."""

    card: CardConfig = CardConfig()
    dtype: Literal["auto", "saved", "bfloat16", "float16"] = "auto"
    """Type of the weights: `saved` is float32, as they were trained; `auto` is bfloat16 if training
    computed in it, as it does by default on a base that is stored so."""


@stage(
    version=4,
    writes=FOLDER,
    plan=lambda config, **inputs: Estimate(seconds=2),
    needs="local",
)
def release(
    ctx: Context,
    config: ReleaseConfig,
    *,
    model: Artifact,
    base: Artifact,
    answers: Mapping[str, Artifact],
    earlier: Mapping[str, Artifact] | None = None,
    probe: Artifact | None = None,
    scores: Artifact | None = None,
    data: Artifact | None = None,
) -> None:
    """Write the folder to give away: weights, tokenizer, chat template, generation config, card.

    `transformers` and vLLM load it as it is. The weights are those of `model`, by hard links where
    the disk can, unless they are rounded; an adapter is in `adapter/`. Where no row names its
    licence, the counts of `data` do.
    """
    for path in sorted(model.path.iterdir()):
        if path.is_file() and path.suffix in SUFFIXES and path.name not in OWN:
            place = ctx.out / path.name
            try:
                os.link(path, place)
            except OSError:
                shutil.copyfile(path, place)
            place.chmod(0o644)  # safetensors writes for its owner alone; servers are others
    for pattern in LICENCES:
        for path in filter(Path.is_file, base.path.glob(pattern)):
            shutil.copyfile(path, ctx.out / path.name)
    dtype = config.dtype
    if dtype == "auto":
        dtype = "bfloat16" if pick_dtype("auto", model.path) == torch.bfloat16 else "saved"
    if dtype != "saved":
        _round(ctx.out, dtype)
    if (model.path / ADAPTER).is_dir():
        shutil.copytree(model.path / ADAPTER, ctx.out / ADAPTER)
        if values := _json(ctx.out / ADAPTER / ADAPTER_FILE):  # no path of this machine
            values["base_model_name_or_path"] = config.card.base_name or base.path.name
            _rewrite(ctx.out / ADAPTER / ADAPTER_FILE, values)
    _check(ctx.out)
    _write_generation(ctx.out)
    trainings = {**(earlier or {}), "the last training": model}
    counts = [each.record.counts for each in trainings.values()]
    licences = _sums(counts, LICENCE)
    if data and not licences.keys() - {UNKNOWN}:
        licences = _sums([data.record.counts], LICENCE)
    checks = [each.record.counts for each in answers.values()]
    origin = Origin(
        title=model.record.stage,
        base=base.path.name,
        base_licence=base_licence(base.path),
        recipe=f"{model.record.stage}-{model.record.key}",
        teachers=_sums(counts, TEACHER),
        licences=licences,
        trainings={k: (each.record.config, each.record.counts) for k, each in trainings.items()},
        dropped=model.record.dropped,
        outcomes={f"{of}{name}": n for of in CHECKED for name, n in _sums(checks, of).items()},
        probe=probe.record.counts if probe else {},
        scores=totals(scores) if scores else [],
    )
    text = card(config.card, origin)
    if dtype != "saved":
        text += f"\nWeights were rounded to {dtype} after training in float32.\n"
    (ctx.out / "README.md").write_text(text, encoding="utf-8")


def with_title(config: ReleaseConfig, name: str) -> ReleaseConfig:
    """Return the config with the run's name in the place of a missing title."""
    if config.card.title:
        return config
    return config.model_copy(update={"card": config.card.model_copy(update={"title": name})})


def _round(folder: Path, dtype: str) -> None:
    """Replace the weights, links to the training's own, by rounded ones."""
    total, kind = 0, getattr(torch, dtype)
    for path in weight_files(folder):
        tensors = {
            name: tensor.to(kind) if tensor.is_floating_point() else tensor
            for name, tensor in safe.load_file(path).items()
        }
        with atomic_write(path) as temporary:
            safe.save_file(tensors, temporary, metadata={"format": "pt"})
        total += sum(tensor.nbytes for tensor in tensors.values())
    config = _json(folder / "config.json")
    for part in (config, config.get("text_config", {})):
        part |= {name: dtype for name in ("dtype", "torch_dtype") if name in part}
    config["dtype"] = dtype
    _rewrite(folder / "config.json", config)
    if index := _json(folder / INDEX):
        index.setdefault("metadata", {})["total_size"] = total
        _rewrite(folder / INDEX, index)


def _rewrite(path: Path, values: dict[str, Any]) -> None:
    """Replace a file: the old one is a link to the training's own."""
    path.unlink(missing_ok=True)
    path.write_text(json.dumps(values, indent=2, sort_keys=True))


def _check(folder: Path) -> None:
    """Refuse what other loaders would stumble over."""
    weight_files(folder)
    config = _json(folder / "config.json")
    tokens = len(load_tokenizer(folder))
    rows = config.get("text_config", config).get("vocab_size", 0)
    wrong = f"the tokenizer has {tokens} tokens, the model {rows}" if tokens > rows else ""
    if not config.get("architectures") or not config.get("model_type"):
        wrong = "config.json names no architecture"
    if wrong:
        raise TrainingError(f"{folder}: {wrong}, so other tools cannot load it")


def _write_generation(folder: Path) -> None:
    """State what ends a response, so that servers stop where training did.

    The base's sampling settings are kept.
    """
    tokenizer = load_tokenizer(folder)
    renderer = Renderer(tokenizer, saved_format(folder, tokenizer))
    path = folder / "generation_config.json"
    values = _json(path)
    values.pop("_from_model_config", None)  # else loaders make it again from the model's config
    ends = values.get("eos_token_id", [])
    known = ends if isinstance(ends, list) else [ends]
    ids = sorted({renderer.end_id, *(int(each) for each in known if each is not None)})
    values |= {"eos_token_id": ids[0] if len(ids) == 1 else ids}
    own = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id")}
    values |= {name: int(number) for name, number in own.items() if number is not None}
    values.setdefault("transformers_version", transformers.__version__)
    _rewrite(path, values)


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _sums(counts: Sequence[Mapping[str, int]], prefix: str) -> dict[str, int]:
    """Return the sums of the counts with a prefix, by the rest of their names, largest first."""
    found: Counter[str] = Counter()
    for each in counts:
        found.update({k.removeprefix(prefix): n for k, n in each.items() if k.startswith(prefix)})
    return dict(found.most_common())


def totals(scores: Artifact) -> list[tuple[str, int, int]]:
    """Return suite, right answers and items."""
    rows = [(row.suite, row.correct) for row in scores.rows(Score)]
    right = Counter(suite for suite, is_right in rows if is_right)
    return [(suite, right[suite], num) for suite, num in Counter(s for s, _ in rows).items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Facts about a model beside its weights; counts are of rows."""

    title: str
    base: str
    base_licence: str
    recipe: str
    """Name and key of the training that made it."""
    teachers: Mapping[str, int]
    licences: Mapping[str, int]
    trainings: Mapping[str, tuple[Mapping[str, object], Mapping[str, int]]]
    """Settings and counts of all trainings by name, the last one last."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows that the last training dropped, by reason."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """What checks of the answers found."""
    probe: Mapping[str, int] = field(default_factory=dict)
    """The counts of its probe; empty where none was made."""
    scores: Sequence[tuple[str, int, int]] = ()
    """Suite, right answers, items."""


def base_licence(folder: Path) -> str:
    """Return the licence that a base's card names in its head, else `unknown`."""
    card = folder / "README.md"
    if not card.is_file():
        return UNKNOWN
    text = card.read_text(encoding="utf-8", errors="replace")
    head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") >= 2 else ""
    found = Counter(_LICENCE.findall(head))
    names = [name for name in found if name.lower() != "other"]
    return names[0] if names else next(iter(found), UNKNOWN)


def card(config: CardConfig, origin: Origin) -> str:
    """Return the card: a head that hubs read, and what a person should know before using it."""
    licence = config.base_licence or origin.base_licence
    named = {name: num for name, num in origin.licences.items() if name != UNKNOWN}
    num_unnamed = origin.licences.get(UNKNOWN, 0 if origin.licences else 1)
    if config.data_licence:
        if rest := origin.licences.get(UNKNOWN):
            named[config.data_licence] = named.get(config.data_licence, 0) + rest
        num_unnamed = 0
    is_known = licence != UNKNOWN and not num_unnamed
    same = {licence.lower(), *(name.lower() for name in named)}
    models = [markdown(name) for name in origin.teachers if name != PEOPLE]
    terms = config.teacher_terms
    if not terms and (models or not origin.teachers):
        terms = TERMS.format(teachers=", ".join(models) or UNKNOWN)

    def shares(counts: Mapping[str, int]) -> str:
        ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        return ", ".join(f"{markdown(name)} ({num:,} rows)" for name, num in ordered) or UNKNOWN

    return write_markdown(
        "spyhop.train",
        "card.md",
        config=config,
        origin=origin,
        base=config.base_name or origin.base,
        licence=licence,
        tag=licence.lower() if is_known and len(same) == 1 else "other",
        named=named,
        num_unnamed=num_unnamed,
        shares=shares,
        terms=terms,
        **{
            name: sum(counts.get(key, 0) for _, counts in origin.trainings.values())
            for name, key in FIGURES.items()
        },
        kept_counts=lambda counts: {
            k: v for k, v in counts.items() if "/" not in k or "rows/" in k
        },
        scores=[(suite, total, wilson(right, total)) for suite, right, total in origin.scores],
        has_failed_probe=PROBE_FAILED in origin.probe,
        ended=origin.probe.get("stopped", 0),
        figures=probe_figures(origin.probe),
        chosen=lambda values: {k: v for k, v in values.items() if v not in (None, {}, [])},
    )


def probe_figures(counts: Mapping[str, int]) -> list[tuple[str, int, int, int]]:
    """Return (id, followed, met unasked, prompts) of each system message of a probe's counts."""
    ids = [key.removeprefix("follows/") for key in counts if key.startswith("follows/")]
    return [
        (name, counts[f"follows/{name}"], counts.get(f"unasked/{name}", 0), counts["prompts"])
        for name in ids
    ]
