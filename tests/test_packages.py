"""The lock file and the page of licences are those of the packages that are installed."""

import re
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
_SPEC = spec_from_file_location("packages", ROOT / ".ci" / "packages.py")
packages = module_from_spec(_SPEC)
_SPEC.loader.exec_module(packages)


def _pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==(\S+)", text, re.M)
    return {canonicalize_name(name): pin for name, pin in found}


def test_the_lock_has_a_hash_of_everything_that_ci_installs():
    text = packages.LOCK.read_text()
    locked, pinned = _pins(text), _pins((ROOT / "constraints.txt").read_text())
    assert set(locked) == packages.brought("dev") - set(packages.BY_MACHINE)
    assert {name: pinned.get(name) for name in locked} == locked
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    assert pinned["torch"] == version("torch").partition("+")[0]


def test_the_page_of_licences_is_current():
    page = packages.LICENCES.read_text()
    assert page == packages.licences(), "run .ci/packages.py"
    assert "not stated" not in page


def test_the_core_brings_no_framework():
    core, local = packages.brought(), packages.brought("local")
    heavy = {"torch", "transformers", "tokenizers", "safetensors", "sentencepiece", "sympy"}
    assert not heavy & core and heavy < local
    assert not {"huggingface-hub", "pandas", "ray"} & core
