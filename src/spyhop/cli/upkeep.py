"""Commands for the environment: check a teacher, free disk space."""

from pathlib import Path

from spyhop.cli.folder import existing, output_folder
from spyhop.cli.running import say
from spyhop.models import read_teacher
from spyhop.models.doctor import doctor as examine
from spyhop.schema import ModelError
from spyhop.store import Entry, Inventory


def doctor(teacher: Path, quick: bool = False, store: Path | None = None) -> None:
    """Check that a teacher is reachable, and prove what it can do.

    About ten small requests are sent to each endpoint; their cost is stated before and after.
    """
    failed = []
    for check in examine(read_teacher(teacher), output_folder(store), is_quick=quick):
        mark = {True: "ok ", False: "no ", None: "-  "}[check.has] if check.ok else "BAD"
        say(f"{mark}  {check.name}: {check.text}")
        failed += [] if check.ok else [check.name]
    if failed:
        raise ModelError(f"{teacher}: failed checks: {', '.join(failed)}")


def clean(
    store: Path | None = None, free: bool = False, partial: bool = False, journals: bool = False
) -> None:
    """List artifacts, their size and users; delete unused ones."""
    inventory = Inventory(existing(output_folder(store)))
    say(*map(_entry_line, inventory.entries))
    chosen = {"partial": partial, "journal": journals}
    kinds = ["artifact", *(kind for kind, is_chosen in chosen.items() if is_chosen)]
    if free:
        freed = sum(entry.num_bytes for entry in inventory.free(kinds))
        say(f"freed {freed / 1e6:.1f} MB")
    else:
        idle = sum(entry.num_bytes for entry in inventory.idle(kinds))
        say(f"{idle / 1e6:.1f} MB can be freed with --free")


def _entry_line(entry: Entry) -> str:
    kept = {
        "artifact": "unused",
        "partial": "work of a stopped run, which a new run resumes",
        "journal": "replies; deleting them means to pay for them again",
    }
    needed = ", ".join(entry.needed_by[:3]) or kept[entry.kind]
    more = f" and {len(entry.needed_by) - 3} more" if len(entry.needed_by) > 3 else ""
    return f"{entry.num_bytes / 1e6:9.1f} MB  {entry.kind:8}  {entry.path.name}  {needed}{more}"
