"""What every page may use: the stores by name, artifacts by id, templates, error pages.

The browser names things, never paths: a store by the name of its folder, an artifact by its id
(`evaluate.measure-1ee7cd052a7d6bb5`), a run by its name, a row by its id or position.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markupsafe import Markup
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse

from spyhop import __version__
from spyhop.recipe.watch import duration
from spyhop.report.html import environment
from spyhop.schema import ArtifactError
from spyhop.store import RUNS, Artifact
from spyhop.store.artifact import RECORD, load
from spyhop.studio.tables import Engine
from spyhop.text.escape import visible

MOST_KEPT = 256
MOST_CHARS = 20_000
"""Longer texts are shown as they are, up to `SHOWN_CHARS`: Markdown of any length takes time."""
SHOWN_CHARS = 200_000

ARTIFACT = re.compile(r"[a-z0-9_]+\.[a-z0-9_]+-[0-9a-f]{8,64}")


@dataclass(slots=True)
class Catalog:
    """What a store holds, looked at again on every request; records are read once."""

    root: Path
    damaged: dict[str, str] = field(default_factory=dict)
    """Reason by folder, of records that cannot be read."""
    _read: dict[str, tuple[int, Artifact]] = field(default_factory=dict)

    def artifacts(self) -> list[Artifact]:
        """Return the finished artifacts, the newest first."""
        found, self.damaged = list[Artifact](), {}
        for path in self.root.glob("*.*-*"):
            try:
                stamp = (path / RECORD).stat().st_mtime_ns
                if self._read.get(path.name, (0,))[0] != stamp and (made := load(path)):
                    self._read[path.name] = (stamp, made)
                found.append(self._read[path.name][1])
            except ArtifactError as error:
                self.damaged[path.name] = str(error)
            except (OSError, KeyError):
                continue  # unfinished, or deleted meanwhile
        return sorted(found, key=lambda each: (each.record.created, each.path.name), reverse=True)

    def steps(self) -> dict[str, list[str]]:
        """Return `run/step` names by artifact."""
        found: dict[str, list[str]] = {}
        for link in sorted(self.root.glob(f"{RUNS}/*/*")):
            if link.is_symlink():
                steps = found.setdefault(link.readlink().name, [])
                steps.append(f"{link.parent.name}/{link.name}")
        return found


class Site:
    """The stores that are shown, and what pages keep between requests."""

    def __init__(
        self, folders: Sequence[Path], nav: list[tuple[str, str]], models: Sequence[Path]
    ) -> None:
        self.stores: dict[str, Path] = {}
        """By a short name that an address can contain."""
        for folder in dict.fromkeys(path.resolve() for path in folders):
            name = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-") or "store"
            number = sum(re.sub(r"-\d+$", "", known) == name for known in self.stores)
            self.stores[f"{name}-{number + 1}" if name in self.stores else name] = folder
        self.nav, self.models = nav, {path.stem: path for path in models}
        self.engine = Engine([*self.stores.values()])
        self.kept: dict[Any, Any] = {}
        """Open logs and the like, by a key of the page's own; see `keep`."""
        self.voices: dict[str, Any] = {}
        """Open models of conversations, by name."""
        self.resources = ExitStack()
        """Closed when the server stops."""

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:  # noqa: ANN401 (a page's own)
        """Return what was made under a key, made now unless it is there; the oldest are dropped."""
        if key not in self.kept:
            self.kept[key] = make()
            while len(self.kept) > MOST_KEPT:
                self.kept.pop(next(iter(self.kept)), None)
        return self.kept[key]

    def store(self, name: str) -> Path:
        """Return a store by its name."""
        if name not in self.stores:
            raise HTTPException(404, f"No store is called {name:.80}.")
        return self.stores[name]

    def catalog(self, store: str) -> Catalog:
        """Return the artifacts of a store."""
        root = self.store(store)
        found: Catalog = self.keep(("catalog", store), lambda: Catalog(root))
        return found

    def artifact(self, store: str, artifact: str) -> Artifact:
        """Return an artifact by store and id; a damaged record raises."""
        root = self.store(store)
        found = load(root / artifact) if ARTIFACT.fullmatch(artifact) else None
        if found is None:
            raise HTTPException(404, f"{store} has no finished artifact {artifact:.120}.")
        return found


def site_of(request: Request) -> Site:
    """Return the site that a request is for."""
    return cast(Site, request.app.state.site)


def artifact_of(request: Request, name: str = "artifact") -> Artifact:
    """Return the artifact that an address names, below its store."""
    return site_of(request).artifact(request.path_params["store"], request.path_params[name])


