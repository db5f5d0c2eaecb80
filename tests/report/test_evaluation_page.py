"""Each suite's part of the evaluation page: charts, differences, topics, rows, first prompt."""

from pathlib import Path

from spyhop.evaluate import Protocol, differences, task_scores
from spyhop.report.evaluation import add_first_prompt, by_topic, scores_sections
from spyhop.report.html import ReportSection
from spyhop.schema import Item, Score
from toys import rows_artifact

TASKS = {"anatomy": "stem", "virology": "stem", "law": "humanities", "ethics": "humanities"}
NUM = 4


def _items(suite: str) -> list[Item]:
    return [
        Item(
            id=f"{suite}-{task}-{n}", suite=suite, task=task, topic=topic, options=["A", "B"],
            question=f"Secret of {suite} {task} {n}?", target="A", chance=0.5,
            cue="\nThe answer is",
        )
        for task, topic in TASKS.items()
        for n in range(NUM)
    ]  # fmt: skip


def _score(item: Item, is_right: bool) -> Score:
    return Score(
        id=item.id, suite=item.suite, task=item.task, topic=item.topic, target="A", chance=0.5,
        response=f"I say {item.id}.", extracted="A" if is_right else "B", correct=is_right,
        finish_reason="stop", response_tokens=3, form="asked",
    )  # fmt: skip


def _made(root: Path, suites: tuple[str, ...] = ("open", "closed")):
    items = {suite: _items(suite) for suite in suites}
    rows = [item for some in items.values() for item in some]
    right = {"base": lambda n: n % 2 == 0, "student": lambda n: n % 4 != 0}
    scores = {
        name: rows_artifact(root / name, [_score(item, rule(n)) for n, item in enumerate(rows)])
        for name, rule in right.items()
    }
    return scores, {name: rows_artifact(root / name, some) for name, some in items.items()}


def test_a_suite_has_its_charts_topics_rows_and_first_prompt(tmp_path: Path):
    overview, closed, opened = scores_sections(*_made(tmp_path), hidden={"closed"})
    assert (overview.title, opened.title, closed.title) == ("Scores", "Suite open", "Suite closed")
    page, hidden = "".join(opened.blocks), "".join(closed.blocks)
    for both in (page, hidden):
        assert both.count("<svg") == 5  # bars, radar and forest of tasks; bars and forest of topics
        assert both.count("student minus base, with 95 % intervals.") == 2
        assert "open humanities" in both or "closed humanities" in both
    assert "Secret of open anatomy 0?\nThe answer is" in page and "first prompt, verbatim" in page
    assert "Secret of" not in hidden and "I say" not in hidden and "stay off the page" in hidden


def test_topics_split_a_suite_and_are_not_repeated_where_they_are_the_tasks(tmp_path: Path):
    scores, _ = _made(tmp_path, ("open",))
    own = task_scores("base", scores["base"])
    topics = by_topic(own)
    assert [(each.task, each.n) for each in topics] == [("all", 16), ("humanities", 8), ("stem", 8)]
    other = by_topic(task_scores("student", scores["student"]))
    total, *results = differences(topics, other)
    assert total.adjusted is None and all(each.adjusted is not None for each in results)
    assert by_topic([own[1], own[1]]) == []


def test_a_begun_response_and_options_are_part_of_the_prompt():
    item = _items("open")[0].model_copy(update={"continuations": [" A", " B"]})
    for protocol, told in (
        (Protocol(form="prefilled"), "The answer is"),
        (Protocol(form="plain", method="likelihood"), "&#39; B&#39;"),
        (Protocol(system_message="Be brief."), "Be brief."),
    ):
        section = ReportSection("")
        add_first_prompt(section, item, protocol)
        assert told in section.blocks[0] and "Secret of open anatomy 0?" in section.blocks[0]
