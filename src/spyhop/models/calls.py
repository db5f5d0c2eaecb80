"""What models are asked and what they return: sampling, requests and results."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from spyhop.schema import Config, Ending, Message, ending_of

Temperature = Annotated[float, Field(ge=0.0)] | Literal["unset"]


class Sampling(Config):
    """Sampling parameters."""

    max_new_tokens: int = Field(512, gt=0)
    """Most tokens of a response, hidden reasoning included."""
    temperature: Temperature = 0.0
    """Sampling temperature; 0 is greedy decoding. `unset` sends neither temperature, top_p nor seed
    to an endpoint, for models that reject them; a local model then samples as its generation config
    says."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus sampling: smallest set of tokens with at least this probability."""
    seed: int = 0
    """Randomness is drawn per request from the seed and the prompt, never from call order."""
    log_probability: bool = False
    """Ask an endpoint for the log-probability of its response."""
    json_schema: dict[str, Any] | None = None
    """JSON schema that the response must follow; endpoints only."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that end a response; they are not part of it."""

    @property
    def is_greedy(self) -> bool:
        """Whether every sample of a prompt is the same."""
        return self.temperature == 0

    def identity(self) -> dict[str, Any]:
        """Return the fields that are sent: two samplings that send the same share their replies."""
        fields = {name: getattr(self, name) for name in Sampling.model_fields}
        if not self.stop:
            del fields["stop"]
        if self.temperature == "unset":
            del fields["top_p"], fields["seed"]
        return fields


SAMPLED = {"temperature": 0.7, "top_p": 0.9}
"""Sampling of the Humpback paper."""
SampledGeneration = Annotated[
    Sampling,
    BeforeValidator(lambda given: {**SAMPLED, **given} if isinstance(given, Mapping) else given),
]
"""Sampling whose unset fields are those of the Humpback paper."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    id: str


class Request(_Frozen):
    """One call: a prompt, and for `choose` its options, for `logprobs` its continuation.

    For `generate` and `choose`, `continuation` is a prefilled response: the reply goes on after it,
    and options are scored after it. `classify` reads the last turn, and with a continuation the
    pair of both (premise and hypothesis).
    """

    messages: list[Message] = []
    text: str = ""
    """Plain prompt instead of `messages`: a document without chat format. Options follow it
    directly, so each begins with its own white space. Served models need a completions API."""
    options: tuple[str, ...] = ()
    continuation: str = ""
    ids: tuple[int, ...] = ()
    """Plain prompt as token ids, for `logprobs` of a served model."""
    scored_ids: tuple[int, ...] = ()
    """Token ids that are scored after `ids`."""
    num_top: int = 0
    """Likeliest tokens to return at each scored place."""
    with_unconditional: bool = False
    """For `choose`: also score each option without the prompt, after the begin token alone."""
    sample_index: int = 0


KeyedRequests = Sequence[tuple[str, Request]]
"""Requests, each with its key in the journal."""


class _Result(_Frozen):
    prompt_tokens: int = 0
    response_tokens: int = 0
    """Tokens written, hidden reasoning included."""
    usd: float = 0.0
    error: str | None = None


class Reply(_Result):
    """A response, or a call that failed permanently.

    `finish_reason` is the provider's own word, for people; `ending` is what spyhop acts on. `error`
    is set where the call failed: such a reply is never replayed.
    """

    text: str
    finish_reason: str
    ending: Ending = Field(
        default_factory=lambda row: ending_of(row["finish_reason"], row["text"], row["error"])
    )
    """Set where the reply is read; derived for replies that older code journaled."""
    cached_tokens: int = 0
    """Those of the prompt that the endpoint had read before, at another price."""
    cache_write_tokens: int = 0
    """Those of the prompt that the endpoint wrote to its cache, at another price."""
    reasoning_tokens: int = 0
    reasoning: str = ""
    log_probability: float | None = None
    """Natural log-probability of the response, summed over its tokens; None where unknown."""


class Choice(_Result):
    """The options of a request, scored; all lists are in the order of the options."""

    probabilities: list[float]
    """Normalised over the options; empty where the reply names none of them."""
    log_probabilities: list[float] = []
    """Natural log-probability of each option, summed over its tokens. An endpoint gives that of
    the option's first token. Empty where the model gives none."""
    unconditional: list[float] = []
    """Log-probability of each option without the prompt; empty unless the request asks for it."""
    num_tokens: list[int] = []
    num_characters: list[int] = []
    """Of each option, its leading white space excluded, as lm-eval counts them."""
    num_bytes: list[int] = []
    """Of each option in UTF-8: `log_probabilities` divided by them compare unequal lengths."""
    is_parsed: bool = False
    """True where the model gave no probabilities and its answer was read from its text."""


def scored_choice(
    request: Request,
    values: Sequence[Sequence[float]],
    prompt_tokens: int,
    *,
    alone: Mapping[str, float] | None = None,
    usd: float = 0.0,
) -> Choice:
    """Return a choice by the log-probability of each token of each option.

    `alone` is that of each option without the prompt.
    """
    totals = [math.fsum(some) for some in values]
    shares = [math.exp(total - max(totals)) for total in totals]
    return Choice(
        id=request.id,
        probabilities=[share / math.fsum(shares) for share in shares],
        log_probabilities=totals,
        unconditional=[alone[text] for text in request.options]
        if alone and request.with_unconditional
        else [],
        num_tokens=[len(some) for some in values],
        num_characters=[len(option.lstrip()) for option in request.options],
        num_bytes=[len(option.lstrip().encode()) for option in request.options],
        prompt_tokens=prompt_tokens,
        usd=usd,
    )


class TokenLogprobs(_Result):
    """Natural log-probability of each token of a continuation, given the prompt and those before.

    The end token is the last one.
    """

    values: list[float]
    """(T,); empty where the call failed."""
    texts: list[str] = []
    """Text of each token, as a served model states it."""
    top: list[dict[int, float]] = []
    """Log-probabilities of the likeliest `num_top` tokens at each place, by id; served models."""

    @property
    def mean(self) -> float:
        """Mean log-probability of a token."""
        return sum(self.values) / max(1, len(self.values))


class Labels(_Result):
    """The labels of a text, as a classifier or a moderation service scores them."""

    scores: dict[str, float]
    """Probability of each label; empty where the call failed."""
    flagged: tuple[str, ...] | None = None
    """Labels that a service flags by itself; None of a classifier."""


Result = TypeVar("Result", Reply, Choice, TokenLogprobs, Labels)
Kind = Literal["generate", "choose", "logprobs", "classify"]
