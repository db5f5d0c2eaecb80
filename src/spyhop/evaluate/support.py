"""Which sentences of a response does its passage not support? By a judge, or a model of entailment.

Of the items with a `passage`, whose questions contain the text to answer from. Every sentence is a
row that a person can check.
"""

from collections.abc import Iterator, Mapping

from spyhop.models import Classifier, Model, Request, Sampling, pick_label
from spyhop.schema import Config, Item, Row, Score, prompt_turns
from spyhop.stage import Calls, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.text.asking import sentences
from spyhop.text.template import fill
from spyhop.text.thought import without_thought
from spyhop.text.verdict import verdict_word

CHECK = (
    "Does the text support the sentence? Judge by the text alone, not by what you know.\n\n"
    "Text:\n{text}\n\nSentence:\n{sentence}\n\n"
    'End with a line of its own: "VERDICT: SUPPORTED" or "VERDICT: UNSUPPORTED".'
)
VERDICTS = ("supported", "unsupported")
ENTAILS = ("entailment", "entails", "supported", "LABEL_2")
"""Labels of published models of entailment; the first one that a model has counts."""
SENTENCES = 4
"""Planning figure: sentences of a response."""


class SupportConfig(Config):
    """How a sentence is checked."""

    check: str = CHECK
    """A judge's prompt, with `{text}` and `{sentence}`; a classifier reads the two as a pair."""


class Support(Row):
    """A sentence of a response and whether the passage supports it."""

    item_id: str
    suite: str
    sentence: str
    passage: str
    is_supported: bool | None
    """None where the judge gave no verdict."""
    reason: str = ""
    """The judge's reply, or the probability of entailment."""
    error: str | None = None


def plan_check_support(
    config: SupportConfig, items: Mapping[str, Estimate], scores: Estimate, judge: Estimate
) -> Estimate:
    """One call per sentence."""
    n = SENTENCES * scores.rows
    tokens = {"prompt_tokens": 300 * n, "response_tokens": 60 * n, "most_response_tokens": 256 * n}
    return Estimate(rows=n, calls={"judge": Calls(requests=n, **tokens)})


@stage(version=1, writes=Support, plan=plan_check_support)
def check_support(
    ctx: Context,
    config: SupportConfig,
    *,
    items: Mapping[str, Artifact],
    scores: Artifact,
    judge: Model,
) -> Iterator[Support]:
    """Yield every sentence of the responses, in order; one without a verdict is counted as such."""
    passages = {item.id: item.question for each in items.values() for item in each.rows(Item)}
    rows = [
        Support(
            id=f"{score.id}/{score.sample_index}/{n}",
            item_id=score.id,
            suite=score.suite,
            sentence=sentence,
            passage=passages[score.id],
            is_supported=None,
        )
        for score in scores.rows(Score)
        if score.passage
        for n, sentence in enumerate(sentences(without_thought(score.response)))
    ]
    for row, found in zip(rows, _verdicts(config, rows, judge), strict=True):
        done = row.model_copy(update=found)
        ctx.count({None: "missing", True: "supported", False: "unsupported"}[done.is_supported])
        yield done


def _verdicts(
    config: SupportConfig, rows: list[Support], judge: Model
) -> Iterator[dict[str, object]]:
    if isinstance(judge.config, Classifier):
        pairs = (
            Request(id=row.id, messages=prompt_turns(row.passage), continuation=row.sentence)
            for row in rows
        )
        for labels in judge.classify(pairs, total=len(rows)):
            if labels.error is not None:
                yield {"error": labels.error}
                continue
            label = pick_label(labels.scores, ENTAILS)
            best = max(labels.scores, key=labels.scores.__getitem__)
            reason = f"{label} {labels.scores[label]:.3f}"
            yield {"is_supported": best == label, "reason": reason}
        return
    texts = (fill(config.check, text=row.passage, sentence=row.sentence) for row in rows)
    asked = (Request(id=r.id, messages=prompt_turns(t)) for r, t in zip(rows, texts, strict=True))
    for reply in judge.generate(asked, Sampling(max_new_tokens=256), total=len(rows)):
        said = verdict_word(reply.text, VERDICTS) if reply.ending == "whole" else None
        verdict = None if said is None else said == "supported"
        yield {"is_supported": verdict, "reason": reply.text, "error": reply.error}
