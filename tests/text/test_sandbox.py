"""Templates in the sandbox: values, and every bomb is one line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from spyhop.schema import InputError
from spyhop.text import sandbox as module
from spyhop.text.sandbox import MAX_CHARS, Sandbox

ROWS = [(f"line {n}", {"a": text, "c": {"t": [1, 2.5]}}) for n, text in enumerate("xy", 1)]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as found:
        yield found


def test_texts_expressions_and_earlier_values(sandbox: Sandbox):
    templates = {"t": "{{ a }}-{{ c.t[0] }}\n", "u": 'row["a"] * 3', "v": "[u, t, true, none]"}
    found = [values for _, _, values in sandbox.values(templates, ROWS)]
    assert found[0] == {"t": "x-1\n", "u": "xxx", "v": ["xxx", "x-1\n", True, None]}
    assert found[1]["u"] == "yyy" and [*sandbox.values({}, ROWS)][1][2] == {}
    many = ((f"{n}", {"a": n}) for n in range(600))
    assert [v["s"] for *_, v in sandbox.values({"s": "a + 1"}, many)] == list(range(1, 601))
    (first, _) = sandbox.values({"g": "c.t|map('string')"}, ROWS)
    assert first[2] == {"g": ["1", "2.5"]}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ b }}", "'b' is undefined"),
        ("b", "'b' is undefined"),
        ("c.u", "has no attribute 'u'"),
        ("{{ a", "unexpected"),
        ("a +", "[Uu]nexpected|expected"),
        ("c", "dict is neither text, a number nor a list"),
        ("{{ a.__class__.__mro__ }}", "'__class__' .* is unsafe"),
        ("cycler.__init__.__globals__", "'__init__' .* is unsafe"),
        ("{{ a.format.__self__ }}", "no attribute '__self__'"),
        ("{% import 'os' as os %}{{ os }}", "no loader"),
        ("{{ range(10 ** 9)|list }}", "Range too big"),
        ("{{ 'x'|center(2 * 10 ** 6) }}", "a text of 2,000,000 characters; at most 1,048,576"),
        ("{{ 'x' * 10 ** 12 }}", "needs more than its memory"),
        ("2 ** 64", "an integer of more than 64 bits"),
        ("[[[[1]]]]", "neither text, a number nor a list"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "maximum recursion"),
    ],
)
def test_what_a_template_may_not_is_one_line_with_its_row(
    template: str, message: str, sandbox: Sandbox
):
    with pytest.raises(InputError, match=message) as caught:
        list(sandbox.values({"name": template}, ROWS))
    text = str(caught.value)
    assert text.startswith("line 1: the template 'name'") and "\n" not in text and len(text) < 250


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ ('a' * 60)|regex_replace('(a+)+b', '') }}",
    ],
)
def test_a_template_without_an_end_is_killed(template: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TIME_S", 0.3)
    with Sandbox() as sandbox:
        list(sandbox.values({"warm": "a"}, ROWS))
        with pytest.raises(InputError, match=r"line 1: the templates t exceed 0 s or 2 GB \(kill"):
            list(sandbox.values({"t": template}, ROWS))
        assert len(list(sandbox.values({"t": "a"}, ROWS))) == 2  # another process serves


def test_a_long_list_is_refused(sandbox: Sandbox):
    with pytest.raises(InputError, match="a list of more than 1,048,576"):
        list(sandbox.values({"l": "big"}, [("row", {"big": [0] * (MAX_CHARS + 1)})]))


def test_no_file_is_read_or_written(tmp_path: Path, sandbox: Sandbox):
    with pytest.raises(InputError):
        list(sandbox.values({"t": f"{{{{ open('{tmp_path}/x', 'w') }}}}"}, ROWS))
    assert not list(tmp_path.iterdir())
