"""Benchmarks as data: a `Task` says where the rows are, how they are asked and how they are scored.

A benchmark is one TOML file of at most 12 lines in `evaluate/tasks/`, or a file of your own; no
code knows any of them by name.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from spyhop.models import Sampling
from spyhop.schema import Config, RecipeError
from spyhop.settings import read_toml, validated
from spyhop.text.template import names

FOLDER = Path(__file__).with_name("tasks")


Metric = Literal[
    "accuracy",
    "exact",
    "f1",
    "acc",
    "acc_norm",
    "acc_token",
    "acc_bytes",
    "acc_mutual_info",
    "mc1",
    "mc2",
]
"""`accuracy` is that of the extracted answer; `exact` and `f1` compare free text; the others are
those of scored options under lm-eval's names."""


class Protocol(Config):
    """How a task is asked and scored."""

    method: Literal["generate", "likelihood"] = "generate"
    """`generate` reads the answer from a response. `likelihood` takes the option of the highest
    log-probability, so every item has an answer."""
    form: Literal["asked", "prefilled", "plain"] = "asked"
    """Where the cue is: at the end of the user's turn, as the beginning of the response, or in a
    plain text without a chat format."""
    system_message: str = ""
    """Orca's default is the empty message."""
    chain_of_thought: str = ""
    """Cue that asks for reasoning before the answer; it replaces the items' own cues."""
    extract: Literal["stated", "first_capital"] = "stated"
    """How a choice is read: an explicit statement, or the Orca paper's first capital letter."""
    metric: Metric = "accuracy"
    """Score of an item; `accuracy` of scored options is `acc`."""
    sampling: Sampling = Sampling(max_new_tokens=256)

    @model_validator(mode="after")
    def _of_method(self) -> Self:
        is_of_options = self.metric.startswith(("acc_", "mc")) or self.metric == "acc"
        if self.metric != "accuracy" and is_of_options != (self.method == "likelihood"):
            needed = "likelihood" if is_of_options else "generate"
            raise ValueError(f'metric = {self.metric!r} needs method = "{needed}"')
        return self


class Task(Protocol):
    """A benchmark. Templates contain `{column}`s of the rows; text of a row is used as it is."""

    name: str
    """Name of the suite; default: the file's name."""
    files: str = "*.jsonl"
    """Files of the source; each of them is a task, named like the file."""
    rows: str = ""
    """Key of the list of rows in a JSON file; empty for files of one row per line."""
    num_items: int = 0
    """Number of items as published. A complete read must find exactly as many; 0 checks nothing."""
    tasks: tuple[str, ...] = ()
    """Tasks in the order in which they are read; default: all files."""
    exclude: tuple[str, ...] = ()
    """Tasks that are not part of the benchmark."""
    split: dict[str, str] = Field(default_factory=dict)
    """Regular expression for a column; its named groups are further columns."""
    optional: tuple[str, ...] = ()
    """Columns that a row may lack; they are empty there."""
    options: str = "options"
    """Column of the options: a list, an object of labels and texts, or text such as `(A) yes`."""
    fixed_options: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Options of tasks whose rows list no options; `split` does not apply to them."""
    option: str = "({label}) {text}"
    """How an option is shown."""
    question: str = "{question}"
    """The question without options and cue: the prompt where there are no options, and the text
    that decontamination searches for."""
    prompt: str = "Q: {question} Answer Choices: {options}"
    """The prompt of an item with options."""
    cue: str = "\nA: Among A through {last}, the answer is"
    """Beginning of the answer to an item with options: after the prompt in the form `asked`, the
    beginning of the response in the form `prefilled`."""
    few_shot: str = ""
    """Worked examples as published, before every question."""
    target: str = "{answer}"
    """The gold answer: a label, the text of an option, or free text."""
    as_published: bool = False
    """Whether to keep items whose gold answer is not among their options (with chance 0), or that
    have a single option; otherwise such an item is an error."""
    citation: str = ""
    note: str = ""
    """How the protocol differs from the publication."""

    @model_validator(mode="after")
    def _no_position(self) -> "Task":
        if both := set(self.tasks) & set(self.exclude):
            raise ValueError(f"tasks and exclude both name {', '.join(sorted(both))}")
        return self

    def columns(self) -> set[str]:
        """Return the keys of a row that are read."""
        texts = f"{self.question}{self.prompt}{self.target}"
        inner = {name.split(".")[0] for name in names(texts)} - {"last"}
        return inner | set(self.split) | {self.options.split(".")[0]}

    def identity(self) -> "Task":
        """Return the task without its texts for people, which change no item and no score."""
        return self.model_copy(update={"citation": "", "note": ""})


def task_names() -> list[str]:
    """Return the names of the benchmarks that ship with spyhop."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_task(suite: str) -> Task:
    """Return a benchmark by its name, or from a TOML file.

    Raises:
        RecipeError: If there is no such benchmark, or the file is not a task.
    """
    path = Path(suite) if suite.endswith(".toml") else FOLDER / f"{suite}.toml"
    if suite not in task_names() and not suite.endswith(".toml"):
        known = ", ".join(task_names())
        raise RecipeError(f"no benchmark {suite!r}; known: {known}; or name a .toml file")
    given: dict[str, Any] = {"name": path.stem, **read_toml(path)}
    return validated(path, Task, given, "", {})
