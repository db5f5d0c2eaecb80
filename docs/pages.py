"""Pages that mkdocs adds to `docs/`: commands, settings and functions, as the code has them.

README, CONTRIBUTING, the changelog, the log, benchmarks and examples become pages, too. Links in
all pages are those of the repository, so that they lead somewhere on a code host as well; here they
become links of the site, and a link to source code becomes its text.
"""

import ast
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args, get_origin

import typer
from mkdocs.structure.files import File

from spyhop.cli.commands import COMMANDS, EXIT_CODES, app
from spyhop.models.local import Local
from spyhop.models.service import Service
from spyhop.recipes import RECIPES
from spyhop.runtime import Runtime
from spyhop.settings import describe
from spyhop.train import cost
from spyhop.world import SolverConfig

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "spyhop"
WHOLE = {"README.md": "index.md"} | {
    name: f"project/{name.lower()}"
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "LOG.md", "SECURITY.md")
}
"""Files of the repository that become pages: their places in the site."""
LINK = re.compile(r"(!?\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\])\(([^()\s]+)\)")
FENCE = re.compile(r"^(```.*?^```|~~~.*?^~~~)", re.MULTILINE | re.DOTALL)
ROOMS = (
    "store", "stage", "models", "render", "world", "collect", "corpus", "augment", "curate",
    "train", "evaluate", "statistics", "recipe",
)  # fmt: skip
"""Rooms whose public functions are part of the reference, in reading order."""
DECISIONS = sorted((ROOT / "docs/adr").glob("0*.md"))
SIZES = "<!-- sizes -->"
SHAPES = (
    ("135 M", 0.135e9, 30, 576), ("0.6 B", 0.6e9, 28, 1024), ("1.7 B", 1.7e9, 28, 2048),
    ("4 B", 4e9, 36, 2560), ("8 B", 8e9, 36, 4096), ("14 B", 14e9, 40, 5120),
    ("32 B", 32e9, 64, 5120),
)  # fmt: skip
"""Name, parameters, layers and hidden size of usual bases."""
VALUES: dict[Any, str] = {int: "N", float: "X", Path: "PATH"}
"""How the reference writes the value of an option of that type."""
KINDS = ("table, or false", "list of tables", "tables by name", "table")


def on_config(config: Any) -> Any:  # noqa: ANN401 (mkdocs' own types)
    """List the generated pages in the navigation, where it names their folder."""
    folders = {
        "reference/settings/*": [{name: uri} for uri, name in _names(_settings())],
        "reference/python/*": [{f"spyhop.{name}": uri} for uri, name in _names(_functions())],
    }

    def filled(entry: Any) -> Any:  # noqa: ANN401 (plain YAML)
        if isinstance(entry, list):
            return [filled(each) for each in entry]
        if isinstance(entry, dict):
            return {title: filled(each) for title, each in entry.items()}
        return folders.get(entry, entry)

    config["nav"] = filled(config["nav"])
    return config


def _names(pages: dict[str, str]) -> list[tuple[str, str]]:
    return [(uri, Path(uri).stem) for uri in pages]


def on_files(files: Any, config: Any) -> Any:  # noqa: ANN401 (mkdocs' own types)
    """Add the generated pages."""
    for uri, text in {**_copied(), **_commands(), **_settings(), **_functions()}.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ANN401
    """Turn links of the repository into links of the site."""
    uri = page.file.src_uri
    markdown = markdown.replace(SIZES, _sizes()) if SIZES in markdown else markdown
    if uri == "adr/README.md":
        markdown += "".join(f"\n- [{_title(path)}]({path.name})" for path in DECISIONS)
    here = _origins().get(uri, f"docs/{uri}")

    def linked(match: re.Match[str]) -> str:
        text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        path = os.path.normpath(PurePosixPath(here).parent / path)
        found = _place(path)
        if found is None:
            return text[1:-1]
        link = os.path.relpath(found, PurePosixPath(uri).parent)
        return f"{text}({link}{'#' + anchor if anchor else ''})"

    parts = FENCE.split(markdown)
    return "".join(part if FENCE.match(part) else LINK.sub(linked, part) for part in parts)


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def _place(path: str) -> str | None:
    """Return the page of a file of the repository, if it has one."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        path += "/README.md"
    found = {origin: uri for uri, origin in _origins().items()}.get(path)
    if found is None and not (ROOT / path.removesuffix("/README.md")).exists():
        raise FileNotFoundError(f"a link leads to {path}")
    return found


@cache
def _origins() -> dict[str, str]:
    """Return the files of the repository that are pages, by the page's place."""
    found = {uri: name for name, uri in WHOLE.items()}
    for path in sorted((ROOT / "benchmarks").glob("*.md")):
        found[f"benchmarks/{path.name}"] = f"benchmarks/{path.name}"
    for path in sorted((ROOT / "examples").rglob("*.toml")):
        name = path.relative_to(ROOT).as_posix()
        found[name.replace(".toml", ".md")] = name
    return found | {"examples/README.md": "examples/README.md"}


