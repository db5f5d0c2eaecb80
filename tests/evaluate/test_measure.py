"""What `measure` makes of a model's replies, row by row."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import toys
from fake import FakeModel
from spyhop.evaluate import MeasureConfig, Task, measure
from spyhop.models import Choice, Reply, Request, Sampling
from spyhop.schema import Item, ModelError, RecipeError, Score


def _items(folder: Path, num: int) -> dict[str, toys.Artifact]:
    rows = [
        Item(id=name, suite="s", task="t", question=name, options=["A", "B"], target="B")
        for name in map(str, range(num))
    ]
    return {"s": toys.rows_artifact(folder, rows)}


def test_a_model_that_names_no_option_has_chosen_none(tmp_path: Path):
    """Served models tell the likeliest pieces only: no option may be among them."""
    model = FakeModel([], choices=[[], [0.2, 0.8], [0.9, 0.1]])
    made = measure.run(
        tmp_path,
        MeasureConfig(method="likelihood"),
        items=_items(tmp_path / "items", 3),
        model=model,
    )
    scores = list(made.rows(Score))
    assert [score.extracted for score in scores] == [None, "B", "A"]
    assert [score.correct for score in scores] == [False, True, False]
    assert not any(score.error for score in scores)


def test_each_suite_is_asked_and_read_as_its_protocol_says(tmp_path: Path):
    items = {
        name: toys.rows_artifact(
            tmp_path / name,
            [
                Item(
                    id=f"{name}1",
                    suite=name,
                    task="t",
                    question="Q",
                    options=["A", "B"],
                    target="B",
                )
            ],
        )
        for name in ("plain", "capital")
    }
    capital = Task(name="capital", extract="first_capital", sampling=Sampling(max_new_tokens=9))
    config = MeasureConfig(sampling=Sampling(temperature=0.5)).for_tasks(
        [Task(name="plain"), capital]
    )
    assert config.suites["capital"].sampling == Sampling(max_new_tokens=9, temperature=0.5)
    model = FakeModel(["Based on this, I say so."] * 2)
    scores = measure.run(tmp_path, config, items=items, model=model).rows(Score)
    assert [(score.suite, score.extracted) for score in scores] == [
        ("plain", None), ("capital", "B"),
    ]  # fmt: skip


def test_settings_that_are_set_hold_for_every_benchmark():
    task = Task(name="s", system_message="Be brief.", extract="first_capital")
    assert MeasureConfig().for_tasks([task]).suites["s"].system_message == "Be brief."
    assert MeasureConfig(system_message="").for_tasks([task]).suites["s"].system_message == ""
    assert MeasureConfig().for_tasks([Task(name="s")]) == MeasureConfig()  # nothing to say


class Told(FakeModel):
    """A model that notes its requests, and scores options by a table of log-probabilities."""

    def __init__(self, replies: Sequence[str] = (), options: dict[str, float] | None = None):
        super().__init__(replies)
        self.requests: list[Request] = []
        self.options = options or {}

    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        self.requests += batch
        return super().generate(batch, sampling)

    def choose(self, batch: Sequence[Request]) -> list[Choice]:
        self.requests += batch
        return [self._choice(request) for request in batch]

    def _choice(self, request: Request) -> Choice:
        values = [self.options[text] for text in request.options]
        return Choice(
            id=request.id,
            probabilities=[1.0] * len(values),
            log_probabilities=values,
            num_characters=[len(text.strip()) for text in request.options],
            num_bytes=[len(text.strip().encode()) for text in request.options],
            num_tokens=[len(text.split()) for text in request.options],
            unconditional=[-1.0] * len(values) if request.with_unconditional else [],
        )


CHOICE = Item(
    id="1", suite="s", task="t", question="Q: one? Answer Choices: (A) yes (B) no", target="B",
    options=["A", "B"], cue="\nA: Among A through B, the answer is",
)  # fmt: skip


def _measured(folder: Path, model: Any, item: Item, **settings: Any) -> list[Score]:
    items = {"s": toys.rows_artifact(folder / "items", [item])}
    config = MeasureConfig.model_validate(settings)
    return list(measure.run(folder, config, items=items, model=model).rows(Score))


def test_the_cue_ends_the_question_or_begins_the_response(tmp_path: Path):
    """The form is part of each row; the cue of a prefilled response belongs to its answer."""
    found = {}
    for form in ("asked", "prefilled", "plain"):
        model = Told([" (B), since it is so."])
        (found[form],) = _measured(tmp_path / form, model, CHOICE, form=form)
        (request,) = model.requests
        cue = CHOICE.cue
        if form == "asked":
            assert request.messages[-1].content == CHOICE.question + cue
            assert not request.continuation and not request.text
        elif form == "prefilled":
            assert request.messages[-1].content == CHOICE.question
            assert request.continuation == cue.lstrip()
        else:
            assert not request.messages and request.text == CHOICE.question + cue
    assert [(score.form, score.extracted) for score in found.values()] == [
        ("asked", "B"), ("prefilled", "B"), ("plain", "B"),
    ]  # fmt: skip


def test_reasoning_replaces_the_cue(tmp_path: Path):
    model = Told(["Yes would be odd, so the answer is (B)."])
    thought = "\nLet us reason."
    (score,) = _measured(tmp_path, model, CHOICE, chain_of_thought=thought, form="prefilled")
    assert model.requests[0].continuation == thought.strip() and score.correct


def test_the_papers_strict_form_is_scored_beside_the_default(tmp_path: Path):
    (score,) = _measured(tmp_path, Told(["As I see it, the answer is B."]), CHOICE)
    assert score.correct and score.metrics == {"strict": 0.0}  # its first capital is an A
    (score,) = _measured(tmp_path / "2", Told(["<think>A or B</think>B"]), CHOICE)
    assert score.correct and score.metrics == {"strict": 1.0}  # thoughts are removed first


@pytest.mark.parametrize("form", ["asked", "prefilled"])
def test_the_cue_is_no_option(tmp_path: Path, form: str):
    """The cue "A: Among A through B" follows the options; a response may state an option's text."""
    (score,) = _measured(tmp_path, Told(["The answer is yes."]), CHOICE, form=form)
    assert score.extracted == "A"


