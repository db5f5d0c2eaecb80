"""The tutorial on a real pretrained model: every command of the page, with its few steps."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "real-model.md"


@pytest.fixture(scope="module")
def real_model() -> Path:
    """Folder of SmolLM2-135M-Instruct, as `benchmarks/smollm2.py` makes it."""
    named = os.environ.get("SPYHOP_MODEL")
    if not named:
        pytest.skip("needs a real model: set SPYHOP_MODEL to the folder of SmolLM2-135M-Instruct")
    if not (Path(named) / "config.json").is_file():
        pytest.skip(f"needs a real model: SPYHOP_MODEL={named} holds none")
    return Path(named)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_commands_of_the_tutorial_run(real_model: Path, tmp_path: Path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2-135m").symlink_to(real_model)
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    script = "\n".join([f'spyhop() {{ "{sys.executable}" -m spyhop "$@"; }}', *blocks])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path, capture_output=True, text=True, timeout=1780,
    )  # fmt: skip
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr}"
    losses = [
        json.loads((tmp_path / name / "runs/train/student/metrics.json").read_text())["held_out"]
        for name in ("all", "lora")
    ]
    assert all(found[-1][1] < found[0][1] for found in losses), losses
    assert (tmp_path / "lora" / "model" / "adapter" / "adapter_model.safetensors").is_file()
    assert "note sealed: 6 items can be expected to show no difference" in done.stdout
    assert re.search(r"^confirmatory: metric accuracy", done.stdout, re.MULTILINE)
    reports = [f"{out}/report/report.html" for out in ("scores/runs/eval", "judged/runs/judge")]
    for page in ("difference.html", *reports):
        assert (tmp_path / page).stat().st_size > 10_000, page
