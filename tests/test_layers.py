import ast
import re
import tomllib
from pathlib import Path

import spyhop
from spyhop.lazy import EXTRAS

PACKAGE = Path(spyhop.__file__).parent
ROOMS = [
    ["schema"],
    ["lazy"],
    ["processes", "cluster"],
    ["charts"],
    ["render", "text", "statistics", "settings"],
    ["runtime"],
    ["store"],
    ["stage"],
    ["models"],
    ["world"],
    ["collect", "corpus"],
    ["augment", "curate"],
    ["train", "evaluate"],
    ["report"],
    ["recipe"],
    ["recipes"],
    ["studio"],
    ["cli"],
    ["__main__"],
]
RANK = {room: place for place, rooms in enumerate(ROOMS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 500


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imported(node: ast.AST) -> list[str]:
    """Rooms of this package that an import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        module = node.module or ""
        whole = [f"spyhop.{a.name}" for a in node.names if not a.name.startswith("_")]
        names = whole if module == "spyhop" else [module]
    else:
        return []
    return [name.split(".")[1] for name in names if name.startswith("spyhop.")]


def test_every_module_stands_in_a_known_room():
    rooms = {_room(path) for path in MODULES} - {"__init__"}
    assert rooms <= set(RANK)


def test_rooms_import_only_rooms_before_them():
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} imports {other}"
        for path in MODULES
        if _room(path) != "__init__"
        for node in ast.walk(ast.parse(path.read_text()))
        for other in _imported(node)
        if other != _room(path) and RANK[other] >= RANK[_room(path)]
    ]
    assert wrong == []


def test_no_function_hides_an_import_of_this_package():
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in MODULES
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
        if _imported(node)
    ]
    assert wrong == []


def test_no_module_imports_a_library_of_an_extra():
    """The core is imported without them; they come through `spyhop.lazy`, or within a function."""
    libraries = {name for names in EXTRAS.values() for name in names} | {"sentencepiece", "spacy"}
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if getattr(node, "module", alias.name).partition(".")[0] in libraries
    ]
    assert wrong == []


def test_extras_name_the_packages_that_they_bring():
    known = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())["project"]
    brought = {name: " ".join(some) for name, some in known["optional-dependencies"].items()}
    for extra, libraries in EXTRAS.items():
        for library in libraries:
            assert re.search(rf"\b{library.replace('_', '[-_]')}\b", brought[extra]), library


def test_modules_are_short():
    lengths = {str(p.relative_to(PACKAGE)): len(p.read_text().splitlines()) for p in MODULES}
    assert {name: num for name, num in lengths.items() if num > MAX_LINES} == {}


def test_the_source_does_not_grow():
    """Who adds lines removes as many (ADR 0040)."""
    assert sum(len(path.read_text().splitlines()) for path in MODULES) <= 49_500


def test_test_modules_have_names_of_their_own():
    """Without packages, two test files of one name cannot be collected together."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py")]
    assert sorted({name for name in names if names.count(name) > 1} - {"__init__.py"}) == []