class _Refusing(FakeModel):
    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        return [
            Reply(id=r.id, text="", finish_reason="error", error="400 no prefill") for r in batch
        ]


def test_a_refused_prefill_is_one_error_and_no_score(tmp_path: Path):
    with pytest.raises(ModelError, match=r"no prefilled response.*400 no prefill.*\"asked\""):
        _measured(tmp_path, _Refusing([]), CHOICE, form="prefilled")
    (score,) = _measured(tmp_path / "2", _Refusing([]), CHOICE)
    assert score.ending == "failed" and not score.correct


def test_samples_are_rows_of_their_own(tmp_path: Path):
    model = Told(["B", "A", "B"])
    sampling = {"temperature": 0.7}
    scores = _measured(tmp_path, model, CHOICE, num_samples=3, sampling=sampling)
    assert [(s.id, s.sample_index, s.correct) for s in scores] == [
        ("1", 0, True), ("1", 1, False), ("1", 2, True),
    ]  # fmt: skip
    assert [request.sample_index for request in model.requests] == [0, 1, 2]


CLOZE = Item(
    id="1", suite="s", task="t", question="The sky is", target="A", options=["A", "B", "C"],
    continuations=[" blue", " not so very green", " \u00e9\u00e9\u00e9\u00e9"],
)  # fmt: skip


def test_options_are_compared_under_every_normalisation(tmp_path: Path):
    """Sum, per character, per byte, per token, and minus the unconditional (-1 for each)."""
    table = dict(zip(CLOZE.continuations, [-4.0, -9.0, -3.9], strict=True))
    per = {"acc": -3.9, "acc_norm": -9.0 / 17, "acc_bytes": -3.9 / 8, "acc_token": -9.0 / 4}
    best = {"acc": "C", "acc_norm": "B", "acc_bytes": "C", "acc_token": "B", "acc_mutual_info": "C"}
    assert per["acc_norm"] > -4.0 / 4 and per["acc_bytes"] > -9.0 / 17
    for metric, label in best.items():
        settings = {"method": "likelihood", "form": "plain", "metric": metric}
        (score,) = _measured(tmp_path / metric, Told(options=table), CLOZE, **settings)
        assert score.extracted == label and score.value == float(label == "A")
        known = {name: float(each == "A") for name, each in best.items()}
        if metric != "acc_mutual_info":  # it takes further requests: only where it is wanted
            del known["acc_mutual_info"]
        assert score.metrics == known


