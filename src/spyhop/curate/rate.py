"""Self-curation: a model rates pairs from 1 to 5; missing ratings are counted.

A model too small to judge rates by the likelihood of the response given the instruction.

Source: Humpback (arXiv:2308.06259), section 2.2 and Table 19 (our wording, the same structure: a
task, five described scores, the reason first and the verdict last).
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from spyhop.models import Choice, Model, Reply, Request, SampledGeneration, Sampling
from spyhop.models.capabilities import LOG_PROBABILITIES
from spyhop.models.script import Ask, Failures, Script, play
from spyhop.schema import Config, Message, Pair, Rating, prompt_turns
from spyhop.stage import CHARS_PER_TOKEN, Calls, Context, Estimate, stage
from spyhop.store import Artifact, number_of
from spyhop.text.tables import table
from spyhop.text.template import fill
from spyhop.text.verdict import verdict_score, without_verdict

PROMPTS: dict[str, str] = table("curate/prompts.toml")
SCORES = ("1", "2", "3", "4", "5")
PAIR_TOKENS, REASON_TOKENS = 500, 100
"""Planning figures."""

VERDICT_START = "Score:"
"""Prefilled start of the verdict; `reasoned` should request the same."""


class RateConfig(Config):
    """Prompt of the judge and method of rating. Prompts are whole texts; `{...}` are replaced.

    A prompt is `scale`, then `reasoned` (or `unreasoned`), then `shown`; a second rating puts
    `shown` first, so that a judge at temperature 0 can disagree with itself, too.
    """

    method: Literal["verdict", "choice", "expected"] = "expected"
    """How a score is read. `verdict`: the judge writes reasons and a verdict line, which is parsed
    strictly; unparsed verdicts count as missing. `choice`: it chooses a score without reasons.
    `expected`: it writes reasons, its verdict is prefilled, and the score is the mean of 1 to 5
    under the probabilities of the next token."""
    scale: str = PROMPTS["scale"]
    """Prompt: the task and the meaning of each score."""
    reasoned: str = PROMPTS["reasoned"]
    """Prompt: request for reasons and a verdict line."""
    unreasoned: str = PROMPTS["unreasoned"]
    """For `choice`."""
    shown: str = PROMPTS["shown"]
    """Prompt: the pair, with the fields `{instruction}` and `{response}`."""
    system_message: str = ""
    """System message of the judge; an empty one is not sent."""
    sampling: SampledGeneration = Sampling(temperature=0.7, top_p=0.9)
    """Sampling of reasons and verdicts."""
    num_verdicts: int = Field(1, ge=1)
    """Samples whose mean is the score, for `verdict`."""
    fallback_verdicts: int = Field(5, ge=1)
    """Samples whose mean is the score, for `expected` with a model that returns no
    log-probabilities or cannot continue a prefilled response (many served models cannot)."""
    num_repeated: int = Field(250, ge=0)
    """Number of pairs, sampled by hash, to rate twice; the gate needs 200."""

    @model_validator(mode="after")
    def _can_ask(self) -> "RateConfig":
        for place in ("{instruction}", "{response}"):
            if place not in self.shown:
                raise ValueError(f"shown does not contain {place}")
        if self.method == "verdict" and self.num_verdicts > 1 and not self.sampling.temperature:
            raise ValueError(
                "verdicts at temperature 0 are identical; set sampling.temperature above 0"
            )
        return self


def plan_rate(config: RateConfig, pairs: Estimate, judge: Estimate) -> Estimate:
    """Count ratings, second ratings, one more short call each for `expected`, and its fallback."""
    rated = pairs.rows + min(config.num_repeated, pairs.rows)
    texts = (config.scale, config.reasoned, config.shown, config.system_message)
    asked = (pairs.row_tokens or PAIR_TOKENS) + sum(map(len, texts)) / CHARS_PER_TOKEN
    room = config.sampling.max_new_tokens
    reason = min(REASON_TOKENS, room)
    written = {"verdict": config.num_verdicts, "choice": 0, "expected": 1}[config.method]
    weighed = int(config.method != "verdict")
    further = _num_fallback(config) - 1 if config.method == "expected" else 0
    if not judge.gives_log_probabilities:
        written, further = written + further, 0
    longer = (room - reason) * written * weighed
    calls = Calls(
        requests=rated * (written + weighed),
        prompt_tokens=round(rated * (asked * (written + weighed) + reason * written * weighed)),
        response_tokens=rated * (written * reason + weighed),
        most_response_tokens=rated * (written * room + weighed),
        further_prompt_tokens=round(rated * (asked * further + longer)),
        further_response_tokens=rated * further * room,
    )
    return Estimate(rows=pairs.rows, row_tokens=pairs.row_tokens, calls={"judge": calls})


@stage(version=4, writes=Pair, plan=plan_rate)
def rate(ctx: Context, config: RateConfig, *, pairs: Artifact, judge: Model) -> Iterator[Pair]:
    """Yield every pair with its rating, in order; earlier ratings are replaced.

    Counts: `score/1` to `score/5` (rounded), `missing/<reason>`, `repeated`, and `no_probabilities`
    if `expected` fell back on the mean of verdicts.
    """
    names = (name for batch in pairs.batches(["id"]) for name in batch["id"].to_pylist())
    place = lambda name: number_of(f"0/repeated/{name}")  # noqa: E731
    repeated = set(nsmallest(config.num_repeated, names, key=place))
    failures = Failures(judge.label, ctx.runtime.max_error_frac)
    judging = _Judging(config, judge, judge.has_all(LOG_PROBABILITIES, "prefill"))
    is_told = False
    scripts = (judging.about(row, row.id in repeated) for row in pairs.rows(Pair))
    for row in play(scripts, judge):
        rating = row.rating
        assert rating is not None
        failures.see(rating.error)
        count_rating(ctx, rating)
        ctx.count("repeated", int(rating.is_repeated))
        is_fallback = config.method == "expected" and rating.method == "verdict"
        ctx.count("no_probabilities", int(is_fallback))
        if is_fallback and rating.score is not None and not is_told:
            ctx.notice(
                f"{judge.label} returns no log-probabilities for a prefilled verdict; averaging "
                f"{config.fallback_verdicts} sampled verdicts instead"
            )
            is_told = True
        yield row
    failures.check()


def count_rating(ctx: Context, rating: Rating) -> None:
    """Count a rating under its rounded score, or under the reason why it is missing."""
    if rating.score is None:
        ctx.count(f"missing/{rating.missing}")
    else:
        ctx.count(f"score/{rounded(rating.score)}")


def read_ratings(pairs: Artifact) -> Iterator[tuple[str, Rating | None]]:
    """Yield id and rating of every pair, in order, without reading the texts."""
    for batch in pairs.batches(["id", "rating"]):
        for row in batch.to_pylist():
            found = row["rating"]
            yield row["id"], None if found is None else Rating.model_validate(found)


def rounded(score: float) -> int:
    """Return the nearest whole score; halves go up."""
    return int(score + 0.5)


def _num_fallback(config: RateConfig) -> int:
    """Return the number of verdicts that replace one without probabilities."""
    return config.fallback_verdicts if config.sampling.temperature else 1


@dataclass(frozen=True, slots=True)
class _Judging:
    config: RateConfig
    judge: Model
    is_scored: bool
    """Whether a verdict that is begun may have probabilities."""

    def about(self, row: Pair, is_repeated: bool) -> Script[Pair]:
        rating = yield from self._rate(row, is_second=False)
        if is_repeated:
            second = yield from self._rate(row, is_second=True)
            rating = _with(rating, is_repeated=True, second_score=second.score)
        return row.model_copy(update={"rating": rating})

    def _rate(self, row: Pair, *, is_second: bool) -> Script[Rating]:
        config = self.config
        how = config.unreasoned if config.method == "choice" else config.reasoned
        shown = fill(config.shown, instruction=row.instruction, response=row.response)
        parts = (shown, config.scale, how) if is_second else (config.scale, how, shown)
        messages = prompt_turns("\n\n".join(filter(None, parts)), config.system_message)
        if config.method == "verdict":
            return self._read((yield self._verdicts(messages, range(config.num_verdicts))))
        if config.method == "expected":
            return (yield from self._expect(messages))
        begun = f"{VERDICT_START} "
        (choice,) = yield [Ask(self.judge, messages, options=SCORES, continuation=begun)]
        return self._weighed(choice)

    def _verdicts(self, messages: list[Message], places: range) -> list[Ask]:
        return [Ask(self.judge, messages, self.config.sampling, place) for place in places]

    def _expect(self, messages: list[Message]) -> Script[Rating]:
        """Request reasons, prefill the verdict, and read the probabilities of the scores."""
        (reply,) = yield self._verdicts(messages, range(1))
        if reply.ending in ("failed", "refused"):
            return _with(self._read([reply]), method="expected")
        reason = without_verdict(reply.text)
        begun = f"{reason}\n{VERDICT_START} " if reason else f"{VERDICT_START} "
        error = None
        if self.is_scored:
            (choice,) = yield [Ask(self.judge, messages, options=SCORES, continuation=begun)]
            if choice.probabilities and not choice.is_parsed:
                return _with(self._weighed(choice), reason=reason, written=_score(reply))
            error = choice.error
        more = yield self._verdicts(messages, range(1, _num_fallback(self.config)))
        found = self._read([reply, *more])
        return found if found.score is not None else _with(found, error=error)

    def _weighed(self, choice: Choice) -> Rating:
        """Return the mean of the scores under their probabilities; of a choice, the likeliest."""
        shares = choice.probabilities if choice.error is None else ()
        mean = sum((n + 1) * share for n, share in enumerate(shares)) if shares else None
        is_choice = self.config.method == "choice" and shares
        return Rating(
            score=1.0 + shares.index(max(shares)) if is_choice else mean,
            method=self.config.method,
            judge=self.judge.label,
            missing="" if shares else "no_verdict" if choice.error is None else "failed",
            probabilities=list(shares),
            value=mean,
            error=choice.error,
        )

    def _read(self, replies: Sequence[Reply]) -> Rating:
        """Return the mean of the parsed verdicts; without any, the rating is missing, never low."""
        scores = [score for reply in replies if (score := _score(reply)) is not None]
        return Rating(
            score=sum(scores) / len(scores) if scores else None,
            method="verdict",
            judge=self.judge.label,
            missing="" if scores else _missing(replies[0]),
            reason=without_verdict(replies[0].text),
            error=None if scores else replies[0].error,
        )


def _with(rating: Rating, **changes: object) -> Rating:
    return rating.model_copy(update=changes)


def _score(reply: Reply) -> float | None:
    """Return the score of a whole reply; the last line of a cut reply may be incomplete."""
    return verdict_score(reply.text) if _missing(reply) == "no_verdict" else None


def _missing(reply: Reply) -> str:
    """Return why a reply has no score: its ending, or that it contains no verdict."""
    return "no_verdict" if reply.ending == "whole" else reply.ending


class LikelihoodConfig(Config):
    """Rating of pairs by the likelihood of the response."""

    is_relative: bool = False
    """Subtract log p(response), so that a text that is likely under any instruction, such as a
    menu, does not score high; doubles the requests."""
    system_message: str = ""
    """System message above the instruction; use that of the model's training on seed pairs."""
    unasked: str = ""
    """User turn in place of the instruction, for log p(response)."""


