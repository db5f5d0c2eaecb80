"""Charts of scores: bars with their intervals, and a radar of tasks, as in the Orca paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import cos, pi, sin
from typing import Any, Literal

from spyhop.evaluate import TaskScores
from spyhop.lazy import alt
from spyhop.report.html import INK, PALETTE

CHANCE_COLOR = "#b33"
RINGS = (25, 50, 75, 100)
"""Circles of a radar, in percent."""


def score_bars(found: Mapping[str, Sequence[TaskScores]]) -> alt.TopLevelMixin:
    """Return bars with 95 % intervals by the name of the group, one bar per model."""
    values = [
        {
            "task": name.replace("_", " "),
            "model": each.model,
            "value": 100 * each.interval.value,
            "low": 100 * each.interval.low,
            "high": 100 * each.interval.high,
            "chance": 100 * each.chance or None,
        }
        for name, scores in found.items()
        for each in scores
    ]
    base = alt.Chart(alt.Data(values=values))
    # Every layer needs the offset, or the scale of y has no bands and models slip a row down.
    place = {
        "y": alt.Y("task:N", title=None, sort=None, axis=alt.Axis(labelLimit=280)),
        "yOffset": alt.YOffset("model:N", sort=None),
    }
    scale, legend = alt.Scale(range=list(PALETTE)), alt.Legend(orient="top")
    color = alt.Color("model:N", title=None, sort=None, scale=scale, legend=legend)
    x = alt.X("value:Q", title="score %", scale=alt.Scale(domainMin=0, domainMax=100))
    bars = base.mark_bar(opacity=0.6).encode(x=x, color=color, **place)
    rules = base.mark_rule(strokeWidth=1.6, color=INK).encode(x="low:Q", x2="high:Q", **place)
    ticks = base.mark_tick(color=CHANCE_COLOR, thickness=2, size=12).encode(x="chance:Q", **place)
    return alt.layer(bars, rules, ticks).properties(width=480, height=alt.Step(13))


def radar(found: Mapping[str, Sequence[TaskScores]]) -> Any:  # noqa: ANN401 (Altair's chart)
    """Return a radar: a spoke per group, a polygon per model, and a dashed one for chance."""
    names = list(found)
    spoke = {name: 2 * pi * place / len(names) for place, name in enumerate(names)}
    values: list[dict[str, object]] = []
    for name, scores in found.items():
        lines = [(each.model, each.interval.value) for each in scores]
        for model, value in [*lines, ("chance", max(each.chance for each in scores))]:
            values.append({"model": model, **_point(spoke[name], 100 * value)})
    circles = [
        {"ring": ring, "order": n, **_point(2 * pi * n / 72, ring)} for ring in RINGS
        for n in range(73)
    ]  # fmt: skip
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-190, 190]))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[-115, 115]))
    models = list(dict.fromkeys(str(each["model"]) for each in values if each["model"] != "chance"))
    scale = alt.Scale(domain=[*models, "chance"],
                      range=[*PALETTE[: len(models)], CHANCE_COLOR])  # fmt: skip
    dash = alt.condition("datum.model == 'chance'", alt.value([4, 4]), alt.value([1, 0]))
    rings = alt.Chart(alt.Data(values=circles)).mark_line(color="#d9e2e6", strokeWidth=1)
    numbers = [{"text": str(ring), **_point(0.0, ring)} for ring in RINGS]
    labels: list[dict[str, object]] = [
        {"text": name.replace("_", " "), **_point(spoke[name], 106)} for name in names
    ]
    layers = [
        rings.encode(x=x, y=y, detail="ring:N", order="order:O"),
        _texts(numbers, "left", 9, x, y),
        alt.Chart(alt.Data(values=values))
        .mark_line(interpolate="linear-closed", strokeWidth=2, point={"size": 22})
        .encode(
            x=x, y=y, order="angle:Q", strokeDash=dash,
            color=alt.Color("model:N", title=None, scale=scale, legend=alt.Legend(orient="top")),
        ),
    ]  # fmt: skip
    sides: dict[int, Literal["left", "center", "right"]] = {-1: "right", 0: "center", 1: "left"}
    for side, align in sides.items():
        own = [each for each in labels if _side(each["x"]) == side]
        layers += [_texts(own, align, 11, x, y)] if own else []
    chart = alt.layer(*layers).properties(width=640, height=387)
    return chart.configure_view(stroke=None)


def _texts(
    values: Sequence[Mapping[str, object]],
    align: Literal["left", "center", "right"],
    size: int,
    x: object,
    y: object,
) -> Any:  # noqa: ANN401 (Altair's chart)
    marks = alt.Chart(alt.Data(values=list(values))).mark_text(align=align, fontSize=size)
    return marks.encode(x=x, y=y, text="text:N")


def _point(angle: float, radius: float) -> dict[str, float]:
    return {"x": radius * sin(angle), "y": radius * cos(angle), "angle": angle}


def _side(x: object) -> int:
    return 0 if abs(float(str(x))) < 5 else 1 if float(str(x)) > 0 else -1
