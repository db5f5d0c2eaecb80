from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from spyhop.cli.running import load
from spyhop.recipe.graph import models
from spyhop.recipe.load import RecipeFile, apply_change, read_recipe
from spyhop.schema import Config, RecipeError
from spyhop.settings import InputPath, describe

SISE = "is not a setting; did you mean 'size'? Known: kind, share, size"


class Part(Config):
    kind: Literal["one", "two"] = "one"
    size: int = Field(1, gt=0)
    share: float = 0.5


class Settings(Config):
    path: InputPath
    part: Part = Part()
    parts: tuple[Part, ...] = ()
    named: dict[str, Part] = Field({})
    maybe: Part | None = None


def _file(folder: Path, text: str) -> Path:
    path = folder / "r.toml"
    path.write_text(text)
    return path


def _settings(folder: Path, text: str, *changes: str) -> Any:
    path = "" if text.startswith("path") else 'path = "data"\n'
    full = f'recipe = "x"\n{path}{text}'
    return read_recipe(_file(folder, full), changes).config(Settings)


def test_a_file_is_read(tmp_path: Path):
    text = 'recipe = "x"\npath = "p"\n[[parts]]\nsize = 2\n[runtime]\nworkers = 3\n'
    file = read_recipe(_file(tmp_path, text))
    assert isinstance(file, RecipeFile) and file.recipe == "x"
    settings = file.config(Settings)
    assert settings == Settings(path=tmp_path / "p", parts=(Part(size=2),))
    assert file.runtime_with({"workers": None}).workers == 3
    assert file.runtime_with({"workers": 5}).workers == 5


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [("quick.toml", "", "quick"), ("My-2.toml", "", "my-2"), ("a.toml", 'name = "b"\n', "b")],
)
def test_a_recipe_is_called_as_its_file_unless_it_says_so(
    tmp_path: Path, file: str, text: str, name: str
):
    (tmp_path / file).write_text(f'recipe = "x"\npath = "p"\n{text}')
    assert read_recipe(tmp_path / file).name == name


def test_relative_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    path = _file(tmp_path / "sub", 'recipe = "x"\npath = "data"\n').relative_to(tmp_path)
    assert read_recipe(path).config(Settings).path == tmp_path / "sub" / "data"
    changed = read_recipe(path, ["path=../up"]).config(Settings)
    assert changed.path.resolve() == tmp_path / "up"
    absolute = read_recipe(path, ["path=/abs"]).config(Settings)
    assert absolute.path == Path("/abs")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("part.sise = 2", f"part.sise {SISE}"),
        ("[[parts]]\nsise = 2", f"parts.0.sise {SISE}"),
        ("[named.a]\nsise = 2", f"named.a.sise {SISE}"),
        ("[maybe]\nsise = 2", f"maybe.sise {SISE}"),
        ("qqq = 2", "qqq is not a setting; known: maybe, named, part, parts, path"),
        ("part.size = 'big'", "part.size = 'big': Input should be a valid integer"),
        ("part.size = 0", "part.size = 0: Input should be greater than 0"),
        ("part.kind = 'three'", "part.kind = 'three': Input should be 'one' or 'two'"),
        ("part = 3", "part = 3: write a table"),
        ("named = [1]", "named = [1]: write a table"),
        ("parts = 3", "parts = 3: write a list"),
        ("path = 3", "path = 3: write a path as text"),
        ("part.size = 0\npart.kind = 1", "(and 1 more)"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(tmp_path: Path, text: str, line: str):
    with pytest.raises(RecipeError) as caught:
        _settings(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'r.toml'}: ") and "\n" not in message
    assert line in message


def test_a_missing_setting_is_named(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"r\.toml: path is missing$"):
        read_recipe(_file(tmp_path, 'recipe = "x"')).config(Settings)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'recipe = "x"\nb = !', r"r\.toml: not TOML: .*line 2"),
        (b"\xff", r"r\.toml: not UTF-8 text \(byte 0\)"),
        (b"a = 1", r"r\.toml: the line `recipe = "),
        (b"recipe = 1", r"r\.toml: the line `recipe = "),
        (b'recipe = "x"\nruntime = 3', r"r\.toml: runtime = 3: it is a table"),
    ],
)
def test_a_file_that_cannot_be_understood(tmp_path: Path, content: bytes, line: str):
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=line):
        read_recipe(path)