def plan_likelihood(config: LikelihoodConfig, pairs: Estimate, model: Estimate) -> Estimate:
    """One or two requests per pair, without generated tokens."""
    requests = pairs.rows * (1 + config.is_relative)
    prompt_tokens = round(requests * (pairs.row_tokens or PAIR_TOKENS))
    calls = Calls(requests=requests, prompt_tokens=prompt_tokens)
    return Estimate(rows=pairs.rows, row_tokens=pairs.row_tokens, calls={"model": calls})


@stage(version=1, writes=Pair, plan=plan_likelihood)
def rate_by_likelihood(
    ctx: Context, config: LikelihoodConfig, *, pairs: Artifact, model: Model
) -> Iterator[Pair]:
    """Yield every pair, in order, rated 1 to 5 by its quintile; 5 is the most likely quintile.

    `rating.value` is log p(response | instruction) per token (less log p(response) per token).
    Pairs that do not fit the model are missing (`failed`). 16 bytes a row in memory.

    Counts: `score/1` to `score/5`, `missing/failed`.

    Raises:
        ModelError: If more than `max_error_frac` of the pairs have no likelihood (served models).
    """
    failures = Failures(model.label, ctx.runtime.max_error_frac)
    values = array("d")
    num_asked = 1 + config.is_relative
    requests = (
        Request(
            id=f"{place}.{part}",
            messages=prompt_turns(asked, config.system_message),
            continuation=row.response,
        )
        for place, row in enumerate(pairs.rows(Pair))
        for part, asked in enumerate((row.instruction, config.unasked)[:num_asked])
    )
    for found in model.logprobs(requests, total=pairs.num_rows * num_asked):
        failures.see(found.error)
        values.append(np.nan if found.error is not None else found.mean)
    failures.check()
    measured = np.frombuffer(values, dtype=np.float64)
    if config.is_relative:
        measured = measured[0::2] - measured[1::2]
    for row, value, score in zip(pairs.rows(Pair), measured, fifths(measured), strict=True):
        known: dict[str, Any] = {"score": float(score), "value": float(value)}
        if np.isnan(value):
            known = {"score": None, "missing": "failed", "error": "it could not be weighed"}
        rating = Rating(method="likelihood", judge=model.label, **known)
        count_rating(ctx, rating)
        yield row.model_copy(update={"rating": rating})


def fifths(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the quintile of each value, 1 to 5, as evenly as possible; undefined for NaN."""
    num_known = int((~np.isnan(values)).sum())
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))  # NaN comes last
    return 1 + np.minimum(len(SCORES) - 1, ranks * len(SCORES) // max(1, num_known))
