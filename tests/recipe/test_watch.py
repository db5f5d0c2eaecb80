"""What a person sees while a recipe runs."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from spyhop.recipe.watch import Display
from spyhop.stage import Progress

NODE = SimpleNamespace(name="answers")
NOTE = (
    "5.6/s, $12.34 of about $150.00, lost 3, overloaded 12, throttled 7, "
    "requests 14%, tokens 99%, 16 of 64 in flight"
)


def _shown(width: int, progress: Progress, *, is_terminal: bool = True) -> list[str]:
    """The lines that a run draws or prints, without colours."""
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=is_terminal, width=width, highlight=False, soft_wrap=True
    )
    with Display(console) as display:
        display.started(NODE)  # type: ignore[arg-type]
        display.moved(NODE, progress)  # type: ignore[arg-type]
        display._bars.refresh()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).replace("\r", "\n").split("\n")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_nothing_of_a_note_is_cut(width):
    lines = _shown(width, Progress("asking gpt-4o", 43, 300, "rows", note=NOTE))
    assert max(len(line) for line in lines) <= width
    assert NOTE in " ".join(" ".join(lines).split())
    if width >= 80:
        assert any("answers" in line and "43/300 rows" in line for line in lines)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_lasts_is_printed_wherever_the_output_goes(is_terminal):
    said = "another run is making it; waiting for that one"
    progress = Progress(said, 0, None, "", is_lasting=True)
    assert f"note answers: {said}" in _shown(80, progress, is_terminal=is_terminal)
