"""Vega-Lite charts as SVG, drawn in a separate process: the renderer can abort its process."""

import os
from collections.abc import Callable
from typing import Any

from spyhop.lazy import Lazy
from spyhop.processes import ProcessDied, Service, WorkItem

vl_convert: Any = Lazy("vl_convert")
DRAW_S = 120.0
"""Longest time that one chart may take."""
_RENDERER = Service("spyhop.charts:serve")
_LABELS = {"labelColor": "currentColor", "titleColor": "currentColor"}
_LINES = dict.fromkeys(("gridColor", "domainColor", "tickColor"), "var(--line, #d9e2e6)")
THEME = {
    "background": "transparent",
    "view": {"stroke": None},
    "axis": _LABELS | _LINES,
    "legend": _LABELS,
    "text": {"color": "currentColor"},
}
"""Ink and lines of the surrounding page; alone, an SVG is dark on whatever is behind it."""


def draw_svg(chart: dict[str, Any]) -> str | None:
    """Return a Vega-Lite specification as SVG text, or None if the renderer fails here."""
    try:
        svg: str | None = _RENDERER.ask(WorkItem(time_s=DRAW_S), chart)
    except (ProcessDied, OSError):
        return None
    return svg


def serve(receive: Callable[[], Any], send: Callable[[str | None], None]) -> None:
    """Draw one chart after the other; a failure is None."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # an abort writes pages of addresses
    while True:
        receive()
        try:
            svg = vl_convert.vegalite_to_svg(receive(), vl_version="v6.1", config=THEME)
        except Exception:  # noqa: BLE001 (whatever the renderer raises; the page is written all the same)
            svg = None
        send(svg)
