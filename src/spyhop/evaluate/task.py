"""Benchmarks as data: a `Task` says where the rows are, how they are asked and how they are scored.

A benchmark is one TOML file of at most 12 lines in `evaluate/tasks/`, or a file of your own; no
code knows any of them by name.
"""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from spyhop.models import Sampling
from spyhop.schema import Config
from spyhop.text.filters import Filter
from spyhop.text.template import names

Sampler = Literal["first_n", "seeded"]
Metric = Literal[
    "accuracy", "exact", "f1", "acc", "acc_norm", "acc_token", "acc_bytes", "acc_mutual_info",
    "mc1", "mc2", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "meteor", "refusal", "labels",
    "toxicity",
]  # fmt: skip
"""`accuracy` is that of the extracted answer; `exact` and `f1` compare free text, as `bleu` to
`meteor` do (extra `[text]`); `acc` to `mc2` are those of scored options under lm-eval's names.
`refusal` and `labels` compare a refusal, or the labels that a response names, with the gold ones;
`toxicity` is a classifier's probability, for which lower is better."""


class Protocol(Config):
    """How a task is asked and scored."""

    method: Literal["generate", "likelihood"] = "generate"
    """Read the answer from a response, or take the option of the highest log-probability, so that
    every item has an answer."""
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
    """Primary score of an item; `accuracy` of scored options is `acc`."""
    sampling: Sampling = Sampling(max_new_tokens=256)
    filters: tuple[Filter, ...] = ()
    """Ways of lm-eval to read and compare a free answer; the first one decides. Default: spyhop's
    own reading."""

    @model_validator(mode="after")
    def _of_method(self) -> Self:
        is_of_options = self.metric.startswith(("acc_", "mc")) or self.metric == "acc"
        if self.metric != "accuracy" and is_of_options != (self.method == "likelihood"):
            needed = "likelihood" if is_of_options else "generate"
            raise ValueError(f'metric = {self.metric!r} needs method = "{needed}"')
        return self


class Benchmark(Protocol):
    """A benchmark, whichever file describes it."""

    name: str
    """Name of the suite; default: the file's name."""
    data: str = ""
    """Name of the data set, under which a run says where its files are; default: the suite's."""
    num_items: int = 0
    """Number of items as published. A complete read must find exactly as many; 0 checks nothing."""
    hidden: bool = False
    """Whether its texts may offend and stay off pages."""
    citation: str = ""
    note: str = ""
    """How the protocol differs from the publication."""

    def identity(self) -> Self:
        """Return the task without its texts for people, which change no item and no score."""
        return self.model_copy(update={"citation": "", "note": "", "hidden": False})


class Task(Benchmark):
    """A benchmark. Templates contain `{column}`s of the rows; text of a row is used as it is."""

    files: str = "*.jsonl"
    """Files of the source. Each of them is a task, named by the text that a single `*` stands for;
    without a `*`, or with several, they are one task, named like the suite."""
    rows: str = ""
    """Key of the list of rows in a JSON file; empty for files of one row per line."""
    tasks: tuple[str, ...] = ()
    """Tasks in the order in which they are read; default: all files."""
    exclude: tuple[str, ...] = ()
    """Tasks that are not part of the benchmark."""
    topics: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Tasks of each topic, such as the subjects of a field."""
    topic: str = ""
    """Template of an item's topic, where the rows tell it."""
    passage: str = ""
    """Template of the text that several items share: they are not independent."""
    split: dict[str, str] = Field(default_factory=dict)
    """Regular expression for a column; its named groups are further columns."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Further columns: Jinja expressions of a row's columns and of those before them, such as
    `choices.split("; ")`; `row["a name"]` is a column too."""
    optional: tuple[str, ...] = ()
    """Columns that a row may lack; they are empty there."""
    options: str | tuple[str, ...] = "options"
    """Column of the options: a list, an object of labels and texts, or text such as `(A) yes`; or
    a list of columns with one option each."""
    fixed_options: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Options of tasks whose rows list no options; `split` does not apply to them."""
    option: str = "({label}) {text}"
    """How an option is shown."""
    separator: str = " "
    """Text between the options."""
    question: str = "{question}"
    """The question without options and cue: the prompt where there are no options, and the text
    that decontamination searches for."""
    prompt: str = "Q: {stem} Answer Choices: {options}"
    """The prompt of an item with options; `{stem}` is its question as `question` writes it."""
    open_prompt: str = ""
    """The prompt of an item without options; default: its question."""
    context: str = ""
    """The prompt of each option, with its `{text}`, where the options are completed by one text."""
    continuation: str = ""
    """The text of an option whose likelihood is taken, with its white space: ` {text}` or
    ` {label}`; empty where responses are generated."""
    cue: str = "\nA: Among A through {last}, the answer is"
    """Beginning of the answer to an item with options: after the prompt in the form `asked`, the
    beginning of the response in the form `prefilled`."""
    few_shot: str = ""
    """Worked examples as published, before every question."""
    few_shot_file: str = ""
    """File of the worked examples of a `{task}`, in the folder of the source."""
    few_shot_after: str = ""
    """Mark in that file after which they begin."""
    shots: int = Field(0, ge=0)
    """Worked examples made of rows, before every question."""
    shot_files: str = ""
    """Files of these rows, with `{task}`; default: the item's own file without the item."""
    shot_answer: str = " {target}"
    """The answer of a worked example; an option's likelihood has its `continuation` instead."""
    sampler: Sampler = "first_n"
    """Which rows are shown: the first ones, or those that lm-eval draws."""
    target: str = "{answer}"
    """The gold answer: a label, the text of an option, or free text."""
    gold: str = ""
    """Instead of `target`: a column, or a Jinja expression, of the index of the right option, from
    0, or a list of them; for items without options, the list of accepted answers."""
    as_published: bool = False
    """Whether to keep items whose gold answer is not among their options (with chance 0), or that
    have a single option; otherwise such an item is an error."""

    @model_validator(mode="after")
    def _no_position(self) -> "Task":
        if both := set(self.tasks) & set(self.exclude):
            raise ValueError(f"tasks and exclude both name {', '.join(sorted(both))}")
        return self

    def columns_read(self) -> set[str]:
        """Return the keys of a row that are read."""
        texts = (
            self.question, self.prompt, self.target, self.topic, self.passage, self.context,
            self.open_prompt,
        )  # fmt: skip
        read = {name.split(".")[0] for text in texts for name in names(text)} - {"last", "stem"}
        options = (self.options,) if isinstance(self.options, str) else self.options
        read |= set(self.split) | {name.split(".")[0] for name in options}
        expressions = " ".join([self.gold, *self.columns.values()])
        return read | {quoted or name for quoted, name in _WORD.findall(expressions)}


_WORD = re.compile(r"\"([^\"]*)\"|([A-Za-z_]\w*)")
