"""Safety suites from files with the published headers and harmless text, to rows and pages."""

import csv
from pathlib import Path

import pytest

import toys
from command import Command
from fake import FakeModel
from spyhop.evaluate import ItemsConfig, MeasureConfig, measure, read_items, read_suite
from spyhop.evaluate.safety import (
    Support,
    SupportConfig,
    check_support,
    label_f1,
    prompt_auc,
    read_labels,
    read_refusal,
    with_toxicity,
)
from spyhop.models import Labels, Request
from spyhop.recipes.evaluating import step_name
from spyhop.report.safety import safety_sections
from spyhop.schema import InputError, Item, Score
from spyhop.store import Artifact, Source

LABELS = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
KIND = ["sunny", "kind", "gentle", "warm", "fair", "calm", "bright"]
GRIM = ["gloomy", "grim", "bitter", "cold", "harsh", "sour", "bleak"]


def comments(folder: Path) -> Path:
    with (folder / "train.csv").open("w", newline="") as file:
        rows = csv.writer(file, quoting=csv.QUOTE_ALL)
        rows.writerow(["id", "comment_text", *LABELS])
        for n in range(20):
            rows.writerow(
                [f"{n:016x}", f"comment {n}\nsecond line", int(n < 6), 0, int(n < 3), 0, 0, 0]
            )
    return folder / "train.csv"


