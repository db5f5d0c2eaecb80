import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import toys
from fake import FakeModel
from spyhop.models import Local, ModelUse, Replay, Reply, Request, SampledGeneration, Sampling
from spyhop.models.replay import Recorded
from spyhop.schema import InputError, Message, ModelError
from spyhop.stage import Context
from spyhop.store import Artifact, key_of

BASE = sys.modules["spyhop.models.base"]


class Batched(toys.LoggedModel):
    """Batches of three, from the back; remembers them."""

    def __init__(self, log: Path) -> None:
        super().__init__(log)
        self.asked: list[list[str]] = []

    def batches(self, requests: Sequence[Request], kind: str) -> list[list[Request]]:
        turned = list(requests)[::-1]
        return [turned[start : start + 3] for start in range(0, len(turned), 3)]

    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        self.asked.append([request.id for request in batch])
        return super().generate(batch, sampling)


def _requests(num: int, start: int = 0) -> list[Request]:
    return [
        Request(id=f"r{n}", messages=[Message(role="user", content=f"number {n}")])
        for n in range(start, start + num)
    ]


def _recorded(folder: Path) -> Artifact:
    rows = [("Q1?", "one"), ("Q2?", "two"), ("Q1?", "later")]
    return toys.rows_artifact(
        folder, [Recorded(id=str(n), query=q, response=a) for n, (q, a) in enumerate(rows)]
    )


def test_replies_come_in_order_whatever_the_batches(context: Context, tmp_path: Path):
    model = Batched(tmp_path / "log")
    replies = list(model.open(context).generate(iter(_requests(8)), Sampling()))
    assert [(reply.id, reply.text) for reply in replies] == [(f"r{n}", str(n)) for n in range(8)]
    assert model.asked == [["r7", "r6", "r5"], ["r4", "r3", "r2"], ["r1", "r0"]]


def test_planned_batches_do_not_depend_on_what_is_journaled(context: Context, tmp_path: Path):
    first = Batched(tmp_path / "log")
    list(first.open(context).generate([_requests(8)[4]], Sampling()))
    second = Batched(tmp_path / "log")
    list(second.open(context).generate(_requests(8), Sampling()))
    assert second.asked == [["r7", "r6", "r5"], ["r4", "r3", "r2"], ["r1", "r0"]]
    third = Batched(tmp_path / "log")
    list(third.open(context).generate(_requests(8), Sampling()))
    assert third.asked == []


def test_long_streams_go_window_by_window(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(BASE.Model, "window", 4)
    taken = 0

    def stream():
        nonlocal taken
        for request in _requests(10):
            taken += 1
            yield request

    replies = Batched(tmp_path / "log").open(context).generate(stream(), Sampling())
    assert next(replies).text == "0" and taken == 4
    assert [reply.text for reply in replies] == [str(n) for n in range(1, 10)]


def test_settings_and_sample_numbers_are_asked_anew(context: Context, tmp_path: Path):
    model = Batched(tmp_path / "log")
    opened = model.open(context)
    (request,) = _requests(1)
    for sampling in (Sampling(), Sampling(seed=1), Sampling(max_new_tokens=3), Sampling()):
        list(opened.generate([request], sampling))
    list(opened.generate([request.model_copy(update={"sample_index": 1})], Sampling()))
    list(opened.generate([request.model_copy(update={"id": "renamed"})], Sampling()))
    assert len(model.asked) == 4


def test_two_requests_of_one_id_are_refused(context: Context, tmp_path: Path):
    requests = [_requests(1)[0], _requests(1, 5)[0].model_copy(update={"id": "r0"})]
    with pytest.raises(InputError, match="the same id"):
        list(FakeModel(["a", "b"]).open(context).generate(requests, Sampling()))


def _keys(sampling: Sampling, context: Context) -> list[str]:
    model = FakeModel([]).open(context)
    return next(model._windows("generate", _requests(2), sampling, None)).keys


def test_fields_that_are_not_sent_are_in_no_key(context: Context):
    unset = Sampling(temperature="unset")
    assert _keys(unset, context) == _keys(unset.model_copy(update={"seed": 7}), context)
    assert _keys(unset, context) != _keys(Sampling(), context)
    assert _keys(Sampling(stop=("a",)), context) != _keys(Sampling(), context)
    drawn = Sampling(max_new_tokens=512, temperature=0.7, top_p=0.9)
    same = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=512)
    assert _keys(drawn, context) == _keys(same, context)


