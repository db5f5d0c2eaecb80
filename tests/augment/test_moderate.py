"""Rows that are flagged are dropped with their label, and nothing else is lost."""

import json
import random
from pathlib import Path

import pytest

import toys
from fake import FakeModel
from spyhop.augment import ModerateConfig, moderate
from spyhop.models import Labels, ModelUse, Request, read_teacher
from spyhop.schema import Answer, InputError, ModelError
from spyhop.stage import Runtime
from spyhop.store import Source


class Classifying(FakeModel):
    """Scores a text by the share of its words that are `bad`."""

    def __init__(self, *, is_service: bool = False) -> None:
        super().__init__([], name=f"classifying {is_service}")
        self._is_service = is_service

    def classify(self, batch: list[Request]) -> list[Labels]:
        self.calls += 1
        return [self._labels(request.id, request.messages[-1].content) for request in batch]

    def _labels(self, name: str, text: str) -> Labels:
        if "fails" in text:
            return Labels(id=name, scores={}, error="400")
        score = text.split().count("bad") / len(text.split())
        flagged = (("toxic",) if score > 0.2 else ()) if self._is_service else None
        return Labels(id=name, scores={"toxic": score, "rude": score / 2}, flagged=flagged)


ROWS = [
    toys.answer_row(0, "bad bad", "bad bad bad good"),
    toys.answer_row(1, "why", "because of that"),
    toys.answer_row(2, "good good good", "bad"),
    toys.answer_row(3, "why", None, error="400"),
]


def kept(root: Path, config: ModerateConfig, **how: bool) -> tuple[list[str], dict[str, int]]:
    rows = toys.artifact_of(root, ROWS)
    made = moderate.run(root / "out", config, answers=rows, model=Classifying(**how))
    return [row.id for row in made.rows(Answer)], {**made.record.counts, **made.record.dropped}


def test_flagged_rows_are_dropped_with_their_label_and_the_rate_is_counted(tmp_path: Path):
    ids, counts = kept(tmp_path, ModerateConfig())
    assert ids == [ROWS[1].id, ROWS[2].id, ROWS[3].id]
    assert counts["moderated/rows"] == 3 and counts["moderated/flagged"] == 1
    assert counts["flagged: toxic"] == 1


@pytest.mark.parametrize(
    ("config", "is_service", "num"),
    [
        (ModerateConfig(threshold=0.9), False, 0),
        (ModerateConfig(labels=("rude",), threshold=0.3), False, 1),
        (ModerateConfig(), True, 2),
        (ModerateConfig(labels=("toxic",)), True, 1),
    ],
)
def test_which_label_counts(tmp_path: Path, config: ModerateConfig, is_service: bool, num: int):
    assert kept(tmp_path, config, is_service=is_service)[1].get("moderated/flagged", 0) == num


def test_an_unknown_label_lists_the_model_s_own(tmp_path: Path):
    with pytest.raises(ModelError, match="labels: toxic, rude"):
        kept(tmp_path, ModerateConfig(labels=("hate",)))


def test_a_row_that_was_not_moderated_is_dropped_and_too_many_stop_the_stage(tmp_path: Path):
    rows = toys.artifact_of(tmp_path, [*ROWS[:2], toys.answer_row(4, "fails", "fails")])
    lenient, model = Runtime(max_error_frac=0.5), Classifying()
    made = moderate.run(tmp_path, ModerateConfig(), runtime=lenient, answers=rows, model=model)
    assert made.record.dropped == {"flagged: toxic": 1, "not_moderated": 1}
    with pytest.raises(ModelError, match="calls failed"):
        moderate.run(
            tmp_path / "strict",
            ModerateConfig(),
            runtime=Runtime(max_error_frac=0.0),
            answers=rows,
            model=model,
        )


def labels_of_people(path: Path, responses: list[tuple[str, bool]]) -> ModelUse:
    rows = [{"id": str(n), "rater": "ann", "instruction": f"Question {n}", "response": text,
             "good": good} for n, (text, good) in enumerate(responses)]  # fmt: skip
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    teacher = read_teacher(path)
    assert teacher.folder is not None
    return ModelUse(teacher.config, Source(teacher.folder).open(path.parent))


def test_labels_of_people_become_a_classifier_that_drops_rows(tmp_path: Path):
    starts = ("First, add", "Well, maybe")
    said = [(f"{starts[n % 2]} the {n} parts.", n % 2 == 0) for n in range(40)]
    model = labels_of_people(tmp_path / "labels.jsonl", said)
    rows = toys.artifact_of(tmp_path, [
        toys.answer_row(0, "Question 90", "Well, maybe the seven boats."),
        toys.answer_row(1, "Question 91", "First, add the seven boats."),
    ])  # fmt: skip
    made = moderate.run(tmp_path / "out", ModerateConfig(), answers=rows, model=model)
    assert made.record.dropped == {"flagged: drop": 1} and made.num_rows == 1


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        ([("a good one", True)] * 30 + [("bad", False)] * 3, "labels of the rarer kind"),
        ([(f"{random.Random(n).random()}", n % 3 == 0) for n in range(60)], "do not tell these"),
    ],
)
def test_labels_that_teach_nothing_are_refused(
    tmp_path: Path, responses: list[tuple[str, bool]], message: str
):
    model = labels_of_people(tmp_path / "labels.jsonl", responses)
    rows = toys.artifact_of(tmp_path, ROWS[:2])
    with pytest.raises(InputError, match=message):
        moderate.run(tmp_path / "out", ModerateConfig(), answers=rows, model=model)