def page(
    request: Request,
    template: str,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,  # noqa: ANN401 (a template's)
) -> HTMLResponse:
    """Return a template as a whole page, or as a part of one if it does not extend `base.html`."""
    return HTMLResponse(fragment(request, template, **values), status, headers)


def fragment(request: Request, template: str, **values: Any) -> str:  # noqa: ANN401 (a template's)
    """Return a template as text, such as an event that is sent to an open page."""
    site, here = site_of(request), request.url.path.split("/")[1]
    return _TEMPLATES.get_template(template).render(values, site=site, here=f"/{here}")


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form that was sent."""
    text = (await request.body()).decode(errors="replace")
    return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=10_000))


def problem(request: Request, text: str) -> HTMLResponse:
    """Return why a form was refused, shown beside it: the page keeps what was written."""
    beside = {"HX-Retarget": "#problem", "HX-Reswap": "innerHTML"}
    return page(request, "error_part.html", 422, beside, text=text)


def event(kind: str, data: str) -> str:
    """Return a server-sent event."""
    lines = "".join(f"data: {line}\n" for line in data.replace("\r", "\n").split("\n"))
    return f"event: {kind}\n{lines}\n"


def with_query(path: str, query: QueryParams, **changes: str | None) -> str:
    """Return an address with some of its query changed, at the first page; None removes one."""
    left = [(k, v) for k, v in query.multi_items() if k not in {*changes, "after", "before"}]
    more = [(name, value) for name, value in changes.items() if value is not None]
    return f"{path}?{urlencode(left + more)}".removesuffix("?")


def toggled(path: str, query: QueryParams, name: str, value: str) -> str:
    """Return an address with one parameter's value added, or removed if it is there."""
    left = [item for item in query.multi_items() if item != (name, value)]
    more = [(name, value)] if len(left) == len(query.multi_items()) else []
    return with_query(path, QueryParams(left + more))


def plain(value: float) -> str:
    """Return a number as short as it is exact enough for a table."""
    is_short = not isinstance(value, int) and abs(value) < 1e4
    return f"{value:,.4g}" if is_short else f"{value:,.0f}"


class _Parser(MarkdownIt):
    """Markdown with tables, without HTML and pictures; only addresses of the web are links."""

    def validateLink(self, url: str) -> bool:
        """Return whether an address is shown as a link."""
        return url.startswith(("https://", "http://"))


_PARSER = _Parser("commonmark", {"html": False}).enable("table").disable("image")


def as_html(text: str, *, is_plain: bool = False) -> Markup:
    """Return a text as Markdown, or as it is if that is wished or it is long.

    Each block takes the direction of its own script.
    """
    if is_plain or len(text) > MOST_CHARS:
        shown = Markup('<pre class="verbatim" dir="auto" tabindex="0">{}</pre>')
        note = Markup('<p class="note">The first {} of {} characters.</p>')
        cut = note.format(f"{SHOWN_CHARS:,}", f"{len(text):,}") if len(text) > SHOWN_CHARS else ""
        return shown.format(visible(text[:SHOWN_CHARS])) + cut
    tokens = _PARSER.parse(visible(text))
    for token in tokens:
        if token.type.startswith("heading"):  # headings of a row do not belong to the page
            token.tag, token.attrs = "p", {"class": "heading"} if token.nesting == 1 else {}
        if token.nesting == 1 and token.level == 0:  # what is inside it has its direction
            token.attrSet("dir", "auto")
        if style := str(token.attrs.pop("style", "")):  # of a table's cell
            token.attrSet("class", style.removeprefix("text-align:"))
    for each in (inner for token in tokens for inner in token.children or []):
        if each.type == "link_open":
            each.attrs |= {"rel": "noreferrer noopener nofollow", "target": "_blank"}
    html = RendererHTML().render(tokens, _PARSER.options, {})
    return Markup('<div class="md">{}</div>').format(
        Markup(html.replace("<pre>", '<pre tabindex="0">'))
    )


def as_json(value: Any) -> str:  # noqa: ANN401 (a cell)
    """Return a nested cell as indented JSON, cut where it is long."""
    try:
        found = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):
        found = str(value)
    return found if len(found) <= SHOWN_CHARS else f"{found[:SHOWN_CHARS]} …"


_TEMPLATES = environment("spyhop.studio")
_TEMPLATES.filters |= {
    "figure": lambda number, digits=0: f"{number:,.{digits}f}", "duration": duration,
    "plain": plain, "as_html": as_html, "json": as_json,
}  # fmt: skip
_TEMPLATES.globals |= {"version": __version__, "with_query": with_query, "toggled": toggled}
