"""Commands for the environment: check a teacher, look after batches, free disk space."""

import time
from pathlib import Path

from spyhop.cli.folder import existing, output_folder
from spyhop.cli.running import say
from spyhop.models import read_teacher
from spyhop.models.batch_jobs import look, stop
from spyhop.models.doctor import doctor as examine
from spyhop.schema import ModelError
from spyhop.store import Inventory

HOUR_S = 3600.0
UNUSED = {
    "artifact": "unused",
    "partial": "work of a stopped run, which a new run resumes",
    "journal": "replies; deleting them means to pay for them again",
}


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


def batches(store: Path | None = None, fetch: bool = False, cancel: str = "") -> None:
    """List open batches of providers; fetch or cancel them."""
    root = existing(output_folder(store))
    if cancel:
        stop(root, cancel)
        say(f"{cancel}: cancelled; fetch the replies so far with --fetch")
        return
    is_any = False
    for found in look(root, is_fetched=fetch):
        batch, is_any = found.batch, True
        hours = (time.time() - batch.at) / HOUR_S
        state = f"{found.num_fetched:,} replies fetched" if found.num_fetched else found.state
        say(
            f"{batch.tag}  {batch.model}  {batch.done:,} of {batch.num:,} done  {hours:.1f} h  "
            f"at most ${batch.usd:.2f}  {state}"
        )
    if not is_any:
        say(f"{root}: no batch is open")


def clean(
    store: Path | None = None, free: bool = False, partial: bool = False, journals: bool = False
) -> None:
    """List artifacts, their size and users; delete unused ones."""
    inventory = Inventory(existing(output_folder(store)))
    for entry in inventory.entries:
        needed = ", ".join(entry.needed_by[:3]) or UNUSED[entry.kind]
        more = f" and {len(entry.needed_by) - 3} more" if len(entry.needed_by) > 3 else ""
        size = f"{entry.num_bytes / 1e6:9.1f} MB"
        say(f"{size}  {entry.kind:8}  {entry.path.name}  {needed}{more}")
    kinds = ["artifact", *(["partial"] if partial else []), *(["journal"] if journals else [])]
    entries = inventory.free(kinds) if free else inventory.idle(kinds)
    megabytes = f"{sum(entry.num_bytes for entry in entries) / 1e6:.1f} MB"
    say(f"freed {megabytes}" if free else f"{megabytes} can be freed with --free")
