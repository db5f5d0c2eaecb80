"""Charts are drawn in a process of its own, and a page is written without them if that fails."""

import resource
import subprocess
import sys
from typing import Any

import pytest

from spyhop.charts import draw_svg

CHART: dict[str, Any] = {
    "mark": "bar",
    "data": {"values": [{"a": "first", "b": 1}, {"a": "second", "b": 2}]},
    "encoding": {
        "x": {"field": "a", "type": "nominal"},
        "y": {"field": "b", "type": "quantitative"},
    },
}
ASK = f"from spyhop.charts import draw_svg; print(draw_svg({CHART!r}) is None)"


def test_a_chart_is_svg():
    for _ in range(2):  # the process is used again
        svg = draw_svg(CHART)
        assert svg is not None and svg.startswith("<svg") and "second" in svg


def test_a_chart_that_is_none_is_no_svg_and_the_next_one_is_drawn():
    assert draw_svg({"mark": 3}) is None
    assert draw_svg(CHART) is not None


@pytest.mark.parametrize(
    ("limit", "value"), [(resource.RLIMIT_AS, 2 << 30), (resource.RLIMIT_NOFILE, 5)]
)
def test_a_renderer_that_aborts_ends_no_run(limit: int, value: int):
    done = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, timeout=100,
        preexec_fn=lambda: resource.setrlimit(limit, (value, value)),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