def _copied() -> dict[str, str]:
    """Return the files of the repository that are pages; of examples, the recipe is shown."""
    found, recipes = {}, []
    for uri, origin in _origins().items():
        if not (ROOT / origin).exists():
            continue
        text = (ROOT / origin).read_text(encoding="utf-8")
        if origin.endswith(".toml"):
            recipes.append(f"- [{origin.removeprefix('examples/')}]({origin[9:]})")
            text = f"# {Path(origin).name}\n\n```toml\n{text}```\n"
        found[uri] = text
    found["examples/README.md"] = "# Examples\n\n" + "\n".join(recipes) + "\n"
    return found


def _commands() -> dict[str, str]:
    """Return the reference of the command line."""
    group = typer.main.get_command(app)
    ctx = group.make_context("spyhop", ["plan", "x"], resilient_parsing=True)
    lines = ["# Commands\n", EXIT_CODES + " More: [exit codes](../exit-codes.md).\n"]
    for section, names in COMMANDS.items():
        lines.append(f"## {section}\n")
        for name in names:
            command = group.get_command(ctx, name)  # type: ignore[attr-defined]
            lines += _command(f"spyhop {name}", command)
    return {"reference/commands.md": "\n".join(lines)}


def _command(name: str, command: Any) -> Iterator[str]:  # noqa: ANN401 (typer has no public type)
    if inner := getattr(command, "commands", None):
        for each, sub in inner.items():
            yield from _command(f"{name} {each}", sub)
        return
    usage = " ".join(_metavar(each) for each in command.params if _is_argument(each))
    yield f"### {name}\n"
    yield f"```text\n{name} {usage}{' ' * bool(usage)}[OPTIONS]\n```\n"
    yield (command.help or "").strip() + "\n"
    rows = [row for each in command.params if (row := _parameter(each))]
    yield "| option | default | |\n|---|---|---|\n" + "\n".join(rows) + "\n" if rows else ""


def _is_argument(parameter: Any) -> bool:  # noqa: ANN401 (as above)
    return str(parameter.param_type_name) == "argument"


def _metavar(parameter: Any) -> str:  # noqa: ANN401 (as above)
    if parameter.metavar:
        return str(parameter.metavar)
    name = str(parameter.name).upper().rstrip("_")
    return name + "..." * (parameter.nargs == -1) if parameter.required else f"[{name}]"


def _parameter(parameter: Any) -> str:  # noqa: ANN401 (as above)
    about = (parameter.help or "").replace("|", "\\|")
    kind = parameter.type_descriptor.annotation
    words = ""
    if get_origin(kind) is Literal:
        words = f"One of {', '.join(f'`{each}`' for each in get_args(kind))}."
    if _is_argument(parameter):
        shown, default = _metavar(parameter), ""
    else:
        value = parameter.metavar or VALUES.get(kind, "TEXT")
        shown = ", ".join(parameter.opts) + ("" if kind is bool else f" {value}")
        default = "required" if parameter.required else _default(parameter)
    shown = shown.replace("|", "\\|")
    return f"| `{shown}` | {default} | {' '.join(filter(None, (about, words)))} |"


def _default(parameter: Any) -> str:  # noqa: ANN401 (as above)
    shown = "" if parameter.default in (None, False, "", [], ()) else f"`{parameter.default}`"
    return shown if parameter.show_default else ""


