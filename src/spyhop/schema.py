"""The vocabulary: row types, the `Config` base, and the errors.

Every error has one clear line for the user: what, where, the value, the remedy.
"""

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Role = Literal["system", "user", "assistant"]
Ending = Literal["whole", "cut", "refused", "empty", "failed"]
"""How a response ended. Only a `whole` one is complete: the others are never trained on, rated or
compared as if they were."""
ENDED = {
    "", "stop", "end_turn", "stop_sequence", "eos", "eos_token", "stop_token", "end", "complete",
    "completed", "finished",
}  # fmt: skip
"""Finish reasons of a response that its model ended, in lower case; rows from files may have none.
Gemini's are those of its API, Anthropic's, vLLM's, DeepSeek's and Zhipu's are as documented."""
LIMITED = {
    "length", "max_tokens", "max_output_tokens", "max_length", "model_length", "token_limit",
    "model_context_window_exceeded", "context_length", "pause_turn", "compaction", "tool_use",
    "tool_calls", "function_call", "other", "unspecified",
}  # fmt: skip
FILTERED = {
    "content_filter", "content_filtered", "safety", "refusal", "recitation", "blocklist", "spii",
    "prohibited_content", "sensitive", "moderation", "guardrail_intervened", "image_safety",
    "language", "image_prohibited_content", "image_recitation", "model_armor",
}  # fmt: skip
BROKEN = {
    "error", "abort", "aborted", "cancelled", "canceled", "failed", "timeout", "network_error",
    "insufficient_system_resource", "malformed_function_call", "internal_error", "server_error",
    "malformed_response", "unexpected_tool_call", "too_many_tool_calls",
    "missing_thought_signature", "no_image", "image_other",
}  # fmt: skip

TOO_MANY_FILES = "too many open files; raise the limit (`ulimit -n 4096`) and run again to resume"


class SpyhopError(Exception):
    """Base of every error that a user can fix; the command line prints it as one line."""


class InputError(SpyhopError):
    """A file, row or value from outside is invalid."""


class RecipeError(SpyhopError):
    """A recipe or its settings are invalid."""


class ArtifactError(SpyhopError):
    """The artifact store is damaged, locked or incomplete."""


class ModelError(SpyhopError):
    """A model cannot be opened or called."""


class Unfinished(ModelError):
    """A model stopped replying for now; replies so far are kept, and a new run resumes there."""


class TrainingError(SpyhopError):
    """Training cannot start or resume."""


class NotInstalled(SpyhopError):
    """A library of an extra is not installed."""