def pairs(folder: Path) -> Path:
    heads = ["sent_more", "sent_less", "stereo_antistereo", "bias_type", "annotations"]
    with (folder / "crows.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["", *heads, "anon_writer", "anon_annotators"])
        for n in range(20):
            kind = "age" if n < 8 else "gender"
            more, less = f"the left thing {n} is round", f"the right thing {n} is round"
            rows.writerow([n, more, less, "stereo", kind, "[['x']]", "a0", "['a1']"])
    return folder / "crows.csv"


def prompts(folder: Path) -> Path:
    """ToxiGen's form with kind and grim words, about things that nobody is."""
    for kind, words in (("hate", GRIM), ("neutral", KIND)):
        for group in ("stone", "cloud", "river", "hill"):
            lines = [
                "\\n".join(f"- the {group} is {words[(n + k) % 7]} today" for k in range(3))
                + "\\n-"
                for n in range(7)
            ]
            (folder / f"{kind}_{group}_1k.txt").write_text("\n".join(lines) + "\n")
    return folder


def items(root: Path, suite: str, place: Path) -> Artifact:
    (task,) = read_suite(suite)
    task = task.model_copy(update={"num_items": 0})
    return read_items.run(root, ItemsConfig(task=task), folder=Source(place).open(root))


def item(target: str) -> Item:
    return Item(id="i", suite="s", task="t", question="q", target=target)


def score(target: str, extracted: str | None, **changes: object) -> Score:
    given = {"id": "i", "suite": "s", "task": "t", "response": "r", "chance": 0.0}
    given |= {"correct": False, "finish_reason": "stop", "response_tokens": 1}
    return Score.model_validate({**given, "target": target, "extracted": extracted, **changes})


def test_toxigen_s_lines_are_prompts_that_end_where_the_model_continues(tmp_path: Path):
    found = list(items(tmp_path, "toxigen", prompts(tmp_path)).rows(Item))
    assert len(found) == 56 and {each.task for each in found} >= {"hate_stone", "neutral_hill"}
    assert found[0].question.count("\n") == 3 and found[0].question.endswith("\n-")


def test_the_built_in_classifier_has_not_seen_the_group_it_scores(tmp_path: Path):
    rows = list(items(tmp_path, "toxigen", prompts(tmp_path)).rows(Item))
    given = [
        score("neutral", None, id=each.id, task=each.task, response=said)
        for each in rows
        for said in ["the moon is " + ("grim" if each.task.startswith("hate") else "kind")]
    ]
    found = list(with_toxicity(given, rows, None))
    assert all(each.correct == each.task.startswith("neutral") for each in found)
    assert all(0 <= each.value <= 1 for each in found)
    assert prompt_auc(found) == 1.0
    with pytest.raises(InputError, match="two unrelated groups"):
        list(with_toxicity(given[:1], [each for each in rows if "stone" in each.task], None))


class Detector(FakeModel):
    """Finds `bad`; fails on `broken`."""

    def classify(self, batch: list[Request]) -> list[Labels]:
        texts = {request.id: request.messages[-1].content for request in batch}
        return [
            Labels(id=n, scores={}, error="400") if "broken" in text
            else Labels(id=n, scores={"fine": 0.2, "toxic": 0.9 if "bad" in text else 0.1})
            for n, text in texts.items()
        ]  # fmt: skip


def test_any_classifier_scores_responses_and_a_failed_call_is_a_row(tmp_path: Path):
    replies = items(tmp_path, "toxic_comments:replies", comments(tmp_path))
    assert next(replies.rows(Item)).question == "comment 0\nsecond line"
    (task,) = read_suite("toxic_comments:replies")
    said = ["so bad", "thank you", "broken", ""] * 5
    made = measure.run(
        tmp_path,
        MeasureConfig().for_tasks([task]),
        items={"r": replies},
        model=FakeModel(said),
        classifier=Detector([]),
    )
    found = list(made.rows(Score))
    assert [each.value for each in found[:2]] == [0.9, 0.1]
    assert [each.ending for each in found[:4]] == ["whole", "whole", "failed", "empty"]
    assert [each.correct for each in found[:2]] == [False, True]


@pytest.mark.parametrize(
    ("said", "labels", "f1"),
    [
        ("toxic, insult", "toxic, insult", 1),
        ("Severe toxic", "severe_toxic", 0),
        ("severe_toxic and toxic", "toxic, severe_toxic", 2 / 4),
        ("None", "none", 0),
        ("I like it", None, 0),
        ("The comment is TOXIC.", "toxic", 2 / 3),
    ],
)
def test_labels_that_a_response_names(said: str, labels: str | None, f1: float):
    target = "toxic=1 severe_toxic=0 insult=1"
    reading, metrics = read_labels(said, "whole", item(target))
    assert reading.answer == labels and metrics["labels"] == pytest.approx(f1)
    assert reading.is_right == (f1 == 1)


def test_f1_counts_a_response_without_labels_as_a_miss():
    rows = [
        score("a=1 b=0", "a"),
        score("a=1 b=0", None),
        score("a=0 b=0", "a"),
        score("a=0 b=0", "none"),
    ]
    found = label_f1(rows)
    assert found["a"] is not None and found["a"].value == pytest.approx(0.5)
    assert found["a"].low <= 0.5 <= found["a"].high and found["b"] is None
    with pytest.raises(ValueError, match="no scores"):
        label_f1([])


def test_refusals_are_right_only_where_they_are_asked_for():
    no, yes = "I'm sorry, but I can't help with that.", "Here you are."
    for said, ending, target, is_right in (
        (no, "whole", "refuse", True), (no, "whole", "answer", False),
        (yes, "whole", "answer", True), (yes, "whole", "refuse", False),
        ("", "refused", "refuse", True), ("", "empty", "answer", False),
        ("", "failed", "refuse", False),
    ):  # fmt: skip
        assert read_refusal(said, ending, item(target))[0].is_right is is_right, (said, ending)


def test_our_own_prompts_are_half_to_refuse(tmp_path: Path):
    from spyhop.evaluate.suite import FOLDER

    found = list(items(tmp_path, "sensitive", FOLDER / "sensitive.jsonl").rows(Item))
    assert len(found) == 40 and sum(each.target == "refuse" for each in found) == 20
    (tagged,) = read_suite("sensitive:tagged")
    assert tagged.system_message


class Reader(FakeModel):
    """Supports a sentence whose last word is in the text; writes no verdict on `maybe`."""

    def generate(self, batch, sampling):
        self._replies, self.calls = [self._said(r.messages[-1].content) for r in batch], 0
        return super().generate(batch, sampling)

    def _said(self, asked: str) -> str:
        text, _, rest = asked.partition("\n\nSentence:\n")
        sentence = rest.partition("\n\n")[0]
        if "maybe" in sentence:
            return "I cannot say."
        word = "SUPPORTED" if sentence.split()[-1].strip(".") in text else "UNSUPPORTED"
        return f"Looked.\nVERDICT: {word}"


def test_sentences_without_support_are_rows(tmp_path: Path):
    question = Item(
        id="1", suite="s", task="t", question="The box is red. What is it?", target="red"
    )
    asked = toys.rows_artifact(tmp_path / "items", [question])
    said = "The box is red. It is also blue. It is maybe old."
    scores = toys.rows_artifact(
        tmp_path / "scores", [score("red", "red", id="1", response=said, passage="p")]
    )
    made = check_support.run(
        tmp_path, SupportConfig(), items={"s": asked}, scores=scores, judge=Reader([])
    )
    rows = list(made.rows(Support))
    assert [row.is_supported for row in rows] == [True, False, None]
    assert made.record.counts == {"supported": 1, "unsupported": 1, "missing": 1}
    assert rows[1].passage == question.question and "VERDICT" in rows[1].reason


def test_a_page_has_every_safety_section_and_no_hidden_text(
    tmp_path: Path, tiny_folder: Path, cli: Command
):
    (tmp_path / "t").mkdir()
    out, places = (
        tmp_path / "out",
        {"toxigen": prompts(tmp_path / "t"), "crows_pairs": pairs(tmp_path)},
    )
    places["toxic_comments"] = comments(tmp_path)
    suites = [*places, "sensitive", "sensitive:tagged"]
    options = [each for name, place in places.items() for each in ("--data", f"{name}={place}")]
    options += [each for name in suites for each in ("--suite", name)]
    fast = ["--set", "measure.sampling.max_new_tokens=3", "--limit", "4", "--out", out]
    told = cli("eval", tiny_folder, tiny_folder, *options, *fast)
    assert told.code == 0, told.stderr
    page = (out / "runs/eval/report/report.html").read_text()
    for title in ("Toxicity: toxigen", "Bias: crows_pairs", "Labels: toxic_comments",
                  "Refusals: sensitive-tagged"):  # fmt: skip
        assert title in page, title
    assert "17.3" in page and "AUC" in page and "no WordNet" in page
    assert "is grim today" not in page and "second line" not in page
    assert "the left thing" not in page and "parts list" not in page
    assert (out / "runs/eval/report/items.jsonl").read_text() == ""
    assert "the left thing" in (out / f"scores-{step_name(tiny_folder.name)}.jsonl").read_text()


def test_the_page_sets_wrong_answers_against_abstention_and_lists_unsupported_sentences(
    tmp_path: Path,
):
    def model(name: str, *rows: Score) -> Artifact:
        return toys.rows_artifact(tmp_path / name, list(rows))

    told = {"metrics": {"declined": 0.0}, "suite": "nq_open"}
    base = [score("x", "x", id="1", correct=True, **told), score("x", "y", id="2", **told)]
    silent = score("x", "I do not know", id="2", suite="nq_open", metrics={"declined": 1.0})
    models = {"base": model("base", *base), "student": model("student", base[0], silent)}
    given = {"item_id": "1", "suite": "s", "passage": "p", "is_supported": False}
    support = toys.rows_artifact(tmp_path / "s", [Support(id="1/0", sentence="It flew.", **given)])
    truth, checked = safety_sections(models, {"base": support}, is_shown=False)
    html = "".join(truth.blocks)
    assert "wrong when answered" in html and "50.0 (9.5 to 90.5)" in html
    assert "0.0 (0.0 to 79.3)" in html  # the student gave one answer, and it is right
    assert "1: It flew." in "".join(checked.blocks)
