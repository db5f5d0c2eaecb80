"""Charts as Vega-Lite specifications, drawn from rows of plain values.

Every row has a `line`: the model, student or data set that gives it its colour. Colours are
variables of the page's style sheet, so that charts follow its light or dark theme.
"""

from collections.abc import Mapping, Sequence
from math import cos, pi, sin
from typing import Any

INK, GUESSING = "currentColor", "var(--bad, #a82a24)"
PALETTE = tuple(
    f"var(--series-{number}, {light})"
    for number, light in enumerate(
        ("#0b6e8f", "#d1603d", "#5b8a40", "#8d5a97", "#a88414", "#4f6d7a", "#b56576", "#3d5a80"), 1
    )
)
ACCENT, GRID = PALETTE[0], "var(--line, #d9e2e6)"
RINGS = (25, 50, 75, 100)
"""Circles of a radar, in percent."""
Spec = dict[str, Any]
Values = Sequence[Mapping[str, Any]]


def span(of: Any, unit: float = 100) -> dict[str, float]:  # noqa: ANN401 (with value, low, high)
    """Return a value and the ends of its interval; shares are in percent."""
    return {name: unit * getattr(of, name) for name in ("value", "low", "high")}


def axis(field: str, title: str | None = None, **more: Any) -> Spec:  # noqa: ANN401 (plain data)
    """Return the channel of a field with numbers."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def names(field: str, **more: Any) -> Spec:  # noqa: ANN401 (plain data)
    """Return the channel of a field with names, in the order of the rows."""
    return {"field": field, "type": "nominal", "title": None, "sort": None, **more}


def colour() -> Spec:
    """Return the channel that gives each line its colour."""
    return names("line", scale={"range": list(PALETTE)}, legend={"orient": "top"})


def chart(values: Values, *layers: Spec, width: Any = 640, height: Any = 260) -> Spec:  # noqa: ANN401
    """Return a specification of layers over the same rows."""
    data = {"values": [dict(each) for each in values]}
    return {"data": data, "layer": list(layers), "width": width, "height": height}


def layer(mark: str, encoding: Spec, **style: Any) -> Spec:  # noqa: ANN401 (plain data)
    """Return one layer of marks."""
    return {"mark": {"type": mark, **style}, "encoding": encoding}


def curves(values: Values, x: str, y: str, *, is_log: bool = False, dots: bool = False) -> Spec:
    """Return a curve per line over `x`, one per `seed`; `dots` have intervals `low` to `high`."""
    scale = {"type": "log", "nice": False, "padding": 12} if is_log else {}
    place = {"x": axis("x", x, scale=scale), "color": colour()}
    level = axis("y", y, scale={"zero": False})
    if not dots:
        drawn = [layer("line", {**place, "y": level, "detail": names("seed")}, strokeWidth=1.6)]
        return chart(values, *drawn, width=720)
    mean, ends = {**level, "aggregate": "mean"}, {"y": axis("low", y), "y2": {"field": "high"}}
    return chart(
        values,
        layer("line", {**place, "y": mean}, strokeWidth=1.6),
        layer("rule", {**place, **ends}),
        layer("circle", {**place, "y": level}, size=40, opacity=1),
    )


def spans(
    values: Values,
    title: str,
    *,
    bars: bool = False,
    reference: float | None = None,
    domain: Sequence[float] | None = None,
) -> Spec:
    """Return each `row`'s `value` with its interval `low` to `high`; a tick shows its `chance`.

    Rows of one name are beside each other, by line. A dashed line is drawn at the `reference`.
    """
    place = {"y": names("row", axis={"labelLimit": 420})}
    tint: Spec = {"value": ACCENT}
    if is_grouped := len({each.get("line") for each in values}) > 1:
        place["yOffset"], tint = names("line"), colour()
    scale = {"domain": list(domain)} if domain else {}
    at, ends = axis("value", title), {"x": axis("low", title, scale=scale), "x2": {"field": "high"}}
    layers = [layer("bar", {**place, "x": at, "color": tint}, opacity=0.6)] if bars else []
    shade = {"value": INK} if bars else tint
    layers.append(layer("rule", {**place, **ends, "color": shade}, strokeWidth=2))
    if not bars:
        layers.append(layer("circle", {**place, "x": at, "color": tint}, size=50, opacity=1))
    if any(each.get("chance") for each in values):
        tick = {"color": GUESSING, "thickness": 2, "size": 12}
        layers.append(layer("tick", {**place, "x": axis("chance", title)}, **tick))
    if reference is not None:
        line = layer("rule", {"x": {"datum": reference}}, strokeDash=[5, 4], color=GUESSING)
        layers.insert(0, line)
    return chart(values, *layers, width=480, height={"step": 13 if is_grouped or bars else 26})


def radar(values: Values) -> Spec:
    """Return a radar of percents: a spoke per `row`, a polygon per line, the guess dashed."""
    rows = list(dict.fromkeys(each["row"] for each in values))
    lines = list(dict.fromkeys(each["line"] for each in values))
    spoke = {name: 2 * pi * place / len(rows) for place, name in enumerate(rows)}
    points = [
        {"line": line, **_point(spoke[each["row"]], each[field] or 0)}
        for each in values
        for line, field in ((each["line"], "value"), ("chance", "chance"))
    ]
    circles = [
        {"ring": ring, "order": n, **_point(2 * pi * n / 72, ring)}
        for ring in RINGS
        for n in range(73)
    ]
    labels = [{"text": str(ring), **_point(0.0, ring), "side": 1} for ring in RINGS]
    labels += [{"text": name, **_point(at, 106)} for name, at in spoke.items()]
    place = {
        "x": axis("x", axis=None, scale={"domain": [-190, 190]}),
        "y": axis("y", axis=None, scale={"domain": [-115, 115]}),
    }
    scale = {"domain": [*lines, "chance"], "range": [*PALETTE[: len(lines)], GUESSING]}
    is_chance = {"test": "datum.line == 'chance'", "value": [4, 4]}
    polygons = {
        **place, "order": axis("angle"), "color": {**colour(), "scale": scale},
        "strokeDash": {"condition": is_chance, "value": [1, 0]},
    }  # fmt: skip
    rings = {**place, "detail": names("ring"), "order": axis("order")}
    texts = {**place, "text": {"field": "text"}}
    layers = [
        layer("line", rings, color=GRID, strokeWidth=1) | {"data": {"values": circles}},
        layer("line", polygons, interpolate="linear-closed", strokeWidth=2, point={"size": 22}),
        *(
            layer("text", texts, align=align, fontSize=11)
            | {"data": {"values": [each for each in labels if each["side"] == side]}}
            for side, align in ((-1, "right"), (0, "center"), (1, "left"))
        ),
    ]
    return chart(points, *layers, height=387)


def _point(angle: float, radius: float) -> dict[str, Any]:
    x = radius * sin(angle)
    side = 0 if abs(x) < 5 else 1 if x > 0 else -1
    return {"x": x, "y": radius * cos(angle), "angle": angle, "side": side}