def test_a_display_name_is_no_identity(tmp_path: Path):
    named = [ModelUse(Local(name=name)) for name in ("a", "b")]
    assert named[0].digest == named[1].digest and named[0].key == named[1].key
    assert ModelUse(Local(dtype="bfloat16")).digest != named[0].digest


def test_fake_choices_and_scores(context: Context):
    request = Request(id="1", messages=[], options=["A", "B"], continuation="three words here")
    model = FakeModel([], choices=[[0.25, 0.75]]).open(context)
    assert [found.probabilities for found in model.choose([request])] == [[0.25, 0.75]]
    assert [found.values for found in model.logprobs([request])] == [[-1.0] * 3]


def test_recorded_answers_are_played_back(context: Context, tmp_path: Path):
    model = ModelUse(Replay(), _recorded(tmp_path / "recorded")).open(context)
    system = Message(role="system", content="any")
    asked = [
        Request(id=str(n), messages=[system, Message(role="user", content=text)])
        for n, text in enumerate(["Q2?", "Q1?", "Q3?", "q1?"])
    ]
    replies = list(model.generate(asked, Sampling()))
    assert [reply.text for reply in replies] == ["two", "one", "", ""]
    assert [reply.error for reply in replies] == [None, None, "not recorded", "not recorded"]
    assert [reply.finish_reason for reply in replies] == ["stop", "stop", "error", "error"]


def test_recorded_answers_cannot_weigh(context: Context, tmp_path: Path):
    model = ModelUse(Replay(), _recorded(tmp_path / "recorded")).open(context)
    request = Request(id="1", messages=[Message(role="user", content="Q1?")], options=["A"])
    with pytest.raises(ModelError, match="cannot choose"):
        list(model.choose([request]))
    with pytest.raises(ModelError, match="no probabilities"):
        list(model.logprobs([request]))


def test_models_need_their_folder(context: Context):
    for config in (Replay(), Local()):
        with pytest.raises(ModelError, match="needs"):
            list(ModelUse(config).open(context).generate(_requests(1), Sampling()))


def test_a_models_identity_is_its_kind_config_and_content(tmp_path: Path):
    one = _recorded(tmp_path / "one")
    other = toys.rows_artifact(tmp_path / "two", [Recorded(id="1", query="q", response="r")])
    uses = [ModelUse(Replay(), one), ModelUse(Replay(), other), ModelUse(Local(), one),
            ModelUse(Local(dtype="bfloat16"), one), ModelUse(Replay())]  # fmt: skip
    assert len({use.key for use in uses}) == len({use.digest for use in uses}) == len(uses)
    assert ModelUse(Replay(), one).key == uses[0].key


def test_a_raised_version_leaves_the_old_journal_behind(context: Context, tmp_path: Path):
    recorded = _recorded(tmp_path / "recorded")
    uses = {
        version: ModelUse(type("Replay", (Replay,), {"version": version})(), recorded)
        for version in (1, 2)
    }
    assert (uses[1].key, uses[1].digest) == (ModelUse(Replay(), recorded).key,
                                             ModelUse(Replay(), recorded).digest)  # fmt: skip
    assert uses[2].key != uses[1].key and uses[2].digest != uses[1].digest
    asked = [Request(id="1", messages=[Message(role="user", content="Q1?")])]
    for use in uses.values():
        (reply,) = use.open(context).generate(asked, Sampling())
        assert reply.text == "one"
    journals = sorted((context.root / ".journal").glob("*.sqlite"))
    assert [path.stem for path in journals] == sorted(use.digest for use in uses.values())
    assert toys.committed(context.root) == 2


def test_what_a_nucleus_does_not_say_stays_the_papers():
    read = TypeAdapter(SampledGeneration).validate_python
    assert read({"max_new_tokens": 8}) == Sampling(max_new_tokens=8, temperature=0.7, top_p=0.9)
    assert read(Sampling()).temperature == 0.0
    assert key_of(read({})) == key_of(Sampling(temperature=0.7, top_p=0.9))