def test_a_file_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"absent\.toml: cannot be read \(No such file"):
        read_recipe(tmp_path / "absent.toml")
    with pytest.raises(RecipeError, match=r"cannot be read \(Is a directory\)"):
        read_recipe(tmp_path)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"threads": 0}, "runtime.threads = 0: Input should be greater than or equal to 1"),
        ({"steps": {"a": {"workers": 2}}}, "runtime.steps.a.workers is not a setting; known: "),
        ({"steps": {"a": {"device": "gpu"}}}, "runtime.steps.a.device = 'gpu': write auto, cpu"),
        ({"wokers": 2}, "runtime.wokers is not a setting; did you mean 'workers'?"),
    ],
)
def test_a_wrong_runtime_is_one_clear_line(given: dict[str, Any], line: str):
    with pytest.raises(RecipeError, match=line.replace(".", r"\.").replace("?", r"\?")):
        RecipeFile(Path("r.toml"), "x", {}, given, "r").runtime_with({})


BIG = "9" * 5000
DEEP = "[" * 3000


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (BIG, "an integer of more than 64 bits"),
        ("0x" + "f" * 5000, "an integer of more than 64 bits"),
        ("9223372036854775808", "an integer of more than 64 bits"),
        ("[1, {deep = 0x8000000000000000}]", "an integer of more than 64 bits"),
        (DEEP + "]" * 3000, "nested too deeply"),
        (DEEP, "nested too deeply"),
        ("{a=" * 400 + "1" + "}" * 400, "nested too deeply"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("nan", "nan is not a finite number"),
        ("[1.0, -inf]", "-inf is not a finite number"),
        ("1e999", "inf is not a finite number"),
        ("2024-11-20", "2024-11-20 is a date or time; write it in quotes"),
        ("07:32:00", "07:32:00 is a date or time; write it in quotes"),
        ("{when = 1979-05-27T07:32:00Z}", "is a date or time; write it in quotes"),
    ],
)
def test_a_value_that_no_setting_can_have_is_one_line(tmp_path: Path, value: str, line: str):
    with pytest.raises(RecipeError) as in_file:
        read_recipe(_file(tmp_path, f'recipe = "x"\n[part]\nsize = {value}\n'))
    with pytest.raises(RecipeError) as changed:
        apply_change({}, f"part.size={value}")
    for message in (str(in_file.value), str(changed.value)):
        assert line in message and len(message) < 300 and "\n" not in message, message
    assert str(changed.value).startswith("--set part.size")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("path=~nosuchuser/data", "path = '~nosuchuser/data': ~nosuchuser has no home"),
        (f"path={'n' * 300}", "no file can have this name"),
        (f"path=data/{'é' * 150}/x", "no file can have this name"),
        ('path="a\\u0000b"', "no file can have this name"),
        ("part.share='nan'", "Input should be a finite number"),
        ("part.share='-Infinity'", "Input should be a finite number"),
    ],
)
def test_a_path_or_number_that_cannot_be_is_one_line(tmp_path: Path, change: str, line: str):
    with pytest.raises(RecipeError) as caught:
        _settings(tmp_path, "", change)
    assert line in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_an_integer_of_64_bits_is_one(number: int):
    settings: dict[str, Any] = {}
    apply_change(settings, f"a={number}")
    assert settings == {"a": number}


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path):
    assert read_recipe(_file(tmp_path, '\ufeffrecipe = "x"')).recipe == "x"


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("a.b=2", {"a": {"b": 2}, "l": [{"c": 1}, {"c": 2}]}),
        ("a.b=text with = sign", {"a": {"b": "text with = sign"}, "l": [{"c": 1}, {"c": 2}]}),
        ("l.1.c=5", {"a": {"b": 1}, "l": [{"c": 1}, {"c": 5}]}),
        ("l.0={c = 9}", {"a": {"b": 1}, "l": [{"c": 9}, {"c": 2}]}),
        ("l=[1, 2]", {"a": {"b": 1}, "l": [1, 2]}),
        ("a.n.m=true", {"a": {"b": 1, "n": {"m": True}}, "l": [{"c": 1}, {"c": 2}]}),
        ("a.b='7'", {"a": {"b": "7"}, "l": [{"c": 1}, {"c": 2}]}),
        (" a.b =1.5", {"a": {"b": 1.5}, "l": [{"c": 1}, {"c": 2}]}),
        ('a."b.c".d=2', {"a": {"b": 1, "b.c": {"d": 2}}, "l": [{"c": 1}, {"c": 2}]}),
        ("a.b=", {"a": {"b": ""}, "l": [{"c": 1}, {"c": 2}]}),
    ],
)
def test_changes_are_applied(change: str, wanted: dict[str, Any]):
    settings: dict[str, Any] = {"a": {"b": 1}, "l": [{"c": 1}, {"c": 2}]}
    apply_change(settings, change)
    assert settings == wanted


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("a.b", "write it as key.sub=value"),
        ("=3", "write it as key.sub=value"),
        ("l.2.c=1", "no setting has the part '2'"),
        ("l.x=1", "'x' is not a key of a table here"),
        ("a.b.c=1", "'c' is not a key of a table here"),
        ("a.b.c.d=1", "no setting has the part 'c'"),
    ],
)
def test_wrong_changes_are_refused(change: str, line: str):
    with pytest.raises(RecipeError) as caught:
        apply_change({"a": {"b": 1}, "l": [{"c": 1}]}, change)
    assert str(caught.value) == f"--set {change}: {line}"


