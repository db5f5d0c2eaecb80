"""The tool measures itself: twelve known bugs of evaluations, each planted and each found.

A bug is found by a rate that turns red, by a verdict below guessing, by a comparison that is
refused, by a re-reading that lists changed verdicts, or by a check that fails.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import toys
from fake import FakeModel
from spyhop.evaluate import (
    ContaminationRateConfig,
    ItemOverlap,
    ItemsConfig,
    MeasureConfig,
    TaskScores,
    check_contamination,
    measure,
    read_items,
    read_suite,
    red_rates,
    rescore,
    score_rows,
    task_scores,
    write_scores,
)
from spyhop.evaluate.comparison import compare_logs
from spyhop.evaluate.logs import read_log
from spyhop.models import Reply, Request, Sampling
from spyhop.render import ORCA, Renderer
from spyhop.schema import InputError, Item, Message, Score
from spyhop.statistics import near_chance
from spyhop.store import Artifact, Source

NUM = 24
LABELS = "ABCD"


def _questions(num: int = NUM) -> list[dict[str, Any]]:
    return [
        {
            "question": f"Which of these four numbers is the sum of {n} and {n}?",
            "options": [str(2 * n + k) for k in range(4)],
            "answer": "A",
        }
        for n in range(num)
    ]


def _items(folder: Path, rows: Sequence[dict[str, Any]], **task: Any) -> dict[str, Artifact]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = ItemsConfig(task=read_suite("questions")[0].model_copy(update=task))
    source = Source(folder / "q.jsonl").open(folder / "store")
    return {"questions": read_items.run(folder / "store", config, folder=source)}


def _scored(
    folder: Path,
    items: dict[str, Artifact],
    replies: Sequence[str] = ("The answer is (A).",) * NUM,
    **settings: Any,
) -> Artifact:
    config = MeasureConfig.model_validate(settings)
    return measure.run(folder / "scores", config, items=items, model=FakeModel(replies))


def _total(scores: Artifact, **more: Any) -> TaskScores:
    return task_scores("m", scores, **more)[0]


def _against_guessing(scores: Artifact) -> str:
    rows = list(scores.rows(Score))
    return near_chance(
        sum(row.correct for row in rows), len(rows), [row.chance for row in rows]
    ).verdict


def _log(folder: Path, items: dict[str, Artifact], scores: Artifact, model: str) -> Path:
    path = folder / f"{model}.jsonl"
    write_scores(path, score_rows(model, items, scores))
    return path


def _changed(items: dict[str, Artifact], scores: Artifact) -> int:
    return sum(each.is_changed for each in rescore(items, scores, {}))


def test_without_a_bug_nothing_is_found(tmp_path: Path):
    items = _items(tmp_path, _questions())
    scores = _scored(tmp_path, items)
    assert _against_guessing(scores) == "above" and not red_rates(_total(scores))
    assert not _changed(items, scores)
    two = [_log(tmp_path, items, scores, name) for name in ("m", "n")]
    assert compare_logs(*map(read_log, two)).overall.n == NUM


def test_1_shifted_labels_put_a_good_model_below_guessing(tmp_path: Path):
    rows = [{**row, "answer": "B"} for row in _questions()]
    assert _against_guessing(_scored(tmp_path, _items(tmp_path, rows))) == "below"


def test_2_options_shuffled_without_the_gold_are_other_items(tmp_path: Path):
    right = _items(tmp_path / "a", _questions())
    rows = [{**row, "options": row["options"][1:] + row["options"][:1]} for row in _questions()]
    wrong = _items(tmp_path / "b", rows)
    logs = [
        _log(tmp_path, items, _scored(tmp_path / name, items), name)
        for name, items in (("m", right), ("n", wrong))
    ]
    with pytest.raises(InputError, match="no common item"):
        compare_logs(*map(read_log, logs))


def test_3_an_answer_read_inside_a_thought_changes_when_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    items = _items(tmp_path, _questions())
    asking = sys.modules["spyhop.evaluate.measure"]
    read = asking.read

    def inside(response: str, *args: Any, **more: Any) -> Any:
        return read(response.replace("<think>", "").replace("</think>", ""), *args, **more)

    replies = ["<think>The answer is (A).</think> I cannot say."] * NUM
    with monkeypatch.context() as planted:
        planted.setattr(asking, "read", inside)
        scores = _scored(tmp_path, items, replies)
    assert all(row.correct for row in scores.rows(Score))
    assert _changed(items, scores) == NUM


def test_4_a_template_with_a_bos_of_its_own_gives_one(words_with_bos: Any):
    turns = [Message(role="user", content=f"{words_with_bos.bos_token}Which?")]
    (ids,) = Renderer(words_with_bos, ORCA).encode_prompts([turns])
    assert ids.count(words_with_bos.bos_token_id) == 1


def test_5_cut_answers_that_count_as_wrong_turn_their_rate_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def cut(self: FakeModel, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        return [Reply(id=r.id, text="Let me think", finish_reason="length", response_tokens=3)
                for r in batch]  # fmt: skip

    monkeypatch.setattr(FakeModel, "generate", cut)
    assert "cut" in red_rates(_total(_scored(tmp_path, _items(tmp_path, _questions()))))


@pytest.mark.parametrize("wrapped", ["### Human:\n{}\n\n### Assistant:\n", "<|user|>{}<|end|>"])
def test_6_a_template_applied_twice_is_another_prompt(tmp_path: Path, wrapped: str):
    items = _items(tmp_path / "a", _questions())
    twice = {
        "questions": toys.rows_artifact(
            tmp_path / "twice",
            [
                row.model_copy(update={"question": wrapped.format(row.question)})
                for row in items["questions"].rows(Item)
            ],
        )
    }
    logs = [
        _log(tmp_path, some, _scored(tmp_path / name, some), name)
        for name, some in (("m", items), ("n", twice))
    ]
    with pytest.raises(InputError, match="no common item"):
        compare_logs(*map(read_log, logs))


def test_7_contaminated_items_turn_their_rate_red(tmp_path: Path):
    items = _items(tmp_path, _questions())
    rows = [toys.answer_row(n, row["question"], "A") for n, row in enumerate(_questions())]
    answers = {"rows": toys.rows_artifact(tmp_path / "rows", rows)}
    found = check_contamination.run(
        tmp_path / "look", ContaminationRateConfig(), items=items, answers=answers
    )
    overlaps = {row.id: row for row in found.rows(ItemOverlap)}
    total = _total(_scored(tmp_path, items), overlaps=overlaps)
    assert total.rate("contaminated") == 1 and "contaminated" in red_rates(total)


def test_8_a_wrong_normalisation_changes_when_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = [{"question": f"Where is the tower of city {n}?", "answer": "Paris"} for n in range(4)]
    items = _items(tmp_path, rows)
    asking = sys.modules["spyhop.evaluate.measure"]
    read = asking.read

    def case_sensitive(response: str, question: str, target: str, **more: Any) -> Any:
        found = read(response, question, target, **more)
        return type(found)(found.answer, found.is_right and target in response)

    with monkeypatch.context() as planted:
        planted.setattr(asking, "read", case_sensitive)
        scores = _scored(tmp_path, items, ["The answer is PARIS."] * 4)
    assert not any(row.correct for row in scores.rows(Score))
    assert _changed(items, scores) == 4


def test_9_worked_examples_with_the_answer_are_refused(tmp_path: Path):
    (row, *_) = _questions()
    leaked = f"Q: {row['question']}\nA: the answer is A\n\n"
    with pytest.raises(InputError, match="is among its own worked examples"):
        _items(tmp_path, _questions(), few_shot=leaked)
    assert _items(tmp_path / "other", _questions()[1:], few_shot=leaked)


def test_10_a_model_whose_batches_change_its_answers_gives_another_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A resumed run equals a fresh one by the digest of its rows, or the two differ in it."""
    items = _items(tmp_path, _questions())
    fresh = _scored(tmp_path / "fresh", items).record.digest

    def by_batch(size: int) -> Callable[..., list[list[Request]]]:
        def batches(self: FakeModel, requests: Sequence[Request], kind: str) -> list[list[Request]]:
            return [list(requests[n : n + size]) for n in range(0, len(requests), size)]

        return batches

    monkeypatch.setattr(FakeModel, "batches", by_batch(7))
    assert _scored(tmp_path / "stable", items).record.digest == fresh

    def depends(self: FakeModel, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        return [Reply(id=r.id, text=LABELS[len(batch) % 4], finish_reason="stop",
                      response_tokens=1) for r in batch]  # fmt: skip

    monkeypatch.setattr(FakeModel, "generate", depends)
    found = set()
    for size in (5, 6):
        monkeypatch.setattr(FakeModel, "batches", by_batch(size))
        found.add(_scored(tmp_path / f"batch{size}", items).record.digest)
    assert len(found) == 2


def test_11_a_system_message_that_is_lost_is_another_prompt(tmp_path: Path, words: Any):
    """Orca's empty message is an empty block; another message is part of the prompt's digest."""
    turns = [Message(role="user", content="Which?")]
    (ids,) = Renderer(words, ORCA).encode_prompts([turns])
    assert words.decode(ids).startswith("### System:\n\n\n### Human:")
    items = _items(tmp_path / "a", _questions())
    logs = [
        _log(tmp_path, items, _scored(tmp_path / name, items, system_message=text), name)
        for name, text in (("m", "Explain."), ("n", ""))
    ]
    with pytest.raises(InputError, match="prompts of"):
        compare_logs(*map(read_log, logs))


def test_12_ties_that_the_order_breaks_turn_a_rate_red(tmp_path: Path):
    items = _items(tmp_path, _questions())
    model = FakeModel([], choices=[[0.25] * 4] * NUM)
    scores = measure.run(
        tmp_path / "scores", MeasureConfig(method="likelihood"), items=items, model=model
    )
    assert all(row.correct for row in scores.rows(Score)), "the first option is taken"
    total = _total(scores)
    assert total.rate("no answer") == 1 and "no answer" in red_rates(total)
