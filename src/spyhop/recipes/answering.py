"""Teacher answers for your own prompts, in the format of the prompts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from spyhop.augment import AnswerConfig, answer
from spyhop.augment.export import RESERVED, STEM, ExportConfig, export
from spyhop.collect.messages import MessagesConfig, read_prompts
from spyhop.collect.shapes import Shape
from spyhop.recipe.graph import Recipe, Source
from spyhop.recipes.inputs import served
from spyhop.report import ReportConfig, page
from spyhop.schema import Config
from spyhop.settings import InputPath
from spyhop.store import Artifact
from spyhop.store.atomic import export_file

PROMPTS, ANSWERS, EXPORT = "prompts", "answers", "export"
"""The steps, in order."""
ANSWER_FILES = (f"{STEM}.jsonl", f"{STEM}.parquet")
"""One of which `export_results` writes, by the form."""


class AnsweringConfig(Config):
    """Settings of the `answer` recipe."""

    prompts: InputPath
    """File or folder of rows: JSON, CSV, TSV, Parquet, or a data set that `datasets` saved."""
    shape: Shape | None = None
    """Shape of the rows, such as `messages` or `alpaca`. Default: each row's own, by its keys."""
    teacher: InputPath
    """A teacher's file (TOML), or a folder of weights."""
    answers: AnswerConfig = AnswerConfig()
    format: Literal["", "jsonl"] = ""
    """Output format; default: Parquet for prompts in Parquet, else JSONL."""


def answering(config: AnsweringConfig, name: str = "answer") -> Recipe:
    """Generate a teacher's answers to your own prompts, in the same format."""
    r = Recipe(name)
    file = Source(config.prompts)
    prompts = r.add(
        PROMPTS, read_prompts, MessagesConfig(shape=config.shape, reserved=RESERVED), file=file
    )
    answers = r.add(
        ANSWERS, answer, config.answers, prompts=prompts, teacher=served(config.teacher)
    )
    output = ExportConfig(format=config.format, num_samples=config.answers.num_samples)
    r.add(EXPORT, export, output, file=file, prompts=prompts, answers=answers)
    r.add("report", page, ReportConfig(title=r.name), answers={"answers": answers})
    return r


def export_results(made: Mapping[str, Artifact], out: Path) -> str:
    """Write the answers to the output folder, and return a summary with outcomes and cost."""
    answers, exported = made[ANSWERS].record, made[EXPORT]
    (file,) = exported.path.glob(f"{STEM}.*")
    place = export_file(exported.file(file.name), out / file.name)
    counts = exported.record.counts
    outcomes = dict(_under("outcome/", answers.counts))
    notes = [f"{name} {num:,}" for name, num in outcomes.items()]
    failed = [each for each in _under("failed/", counts) if each[0] not in outcomes]
    if failed:
        notes.append(f"errors {', '.join(f'{name}: {num:,}' for name, num in failed)}")
    if dropped := sum(answers.dropped.values()):
        notes.append(f"dropped {dropped:,}")
    notes.append(f"${answers.usage.get('usd', 0.0):,.4f}")
    return f"{place}: {counts.get('rows', 0):,} rows; {'; '.join(notes)}"


def _under(kind: str, counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the non-zero counts of one kind, by name."""
    found = [
        (name.removeprefix(kind), num) for name, num in counts.items() if name.startswith(kind)
    ]
    return [(name, num) for name, num in found if num]