def test_the_probability_of_all_true_options_is_mc2(tmp_path: Path):
    table = {" blue": math.log(0.2), " not so very green": math.log(0.1)}
    table[CLOZE.continuations[2]] = math.log(0.1)
    item = CLOZE.model_copy(update={"golds": ["B", "C"]})
    settings = {"method": "likelihood", "metric": "mc2"}
    (score,) = _measured(tmp_path, Told(options=table), item, **settings)
    assert score.value == pytest.approx(0.5) and not score.correct
    assert score.metrics["mc1"] == 0.0


def test_options_in_the_prompt_are_one_request_each(tmp_path: Path):
    """As in WinoGrande: the options differ before the text that is scored."""
    item = CLOZE.model_copy(
        update={
            "options": ["A", "B"], "contexts": ["The cup", "The box"], "target": "B",
            "continuations": [" was full.", " was full."],
        }
    )  # fmt: skip

    class Contexts(Told):
        def _choice(self, request: Request) -> Choice:
            self.options = {" was full.": -1.0 if request.text == "The box" else -2.0}
            return super()._choice(request)

    model = Contexts()
    (score,) = _measured(tmp_path, model, item, method="likelihood", form="plain")
    assert [request.text for request in model.requests] == item.contexts
    assert score.correct and score.extracted == "B"


def test_an_endpoint_without_log_probabilities_says_that_it_was_parsed(tmp_path: Path):
    class Parsed(FakeModel):
        def choose(self, batch: Sequence[Request]) -> list[Choice]:
            return [Choice(id=r.id, probabilities=[0.0, 1.0], is_parsed=True) for r in batch]

    settings = {"method": "likelihood", "metric": "acc_norm"}
    (score,) = _measured(tmp_path, Parsed([]), CHOICE, **settings)
    assert (score.correct, score.metric, score.finish_reason) == (True, "acc", "parsed")
    (score,) = _measured(tmp_path / "2", Parsed([]), CHOICE, method="likelihood")
    assert (score.correct, score.metric) == (True, "accuracy")  # comparable with other models


def test_free_answers_have_several_golds_and_may_be_declined(tmp_path: Path):
    item = Item(
        id="1", suite="s", task="t", question="Who?", target="Ada", golds=["Ada", "Ada Lovelace"]
    )
    found = {}
    for n, reply in enumerate(["Ada Lovelace", "the Ada King", "I don't know.", "Bob"]):
        (found[reply],) = _measured(tmp_path / str(n), Told([reply]), item, metric="f1")
    assert [round(score.value, 2) for score in found.values()] == [1.0, 0.67, 0.0, 0.0]
    assert [score.correct for score in found.values()] == [True, False, False, False]
    assert [score.metrics["declined"] for score in found.values()] == [0, 0, 1, 0]


def test_metrics_that_do_not_fit_are_one_line(tmp_path: Path):
    with pytest.raises(ValueError, match=r'metric = .acc. needs method = "likelihood"'):
        MeasureConfig(metric="acc")
    likely = Task(name="s", method="likelihood", metric="acc_norm")
    assert MeasureConfig(method="generate").for_tasks([likely]).suites == {}
    with pytest.raises(RecipeError, match="s t has none of its responses; known: accuracy, strict"):
        _measured(tmp_path, Told(["B"]), CHOICE, metric="f1")
    with pytest.raises(RecipeError, match="needs options; item 1 of t"):
        item = Item(id="1", suite="s", task="t", question="Q", target="4")
        _measured(tmp_path / "2", Told(), item, method="likelihood")