def test_changes_win_over_the_file(tmp_path: Path):
    found = _settings(tmp_path, "part.size = 2\n[[parts]]", "part.size=7", "parts.0.kind=two")
    assert found.part.size == 7 and found.parts[0].kind == "two"


ONE = '  kind  = "one", one of one, two'


class Own(Config):
    """Own."""

    part: Part = Part(kind="two", size=5)
    maybe: Literal["x"] | None = None
    several: tuple[Literal["x", "y"], ...] = ()
    which: Literal["", "z"]
    """Which."""
    many: tuple[float, ...] = (0.5, 2)
    on: bool = True
    table: dict[str, dict[str, int]] = Field({"a b": {"c": 1}})


def test_settings_are_described_with_what_is_in_them():
    size = ("  size  = 1", "  share  = 0.5")
    assert list(describe(Settings)) == [
        "path  required",
        "part  table", ONE, *size,
        "parts  list of tables", ONE, *size,
        "named  tables by name", ONE, *size,
        "maybe  table, or false", ONE, *size,
    ]  # fmt: skip


def test_what_a_setting_may_be_is_named_and_its_default_is_the_tables_own():
    assert list(describe(Own)) == [
        "part  table", '  kind  = "two", one of one, two', "  size  = 5", "  share  = 0.5",
        "maybe  = unset, or x",
        "several  = [], any of x, y",
        'which  required, one of "", z  Which.',
        "many  = [0.5, 2]", "on  = true", 'table  = {"a b" = {c = 1}}',
    ]  # fmt: skip


def test_a_precision_reaches_every_local_model_whose_file_names_none(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b.toml").write_text('folder = "a"\nname = "b"\ndtype = "bfloat16"\n')
    (tmp_path / "q.jsonl").write_text('{"question": "Q", "answer": "A", "options": ["a", "b"]}\n')
    path = tmp_path / "r.toml"
    path.write_text(
        'recipe = "eval"\nmodels = { a = "a", b = "b.toml" }\n'
        'suites = [{ suite = "questions", path = "q.jsonl" }]\n'
    )
    for changes, wanted in [([], "auto"), (["dtype=float32"], "float32")]:
        built, _ = load(path, changes, {})
        uses = [use for step in built.steps for use in models(step).values()]
        found = {use.config.label: use.config for use in uses}
        assert {name: getattr(each, "dtype", None) for name, each in found.items()} == {
            "a": wanted, "b": "bfloat16"
        }  # fmt: skip
    with pytest.raises(RecipeError, match=r"r\.toml: Local dtype: .*'float32'"):
        load(path, ["dtype=float8"], {})
