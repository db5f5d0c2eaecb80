"""Commands for the environment: check a teacher, free disk space."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spyhop.cli.folder import existing, output_folder
from spyhop.cli.options import Out
from spyhop.models import read_teacher
from spyhop.models.doctor import doctor as examine
from spyhop.schema import ModelError
from spyhop.store import Entry, Inventory


def doctor(
    teacher: Annotated[Path, typer.Argument(help="Teacher file (TOML), or a model folder.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Send one request and prove no capabilities.")
    ] = False,
    out: Out = None,
) -> None:
    """Check that a teacher is reachable, and prove what it can do.

    About ten small requests are sent to each endpoint; their cost is stated before and after.
    """
    console = Console(highlight=False, soft_wrap=True)
    failed = []
    for check in examine(read_teacher(teacher), output_folder(out), is_quick=quick):
        mark = {True: "ok ", False: "no ", None: "-  "}[check.has] if check.ok else "BAD"
        console.print(f"{mark}  {check.name}: {check.text}", markup=False)
        failed += [] if check.ok else [check.name]
    if failed:
        raise ModelError(f"{teacher}: failed checks: {', '.join(failed)}")


def clean(
    out: Out = None,
    free: Annotated[bool, typer.Option("--free", help="Delete unused artifacts.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="With --free: delete work of stopped runs too.")
    ] = False,
    journals: Annotated[
        bool,
        typer.Option(
            "--journals",
            help="With --free: delete journals of replies too, even paid ones. A running run keeps "
            "its own.",
        ),
    ] = False,
) -> None:
    """List artifacts, their size and users; delete unused ones."""
    inventory = Inventory(existing(output_folder(out)))
    console = Console(highlight=False, soft_wrap=True)
    for entry in inventory.entries:
        console.print(_entry_line(entry), markup=False)
    chosen = {"partial": partial, "journal": journals}
    kinds = ["artifact", *(kind for kind, is_chosen in chosen.items() if is_chosen)]
    if free:
        freed = sum(entry.num_bytes for entry in inventory.free(kinds))
        console.print(f"freed {freed / 1e6:.1f} MB")
    else:
        idle = sum(entry.num_bytes for entry in inventory.idle(kinds))
        console.print(f"{idle / 1e6:.1f} MB can be freed with --free")


def _entry_line(entry: Entry) -> str:
    kept = {
        "artifact": "unused",
        "partial": "work of a stopped run, which a new run resumes",
        "journal": "replies; deleting them means to pay for them again",
    }
    needed = ", ".join(entry.needed_by[:3]) or kept[entry.kind]
    more = f" and {len(entry.needed_by) - 3} more" if len(entry.needed_by) > 3 else ""
    return f"{entry.num_bytes / 1e6:9.1f} MB  {entry.kind:8}  {entry.path.name}  {needed}{more}"
