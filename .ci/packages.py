"""Write the two files about the packages that spyhop installs; run after a change of constraints.

`requirements.lock` has the hash of each file that CI installs (Python 3.11, Linux, x86-64).
`docs/licences.md` lists the licences. Both are made from the environment of this interpreter.

    .venv/bin/python .ci/packages.py
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageMetadata, metadata
from itertools import chain
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK, LICENCES = ROOT / "requirements.lock", ROOT / "docs" / "licences.md"
EXTRAS = ("local", "hub", "lora", "math", "ray", "tensorboard", "text", "trafilatura")
"""Extras for users, of those that CI installs."""
BY_MACHINE = ("spyhop", "torch")
"""Not in the lock: PyTorch's file differs between a CPU and each version of CUDA, and so do the
packages that it needs. `constraints.txt` pins its version."""
HEAD = (
    f"# Written by .ci/packages.py. Without {BY_MACHINE[1]}, whose file depends on the machine.\n"
)
INTRO = """# Licences of the packages that spyhop installs

Written by `.ci/packages.py` from the packages' own metadata. spyhop itself is under Apache-2.0, and
the studio contains a copy of htmx (0BSD). An extra also brings what the core does.

| package | licence | comes with |
|---|---|---|
"""


@cache
def read(name: str) -> PackageMetadata:
    """Return the metadata of an installed package."""
    return metadata(name)


@cache
def brought(extra: str = "") -> frozenset[str]:
    """Return the names of all packages that spyhop brings, alone or with an extra."""
    found, waiting = dict[str, None](), [Requirement(f"spyhop[{extra}]" if extra else "spyhop")]
    while waiting:
        requirement = waiting.pop()
        if str(requirement) not in found:
            found[str(requirement)] = None
            waiting += _needed(requirement)
    return frozenset(canonicalize_name(Requirement(line).name) for line in found)


def _needed(requirement: Requirement) -> Iterator[Requirement]:
    if requirement.name == "spyhop":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        some = [project["optional-dependencies"][extra] for extra in requirement.extras]
        yield from map(Requirement, chain(project["dependencies"], *some))
        return
    extras = [{"extra": extra} for extra in requirement.extras or ("",)]
    for needed in map(Requirement, read(requirement.name).get_all("Requires-Dist", ())):
        if needed.marker is None or any(map(needed.marker.evaluate, extras)):
            yield needed


def licence(name: str) -> str:
    """Return the licence that a package states: an SPDX expression, else its classifiers."""
    package = read(name)
    if stated := package.get("License-Expression"):
        return stated
    kinds = [line for line in package.get_all("Classifier", ()) if line.startswith("License ::")]
    named = sorted({kind.rpartition(" :: ")[2] for kind in kinds} - {"OSI Approved"})
    return ", ".join(named) or (package.get("License") or "not stated").strip().splitlines()[0]


def licences() -> str:
    """Return the page of licences."""
    owners: dict[str, list[str]] = {name: ["core"] for name in brought()}
    for extra in EXTRAS:
        found = brought(extra)
        base = brought("local") if "torch" in found and extra != "local" else brought()
        for name in found - base:
            owners.setdefault(name, []).append(f"[{extra}]")
    del owners["spyhop"]
    rows = (f"| {name} | {licence(name)} | {', '.join(owners[name])} |" for name in sorted(owners))
    return INTRO + "\n".join(rows) + "\n"


def lock(report: Mapping[str, Any]) -> str:
    """Return the lock file, from pip's report about an installation."""
    lines = []
    for each in report["install"]:
        name, version = each["metadata"]["name"], each["metadata"]["version"]
        digest = each["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{canonicalize_name(name)}=={version} --hash=sha256:{digest}\n")
    return HEAD + "".join(sorted(lines))


def main() -> None:
    """Write both files."""
    LICENCES.write_text(licences(), encoding="utf-8")
    names = sorted(brought("dev") - set(BY_MACHINE))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--no-deps", "--report", str(path)]
        pip = [sys.executable, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, *options, *names], check=True)
        LOCK.write_text(lock(json.loads(path.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
