"""Pages hold everything they need, and a browser draws them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from spyhop.report.html import ReportSection, Table, Turn, render_page


def _page() -> str:
    section = ReportSection("A section", "Its lead.")
    section.table(Table(["name", "value"], [["<b>bold</b>", 3]], "A caption"))
    section.conversation([Turn("user", "<script>alert(1)</script>")], "a note")
    section.add("masked.html", pieces=[("to", False), ("ken", True)], note="one of two")
    return render_page("A title", "A lead", [section])


def test_text_of_rows_is_escaped():
    html = _page()
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "<b>bold</b>" not in html


def test_a_page_fetches_nothing_and_runs_nothing():
    html = _page()
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", html)
    assert "<script" not in html and "@import" not in html and "url(" not in html


def test_targets_are_marked():
    assert '<span class="target">ken</span>' in _page()
    assert "<span>to</span>" in _page()


@pytest.mark.browser
def test_a_browser_draws_the_page(tmp_path: Path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    assert browser, "needs Chromium (Debian: apt-get install chromium)"
    page, shot = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(_page(), encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    subprocess.run(
        [browser, *flags, f"--screenshot={shot}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=90,
    )
    assert shot.stat().st_size > 5_000
    shown = subprocess.run(
        [browser, *flags, "--dump-dom", page.as_uri()],
        check=True,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert "A section" in shown.stdout
