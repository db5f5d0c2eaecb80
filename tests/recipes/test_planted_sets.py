"""Two planted data sets of known order, as in `benchmarks/scale.py`, at its smaller sizes."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "scale.py"


@pytest.mark.slow
def test_slopes_are_in_the_planted_order(tmp_path: Path):
    spec = importlib.util.spec_from_file_location("scale_benchmark", BENCHMARK)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sizes = ((50, 20), (100, 40), (200, 80))
    found = module.measured(tmp_path, 0, sizes, ("clean", "mixed"))
    assert found["clean"] > found["mixed"] > 0
