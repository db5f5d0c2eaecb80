from collections.abc import Iterator

import pytest

from fake import FakeModel
from pairing import Judge
from scripted import Scripted, failed
from spyhop.models import Model, Reply, Sampling
from spyhop.models.script import Ask, Script, play
from spyhop.schema import Message, ModelError
from spyhop.stage import Context

ONE, OTHER = Sampling(), Sampling(max_new_tokens=9)


def _said(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def _chain(model: Model, name: str, num: int) -> Script[str]:
    """Ask `num` questions, each made from the reply before."""
    text = name
    for _ in range(num):
        (reply,) = yield [Ask(model, _said(text), ONE)]
        text = reply.text
    return text


def _plus(request, sampling) -> str:
    return request.messages[-1].content + "+"


def test_results_come_in_order_whenever_a_script_ends(context: Context):
    backend = Scripted(_plus)
    model = backend.open(context)
    lengths = [3, 0, 1, 2, 0]
    results = list(play(_chain(model, str(n), num) for n, num in enumerate(lengths)))
    assert results == ["0+++", "1", "2+", "3++", "4"]
    assert backend.rounds == [3, 2, 1]


def test_scripts_are_made_window_by_window(context: Context):
    made = 0
    model = Scripted(_plus).open(context)

    def scripts() -> Iterator[Script[str]]:
        nonlocal made
        for n in range(10):
            made += 1
            yield _chain(model, str(n), 2)

    results = play(scripts(), window=4)
    assert made == 0
    assert next(results) == "0++" and made == 8  # one window ahead
    assert list(results) == [f"{n}++" for n in range(1, 10)] and made == 10


def test_one_call_per_model_and_sampling_in_the_order_of_the_first_question(context: Context):
    order = []

    def noting(name: str):
        def say(request, sampling) -> str:
            order.append((name, sampling.max_new_tokens))
            return f"{name}{sampling.max_new_tokens}"

        return say

    backends = [Scripted(noting(name), name=name) for name in "ab"]
    a, b = (backend.open(context) for backend in backends)

    def mixed(n: int) -> Script[list[str]]:
        equal = Sampling(max_new_tokens=9)
        text = _said(str(n))
        replies = yield [Ask(b, text, OTHER), Ask(a, text, ONE), Ask(b, text, equal, 1),
                         Ask(b, text, ONE)]  # fmt: skip
        return [reply.text for reply in replies]

    assert list(play(mixed(n) for n in range(3))) == [["b9", "a512", "b9", "b512"]] * 3
    assert order == [("b", 9)] * 6 + [("a", 512)] * 3 + [("b", 512)] * 3
    assert [backend.rounds for backend in backends] == [[3], [6, 3]]


def test_no_question_at_all_is_a_round_too(context: Context):
    def idle() -> Script[int]:
        replies = yield []
        replies += yield []
        return len(replies)

    assert list(play([idle(), idle()])) == [0, 0]
    assert list(play([])) == []


def test_failed_calls_reach_the_script(context: Context):
    model = Scripted(lambda request, sampling: failed("nope")).open(context)

    def script() -> Script[Reply]:
        (reply,) = yield [Ask(model, _said("x"), ONE)]
        return reply

    (reply,) = play([script()])
    assert (reply.error, reply.text) == ("nope", "")


@pytest.mark.parametrize("lives", range(8))
def test_a_killed_run_asks_nothing_twice(context: Context, lives: int):
    lengths = [3, 1, 2, 2]
    first = Scripted(_plus, lives=lives)
    scripts = lambda model: (_chain(model, str(n), num) for n, num in enumerate(lengths))  # noqa: E731
    with pytest.raises(ModelError, match="killed"):
        list(play(scripts(first.open(context)), window=3))
    second = Scripted(_plus)
    results = list(play(scripts(second.open(context)), window=3))
    assert results == [str(n) + "+" * num for n, num in enumerate(lengths)]
    asked = [*first.asked, *second.asked]
    assert len(asked) == len(set(asked)) == sum(lengths)
    third = FakeModel([], name="scripted")
    assert list(play(scripts(third.open(context)), window=4)) == results and third.calls == 0


def test_equal_questions_of_two_scripts_are_asked_once(context: Context):
    backend = Scripted(_plus)
    model = backend.open(context)
    assert list(play(_chain(model, "same", 2) for _ in range(3))) == ["same++"] * 3
    assert len(backend.asked) == 2


def test_options_are_weighed_between_questions(context: Context):
    weighed = []

    def weigh(request):
        weighed.append((request.messages[-1].content, request.options, request.continuation))
        return [0.25, 0.75]

    backend = Judge(_plus, weigh)
    model = backend.open(context)

    def script(name: str) -> Script[list[float]]:
        (reply,) = yield [Ask(model, _said(name), ONE)]
        asked = [
            Ask(model, _said(reply.text), options=("a", "b"), continuation=begun)
            for begun in ("x", "y")
        ]
        first, second = yield asked
        (last,) = yield [Ask(model, _said(str(second.probabilities)), ONE)]
        return [*first.probabilities, float(len(last.text))]

    assert list(play(script(name) for name in ("1", "2"))) == [[0.25, 0.75, 13.0]] * 2
    options = ("a", "b")
    assert weighed == [(f"{n}+", options, begun) for n in (1, 2) for begun in ("x", "y")]
