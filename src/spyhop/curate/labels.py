"""Human labels for pairs, for the gate: JSONL, CSV or Parquet rows with the pair's id or texts."""

from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from pydantic import Field

from spyhop.collect import pair_id
from spyhop.schema import Config, InputError, Label, Pair
from spyhop.stage import Context, stage, sum_estimates
from spyhop.store import Artifact
from spyhop.store.files import field
from spyhop.store.rows import read_rows, row_files

WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""Accepted spellings of `good`."""


class LabelsConfig(Config):
    """Files of human labels."""

    good_score: float = Field(4.0, ge=1, le=5)
    """Score from which a pair is good, for rows without `good`."""


@stage(version=2, writes=Label, plan=lambda config, folder, pairs=None: sum_estimates([folder]))
def read_labels(
    ctx: Context, config: LabelsConfig, *, folder: Artifact, pairs: Artifact | None = None
) -> Iterator[Label]:
    """Read labels: rows with `good` (true or false) or `score` (1 to 5), and the pair's identity.

    The pair is given by `id`, or by `instruction` and `response`. With `pairs`, labels of other
    pairs are counted as `foreign`. Labels of several people (`rater`) on a pair become one: that of
    the majority, with the mean of their scores; without a majority it is counted as `disputed`.
    """
    read = [
        (where, str(row.get("rater") or ""), _label(config, row, where))
        for path in row_files(folder.path)
        for where, row in read_rows(path)
    ]
    named, ids = {label.id for *_, label in read}, dict[str, str]()
    for row in pairs.rows(Pair) if pairs is not None else ():  # by their ids, or by their texts
        names = {row.id, pair_id(row.instruction, row.response)} & named
        ids |= dict.fromkeys(names, row.id)
    if pairs is not None and not ids:
        raise InputError(f"{folder}: no label (of {len(read):,}) belongs to a pair in {pairs}")
    by_pair: dict[str, dict[str, Label]] = defaultdict(dict)
    for where, rater, label in read:
        name, is_foreign = ids.get(label.id, label.id), pairs is not None and label.id not in ids
        if rater in by_pair[name] and not is_foreign:  # one question may have several responses
            raise InputError(f"{where}: pair {name} is labelled twice")
        by_pair[name][rater] = label
        ctx.count("foreign", int(is_foreign))
    for name, labels in by_pair.items():
        lead = sum(1 if label.is_good else -1 for label in labels.values())
        if not lead:
            ctx.count("disputed")
            continue
        ctx.count("good" if lead > 0 else "bad")
        scores = [label.score for label in labels.values() if label.score is not None]
        yield Label(id=name, is_good=lead > 0, score=fmean(scores) if scores else None)


def _label(config: LabelsConfig, row: dict[str, Any], where: str) -> Label:
    name = row.get("id")
    if name in (None, ""):
        name = pair_id(field(row, "instruction", where), field(row, "response", where))
    score, good = _score(row.get("score"), where), row.get("good")
    is_good = score is not None and score >= config.good_score
    if good not in (None, ""):
        if str(good).lower() not in WORDS:
            raise InputError(f"{where}: good = {good!r:.40}: write true or false")
        is_good = WORDS[str(good).lower()]
    elif score is None:
        raise InputError(f"{where}: a label needs good (true or false) or score (1 to 5)")
    return Label(id=str(name), is_good=is_good, score=score)


def _score(given: object, where: str) -> float | None:
    if given in (None, ""):
        return None
    try:
        score = float(str(given))
    except ValueError:
        score = 0.0
    if not 1 <= score <= 5:
        raise InputError(f"{where}: score = {given!r:.40}: write a number from 1 to 5")
    return score
