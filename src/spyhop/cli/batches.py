"""The command for batches that providers work on."""

import time
from pathlib import Path

from rich.console import Console

from spyhop.cli.folder import existing, output_folder
from spyhop.models.batch_jobs import OpenBatch, look, stop

HOUR_S = 3600.0


def batches(store: Path | None = None, fetch: bool = False, cancel: str = "") -> None:
    """List open batches of providers; fetch or cancel them."""
    root = existing(output_folder(store))
    console = Console(highlight=False, soft_wrap=True)
    if cancel:
        stop(root, cancel)
        console.print(f"{cancel}: cancelled; fetch the replies so far with --fetch", markup=False)
        return
    is_any = False
    for found in look(root, is_fetched=fetch):
        is_any = True
        console.print(_line(found), markup=False)
    if not is_any:
        console.print(f"{root}: no batch is open")


def _line(found: OpenBatch) -> str:
    batch = found.batch
    hours = (time.time() - batch.at) / HOUR_S
    state = f"{found.num_fetched:,} replies fetched" if found.num_fetched else found.state
    return (
        f"{batch.tag}  {batch.model}  {batch.done:,} of {batch.num:,} done  {hours:.1f} h  "
        f"at most ${batch.usd:.2f}  {state}"
    )
