"""DPO: its gradient, its masks, its reference, and a training that learns to prefer."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradients import CPU, WAYS, _Student, toy_model

import toys
from spyhop.collect import MessagesConfig, read_preferences
from spyhop.render import TURNS, Renderer
from spyhop.schema import Message, Preference, TrainingError
from spyhop.stage import Context
from spyhop.store import Artifact, Source
from spyhop.train import DPOConfig, OptimizerConfig, TuneConfig, read_metrics, tune
from spyhop.train.distributed import Group
from spyhop.train.encoding import Encoding
from spyhop.train.engine import Engine, TrainingResult
from spyhop.train.preference import DPO, PairScore, reference_config, score_pairs
from spyhop.train.rows import TokenRows, tokenise

BETA = 0.3
SIDES = [(12, 30), (9, 9), (25, 4), (7, 16), (31, 28)]
"""Tokens of the two sequences of each pair."""


def _pairs() -> TokenRows:
    source = np.random.default_rng(5)
    lengths = [sum(pair) for pair in SIDES]
    is_supervised = source.random(sum(lengths)) < 0.4
    starts = np.concatenate([[0], np.cumsum(lengths)])
    splits = np.array([first for first, _ in SIDES], np.int32)
    is_supervised[np.concatenate([starts[1:] - 1, starts[:-1] + splits - 1])] = True
    ids = source.integers(0, 500, sum(lengths)).astype(np.int32)
    numbers = np.arange(len(SIDES))
    return TokenRows(ids, is_supervised, starts, [0, len(SIDES)], numbers, splits)


def _score(model: Any, ids: Any, mask: Any) -> torch.Tensor:
    ids = torch.from_numpy(ids.astype(np.int64))
    logits = model(input_ids=ids[None]).logits[0, :-1]
    losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
    return -(losses * torch.from_numpy(mask[1:].copy())).sum()


def _sides(rows: TokenRows) -> list[list[tuple[Any, Any]]]:
    cuts = zip(rows.starts, rows.starts[:-1] + rows.splits, rows.starts[1:], strict=False)
    return [[(rows.ids[s], rows.is_supervised[s]) for s in (slice(a, m), slice(m, b))]
            for a, m, b in cuts]  # fmt: skip


def _dpo(policy: Any, reference: Any, rows: TokenRows) -> torch.Tensor:
    """The paper's equation 7, pair by pair, on the models' own logits."""
    losses = []
    for chosen, rejected in _sides(rows):
        with torch.no_grad():
            before = _score(reference, *chosen) - _score(reference, *rejected)
        after = _score(policy, *chosen) - _score(policy, *rejected)
        losses.append(-torch.log(1 / (1 + torch.exp(-BETA * (after - before)))))
    return sum(losses) / len(losses)  # type: ignore[return-value]


def _reference_model() -> Any:
    model = toy_model(torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    return model


def _engine(objective: Any, model: Any, way: dict[str, Any]) -> Engine:
    return Engine(
        objective, _Student(model), Group(torch.device("cpu")), CPU.model_copy(update=way),  # type: ignore[arg-type]
        TrainingResult(), precision="float32", longest=60,
    )  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_the_gradient_is_that_of_the_paper_however_a_batch_is_cut(way: str):
    rows, policy = _pairs(), toy_model(torch.float64)
    wanted = _dpo(policy, _reference_model(), rows)
    wanted.backward()
    gradient = torch.cat([p.grad.flatten() for p in policy.parameters()])
    with torch.no_grad():
        scores = np.array([[float(_score(_reference_model(), *each)) for each in pair]
                           for pair in _sides(rows)])  # fmt: skip
    model = toy_model(torch.float64)
    objective = DPO(rows, config=DPOConfig(beta=BETA), reference=scores)
    engine = _engine(objective, model, WAYS[way])
    model.train()
    loss, num_pairs, metrics = engine.gradient(np.arange(len(SIDES)))
    found = torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]
    assert float((found - gradient).norm() / gradient.norm()) < 1e-9
    assert loss == pytest.approx(wanted.item(), rel=1e-9) and num_pairs == len(SIDES)
    gains = metrics["chosen_gain"] - metrics["rejected_gain"]
    assert metrics["margin"] == pytest.approx(BETA * gains)
    lengths = [[mask[1:].sum() for _, mask in pair] for pair in _sides(rows)]
    shown = [metrics["chosen_tokens"], metrics["rejected_tokens"]]
    assert shown == pytest.approx(np.mean(lengths, axis=0).tolist())
    for some, sums in _engine(objective, _reference_model(), WAYS[way]).logprobs(np.arange(5)):
        assert sums.reshape(-1, 2).numpy() == pytest.approx(scores[some], rel=1e-9)


def _row(number: int, chosen: str, rejected: str, **changes: Any) -> Preference:
    turns = [Message(role="user", content=f"say {number}")]
    return Preference(
        id=f"p{number}", messages=turns, chosen=chosen, rejected=rejected,
        chosen_origin="teacher", rejected_origin="assistant", **changes,
    )  # fmt: skip


PAIRS = [_row(n, f"yes, {n}.", f"no no {n}") for n in range(24)]


def _artifact(root: Path, pairs: list[Preference]) -> Artifact:
    """Read pairs from a file, as a user has them."""
    file = root / f"pairs-{len(pairs)}.jsonl"
    lines = [
        {**pair.model_dump(), "prompt": [turn.model_dump() for turn in pair.messages]}
        for pair in pairs
    ]
    file.write_text("".join(f"{json.dumps(line | {'messages': None})}\n" for line in lines))
    return read_preferences.run(root, MessagesConfig(), file=Source(file).open(root))


def test_both_responses_are_supervised_and_half_pairs_are_dropped(
    context: Context, words: Any, tmp_path: Path
):
    pairs = [*PAIRS[:2], _row(7, "fine", " "), _row(8, "ok", "x" * 99)]
    rows = tokenise(context, [_artifact(tmp_path, pairs)], Encoding(Renderer(words, TURNS), 60))
    assert context.dropped == {"empty": 1, "too_long": 1} and len(rows.splits) == 2
    for number, sides in enumerate(_sides(rows)):
        said = [words.decode(ids[mask]) for ids, mask in sides]
        assert said == [f"yes, {number}.<|end|>", f"no no {number}<|end|>"]
        asked = [words.decode(ids[~mask]) for ids, mask in sides]
        assert asked[0] == asked[1] and f"say {number}" in asked[0]


CONFIG = TuneConfig(
    epochs=12, batch_tokens=400, max_tokens=90, objective=DPOConfig(beta=0.5),
    optimizer=OptimizerConfig(learning_rate=3e-3),
)  # fmt: skip


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Artifact:
    return Source(tiny_folder).open(tmp_path)


def _trained(root: Path, base: Artifact, config: TuneConfig = CONFIG) -> tuple[Artifact, Artifact]:
    pairs = {"pairs": _artifact(root, PAIRS)}
    reference = score_pairs.run(root, reference_config(config), runtime=CPU, base=base, pairs=pairs)
    made = tune.run(root, config, runtime=CPU, base=base, answers=pairs, reference=reference)
    return reference, made


def test_a_training_prefers_what_is_chosen_and_shows_what_else_moved(
    tmp_path: Path, base: Artifact
):
    reference, made = _trained(tmp_path, base)
    metrics = read_metrics(made)["metrics"]
    losses = read_metrics(made)["losses"]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-4)  # the policy is the reference
    assert metrics["margin"][0] == pytest.approx(0, abs=1e-3)
    assert losses[-1] < 0.2 and metrics["accuracy"][-1] == 1
    pairs = {"pairs": _artifact(tmp_path, PAIRS)}
    after = score_pairs.run(tmp_path, reference_config(CONFIG), runtime=CPU, base=made, pairs=pairs)
    one, two = (list(each.rows(PairScore)) for each in (reference, after))
    gains = [
        (b.chosen - a.chosen) - (b.rejected - a.rejected) for a, b in zip(one, two, strict=True)
    ]
    assert min(gains) > 0 and [each.chosen_tokens for each in one] == [
        each.chosen_tokens for each in two
    ]
    counts = made.record.counts
    assert counts["rows/read"] == counts["answered_by/teacher"] == 24
    steps = [
        json.loads(line) for line in (made.path / "logs" / "steps.jsonl").read_text().splitlines()
    ]
    assert {"margin", "chosen_gain", "rejected_gain", "chosen_tokens"} <= steps[-1].keys()


def test_pairs_and_objective_belong_together(tmp_path: Path, base: Artifact):
    pairs = {"pairs": _artifact(tmp_path, PAIRS)}
    run = partial(tune.run, tmp_path, runtime=CPU, base=base)
    with pytest.raises(TrainingError, match="rows are preferences; set objective"):
        run(config=CONFIG.model_copy(update={"objective": None}), answers=pairs)
    with pytest.raises(TrainingError, match="needs the input `reference`"):
        run(config=CONFIG, answers=pairs)
    answers = {"one": toys.artifact_of(tmp_path, [toys.answer_row(1, "a", "b")])}
    with pytest.raises(TrainingError, match="objective needs pairs"):
        run(config=CONFIG, answers=answers)
    few = {"few": _artifact(tmp_path, PAIRS[:5])}
    other = score_pairs.run(tmp_path, reference_config(CONFIG), runtime=CPU, base=base, pairs=few)
    with pytest.raises(TrainingError, match="scores of other pairs"):
        run(config=CONFIG, answers=pairs, reference=other)


def test_scoring_continues_where_it_was_killed(
    tmp_path: Path, base: Artifact, monkeypatch: pytest.MonkeyPatch
):
    pairs = {"pairs": _artifact(tmp_path, PAIRS)}
    real, left = Engine.logprobs, []

    def dying(engine: Engine, rows: Any) -> Any:
        left.append(len(rows))
        for number, found in enumerate(real(engine, rows)):
            if number == 3 and len(left) == 1:
                raise KeyboardInterrupt
            yield found

    def scored(root: Path) -> list[PairScore]:
        few = CPU.model_copy(update={"microbatch_tokens": 200})
        config = reference_config(CONFIG)
        made = score_pairs.run(root, config, runtime=few, base=base, pairs=pairs)
        return list(made.rows(PairScore))

    monkeypatch.setattr(Engine, "logprobs", dying)
    with pytest.raises(KeyboardInterrupt):
        scored(tmp_path)
    again, whole = scored(tmp_path), scored(tmp_path / "other")
    assert left[0] == left[2] == 24 > left[1] > 0
    for one, other in zip(again, whole, strict=True):
        assert one.chosen == pytest.approx(other.chosen, rel=1e-5)
        assert one.rejected == pytest.approx(other.rejected, rel=1e-5)


def test_a_thought_is_trained_on_only_where_the_format_has_a_place_for_it(
    context: Context, words: Any, tmp_path: Path
):
    pair = _row(1, "<think>\nhm\n</think>\n\nyes", "no")
    rows = tokenise(context, [_artifact(tmp_path, [pair])], Encoding(Renderer(words, TURNS), 90))
    (((ids, mask), _),) = _sides(rows)
    assert words.decode(ids[mask]) == "yes<|end|>"