class Frozen(BaseModel):
    """Plain data that never changes; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Config(Frozen):
    """Settings of a stage, a model or a recipe. Frozen; unknown fields are refused.

    Every field is part of the identity: changing any value changes the key of the artifact. Where
    and how fast something runs belongs to `spyhop.runtime.Runtime` instead.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _switch_off(cls, values: Any) -> Any:  # noqa: ANN401 (plain data)
        """Take `false` for an optional setting as its absence: TOML has no null."""
        if not isinstance(values, dict):
            return values
        kinds = {name: get_args(info.annotation) for name, info in cls.model_fields.items()}
        optional = {name for name, of in kinds.items() if type(None) in of and bool not in of}
        off = [name for name, value in values.items() if value is False and name in optional]
        return {**values, **dict.fromkeys(off)} if off else values

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 (pydantic's)
        """Describe a table of settings without a description by its type's own summary."""
        for info in cls.model_fields.values():
            nested = [] if info.description else models_in(info.annotation)
            if nested and issubclass(nested[0], Config):
                info.description = (nested[0].__doc__ or "").partition("\n")[0]


def models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 (a type expression)
    """Return the models that a type names, itself or within unions, lists and tables."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    inner = [model for each in get_args(annotation) for model in models_in(each)]
    return list(dict.fromkeys(inner))


class NoConfig(Config):
    """Settings of a stage that has none."""


class Row(Frozen):
    """One row of an artifact. `id` is stable: a hash of the source text, or made from one."""

    id: str


class Message(Frozen):
    """One turn of a conversation."""

    role: Role
    content: str
    reasoning: str | None = Field(None, exclude_if=lambda value: value is None)
    """The assistant's thought before its content, for chat templates that have a place for it."""
    is_trained: bool | None = Field(None, exclude_if=lambda value: value is None)
    """False: a response without loss. Rows state it as `weight` or `train`."""


def prompt_turns(user: str, system: str = "") -> list[Message]:
    """Return a user's turn, below a system message unless that is empty."""
    turns = [Message(role="user", content=user)]
    return [Message(role="system", content=system), *turns] if system else turns


def ending_of(finish_reason: str, text: str, error: str | None = None) -> Ending:
    """Return how a response ended; an unknown reason counts as `cut`.

    A response that a content filter stopped halfway is `cut`, without any text it is `refused`.
    """
    reason = plain_reason(finish_reason)
    if reason in FILTERED:
        return "cut" if text.strip() else "refused"
    if error is not None or reason in BROKEN:
        return "failed"
    if reason not in ENDED:
        return "cut"
    return "whole" if text.strip() else "empty"


def plain_reason(finish_reason: str) -> str:
    """Return a finish reason without its case, prefix and details, such as `content_filter: X`."""
    return finish_reason.lower().removeprefix("finish_reason_").partition(":")[0].strip()


def is_known_reason(finish_reason: str) -> bool:
    """Whether it is known how a response with this finish reason ended."""
    return plain_reason(finish_reason) in ENDED | LIMITED | FILTERED | BROKEN


def _ending(row: dict[str, Any]) -> Ending:
    """Return the ending of an answer that does not state it."""
    last = row["messages"][-1:]
    text = "".join(turn.content for turn in last if turn.role == "assistant")
    return ending_of(row["finish_reason"], text, row["error"])


class Query(Row):
    """The raw text of an instruction collection, before a system message is paired with it."""

    collection: str
    """Sub-mixture it belongs to (`cot`, `niv2`, `t0`, `flan2021`, `world`)."""
    task: str
    query: str
    target: str
    """Gold answer; empty if the collection has none."""
    multiple_choice: bool = False
    origin: str = ""
    """File and line, or generator, of the row."""
    template: str = ""
    """Template of the text, if the collection names one."""
    licence: str = ""
    """As the collection states it; empty if unknown."""


class Prompt(Row):
    """A query under a system message, as it is sent to a teacher."""

    query_id: str
    collection: str
    task: str
    system_id: str
    """Id of the system message within its set; its text is in `messages`."""
    messages: list[Message]
    target: str = ""


class Answer(Row):
    """A prompt with the reply of a model. A failed call is a row with `error`, never a lost row."""

    query_id: str
    collection: str
    task: str
    system_id: str
    messages: list[Message]
    """The conversation to train on; the last turn is the response (absent on error)."""
    target: str = ""
    licence: str = ""
    origin: str = ""
    """File and row of a ready answer; other answers inherit it from their query."""
    model: str
    finish_reason: str
    """As the provider names it, for people; `ending` is what spyhop acts on."""
    error: str | None = None
    ending: Ending = Field(default_factory=_ending)
    prompt_tokens: int = 0
    response_tokens: int = 0
    reasoning: str = ""
    """The thought of a reasoning model before its answer; empty if the provider hides it."""
    log_probability: float | None = None
    """Natural log-probability of the response, summed over its tokens; missing if unknown."""
    sample_index: int = 0
    outcome: str = ""
    """Result of a check or dialogue, such as `right` or `told`; empty without one."""
    transcript: list[Message] = []
    """Turns between teacher and assistant that led to the response, if any."""


class Segment(Row):
    """A self-contained piece of a page: the text under one heading, as Markdown."""

    url: str
    """Address of the page; without one, the file that contains it."""
    headings: list[str]
    """From the page's title down to the heading of the text."""
    text: str
    start: int
    """Offset in the page's extracted text, in characters."""
    end: int
    language: str
    num_redacted: int = 0
    """E-mail addresses, telephone numbers and other identifiers that were replaced."""
    is_toxic: bool = False
    """Whether it contains abusive words; a flag, not a filter."""
    page_digest: str
    """Start of the SHA-256 of the page as it was sent."""
    origin: str
    """File and offset of the page."""


class Rating(Frozen):
    """A judge's rating of a pair. A rating that failed is missing, never a low score."""

    score: float | None
    """From 1 (worst) to 5, with fractions if the method gives any; null if missing."""
    method: Literal["verdict", "choice", "expected", "likelihood"]
    judge: str
    missing: str = ""
    """Why there is no score: `no_verdict` or the ending of the judge's reply; else empty."""
    reason: str = ""
    """The judge's text before its verdict."""
    probabilities: list[float] = []
    """Probabilities of the scores 1 to 5, if the judge returns any."""
    value: float | None = None
    """Tie-breaker among equal scores: log-probability per token, or the expected score."""
    written: float | None = None
    """For `expected`: the score that the judge wrote in its verdict line, to compare with."""
    is_repeated: bool = False
    """Whether the pair was rated twice, to measure the judge's agreement with itself."""
    second_score: float | None = None
    """The score of the second rating; missing where there is no second rating or it has none."""
    error: str | None = None


PEOPLE = "people"
"""Who answered, where no model wrote any part of a pair."""


class Pair(Row):
    """An instruction and its response, whichever of the two a model wrote; rated or not.

    The names are roles, not directions: for a backward model the response is the input. The id
    is the hash of the two texts (`spyhop.collect.pair_id`), or a given pair's own.
    """

    instruction: str
    response: str
    tag: Literal["seed", "web"]
    """`seed`: written by people. `web`: a text with a generated instruction."""
    collection: str
    """Data set of a seed pair (`oasst`, `lima`, ...); `web` for segments."""
    origin: str = ""
    """File and offset, or page, of the response."""
    licence: str = ""
    segment_id: str = ""
    """Id of the segment that is the response; empty for seed pairs."""
    writer: str = ""
    """Model that wrote the instruction; empty if a person wrote it."""
    sample_index: int = 0
    rating: Rating | None = None
    """Absent until the pair is rated."""


class Label(Row):
    """A human label for a pair; the id is the pair's."""

    is_good: bool
    """Whether the pair is worth training on."""
    score: float | None = None
    """On the judge's scale, if the person gave a score."""


class Finding(Row):
    """One check of a gate; the id is its name."""

    value: float | None
    """The measured value; absent if the check does not apply or cannot be measured."""
    low: float | None = None
    high: float | None = None
    """95 % confidence interval, if there is one."""
    limit: float | None = None
    num_rows: int
    """Number of rows measured."""
    is_passed: bool
    text: str
    """The finding in words, as an error or a page shows it."""


class Item(Row):
    """One evaluation question with its gold answer."""

    task: str
    suite: str
    """Benchmark the task belongs to (`bbh`, `agieval`, `world`)."""
    question: str
    """The user turn with its options, without the cue."""
    text: str = ""
    """The question without options and cue, as decontamination searches for it; empty where it is
    the same as `question`."""
    options: list[str] = []
    """Labels of the options in order (`A`, `B`, ...); empty for a free answer."""
    target: str
    """The gold label for multiple choice, else the gold text."""
    chance: float = 0.0
    """Accuracy of a uniform guess; 0 for a free answer."""
    cue: str = ""
    """Beginning of the response. The form `prefilled` lets the response begin with it, the form
    `asked` appends it to the question."""
    continuations: list[str] = []
    """Text of each option as scored by likelihood, with the white space before it."""
    contexts: list[str] = []
    """Prompt of each option where the options differ in the prompt instead (WinoGrande)."""
    golds: list[str] = []
    """Every accepted answer, where there are several: labels, or free texts."""
    passage: str = ""
    """Id of the passage that items share; such items are not independent."""
    topic: str = ""
    """Exam, subject or category."""

    @property
    def asked(self) -> str:
        """The user turn of the form `asked`: question and cue."""
        return f"{self.question}{self.cue}"


class Score(Row):
    """A model's answer to one item, as extracted and judged by rule."""

    suite: str
    task: str
    response: str
    extracted: str | None
    """The answer found in the response; null if there is no answer (NOANSWER)."""
    correct: bool
    value: float = Field(default_factory=lambda row: float(row["correct"]))
    """The item's score under `metric`: for `accuracy` 1 if the answer is right, else 0."""
    metric: str = "accuracy"
    target: str
    chance: float
    """Accuracy of a uniform guess on this item, 0 for free answers."""
    finish_reason: str
    """As the provider names it, for people."""
    error: str | None = None
    ending: Ending = Field(
        default_factory=lambda row: ending_of(row["finish_reason"], row["response"], row["error"])
    )
    response_tokens: int
    sample_index: int = 0
    metrics: dict[str, float] = {}
    """Further scores of the item by metric, such as `acc_norm` or `first_capital`."""
    passage: str = ""
    topic: str = ""
    """As the item's."""
    form: Literal["", "asked", "prefilled", "plain"] = ""
    """Where the cue of the answer was: in the user's turn, in the response, or in plain text."""


class Question(Row):
    """An open question: the user's turns, with reference answers if there are any."""

    suite: str
    topic: str = ""
    """Category or skill."""
    turns: list[str]
    references: list[str] = []
    """Correct answer to each turn; a question with some is judged by the `reference` prompt."""


class Response(Row):
    """A model's responses to the turns of a question; the id is the question's."""

    model: str = ""
    turns: list[str]
    ending: Ending = "whole"
    """Of the last turn."""
    origin: str = ""
    """Id of the answer in its file."""


class Verdict(Row):
    """A verdict on one question: which of two responses is better, or how good one is.

    A verdict that cannot be had is missing: it is never a loss or a low score.
    """

    item_id: str
    """Id of the question."""
    judge: str
    """Name of the model, or id of the person."""
    a: str = ""
    b: str = ""
    """Names of the compared models; `b` is empty where one response is scored."""
    order: Literal["", "ab", "ba"] = ""
    """Which response the judge read first; empty where it read only one, or it is not known."""
    winner: Literal["a", "b", "tie"] | None = None
    score: float | None = None
    """Grade of the response of `a`."""
    score_b: float | None = None
    """Grade of the response of `b`, if the judge grades both."""
    missing: str = ""
    """Why there is neither winner nor score: `no_verdict`, `two_verdicts`, `no_response` (a model
    has none), or the ending of the judge's reply."""
    reason: str = ""
    """The judge's whole reply."""
    turn: int = 1
    """Turn of the conversation that is judged, from 1."""
    repeat: int = 0
    """1 for the second verdict on the same texts in the same order."""
    suite: str = ""
    topic: str = ""
    """As the question's."""
    error: str | None = None


class Preference(Row):
    """Two responses to one prompt, of which one is better."""

    messages: list[Message]
    """The prompt."""
    chosen: str
    """A thought before a response is in `<think>` tags at its start."""
    rejected: str
    chosen_origin: str
    """Model or person that the response came from."""
    rejected_origin: str
    reason: str = ""
    """Evidence that it is better, such as `right > wrong` or `5 > 2`; empty if unknown."""
    licence: str = ""
    """Of the chosen response."""