def _settings() -> dict[str, str]:
    """Return a page for the settings of each recipe, of `[runtime]` and of teacher files."""
    pages = {}
    intro = (
        'Settings of a recipe file with `recipe = "{0}"`, as `spyhop recipes {0}` lists them. '
        "Each recipe file may have `name`, `dtype` and [`[runtime]`](runtime.md), too.\n"
    )
    for name, kind in RECIPES.items():
        head = [f"# {name}\n", kind.summary + "\n", intro.format(name)]
        lines = list(describe(kind.config_type))
        pages[f"reference/settings/{name}.md"] = "\n".join([*head, *_tables(lines)])
    runtime = (
        "Where and how fast a recipe runs: `[runtime]` of any recipe file. Never part of a key.\n"
    )
    lines = list(describe(Runtime))
    pages["reference/settings/runtime.md"] = "\n".join(["# runtime\n", runtime, *_tables(lines)])
    served = ["model  required  The model's name, as the API calls it.",
              "revision  = \"\"  Date, commit or quantisation of models with the same name.",
              "extra  = {}  Fields that are sent with every request.",
              "omit  = []  Fields of the request that the model rejects.",
              *describe(Service)]  # fmt: skip
    text = [
        "# Teacher files\n",
        "A model and where it is served ([teachers](../../teachers.md)).\n",
    ]
    text += [*_tables(served), "## A folder of weights\n", "`folder` names it. Further settings:\n"]
    text += [*_tables(list(describe(Local))), "## The built-in world's teacher\n"]
    text += ["`solver = {}` names it; it needs no key. Settings of `[solver]`:\n"]
    pages["reference/settings/teacher.md"] = "\n".join(
        [*text, *_tables(list(describe(SolverConfig)))]
    )
    return pages


def _tables(lines: list[str]) -> Iterator[str]:
    """Yield a Markdown table of each table of settings, the outermost one first."""
    tables: dict[tuple[str, ...], list[str]] = {(): []}
    about: dict[tuple[str, ...], str] = {}
    path: list[str] = []
    for line in lines:
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, rest = line.strip().partition("  ")
        path = [*path[:depth], name]
        kind = next((each for each in KINDS if rest == each or rest.startswith(f"{each}  ")), "")
        value, text = _value(rest.removeprefix(kind).strip())
        shown = f"[{name}](#{'-'.join(path)})" if kind else f"`{name}`"
        tables[tuple(path[:-1])].append(f"| {shown} | {kind} {value} | {text} |")
        if kind:
            tables[tuple(path)], about[tuple(path)] = [], f"{kind.capitalize()}. {text}"
    for path_, rows in tables.items():
        if path_:
            title = ".".join(path_)
            yield f"## `{title}` {{#{'-'.join(path_)}}}\n\n{about[path_]}\n"
        yield "| setting | default | |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _value(rest: str) -> tuple[str, str]:
    """Split what follows a setting's name into its value and its meaning, as Markdown."""
    value, text = "", rest
    if rest.startswith(("= ", "required", ", ")):
        value, _, text = rest.partition("  ")
    first, _, choices = value.removeprefix("= ").partition(", one of ")
    shown = first if first in ("", "required", "unset") else f"`{first}`"
    if choices:
        text = f"{text} One of {', '.join(f'`{each}`' for each in choices.split(', '))}."
    return shown.replace("|", "\\|"), text.replace("|", "\\|").replace("<", "&lt;")


def _sizes() -> str:
    """Return a table of memory and time of training, by the formulas of plans."""
    titles = ["base", "all weights, GB", "LoRA, GB", "QLoRA, GB", "activations, GB"]
    lines = [f"| {' | '.join(titles)} | hours per 10 M tokens |", "|---" * 6 + "|"]
    runtime = Runtime(gradient_checkpointing=True)
    for name, parameters, depth, width in SHAPES:
        shape = cost.Shape(int(parameters), depth, width)
        trained = 2 * 16 * 12 * depth * width  # rank 16 on seven matrices, about 12 widths a layer
        sizes = [
            cost.state_bytes(shape),
            cost.state_bytes(shape, trained),
            cost.state_bytes(shape, trained, cost.NF4_BYTES),
            cost.activation_bytes(depth, width, runtime),
        ]
        flops = shape.flops_per_token(500) * 10e6
        hours = cost.gpu_hours(flops, cost.TFLOPS[cost.PLAN_GPU], cost.PLAN_MFU)
        figures = " | ".join(f"{size / 1e9:,.1f}" for size in sizes)
        lines.append(f"| {name} | {figures} | {hours:.2f} |")
    return "\n".join(lines)


def _functions() -> dict[str, str]:
    """Return a page for the public functions and types of each room."""
    pages = {}
    for room in ROOMS:
        path = SOURCE / room / "__init__.py"
        names = [f"spyhop.{room}"]
        about = ""
        if path.exists():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            about = ast.get_docstring(tree) or ""
            found = [each for each in tree.body if isinstance(each, ast.ImportFrom)]
            names = [
                f"{each.module}.{alias.name}"
                for each in found
                for alias in each.names
                if not alias.name.isupper()  # constants are not documented one by one
            ]
        blocks = "\n\n".join(f"::: {name}" for name in names)
        pages[f"reference/python/{room}.md"] = f"# spyhop.{room}\n\n{about}\n\n{blocks}\n"
    return pages
