"""The parts of a corpus on a Ray cluster: the same function, in the same killable processes."""

import logging
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from spyhop.corpus.pool import Pool
from spyhop.corpus.read import Part
from spyhop.corpus.work import SegmentConfig
from spyhop.corpus.worker import is_done
from spyhop.schema import InputError
from spyhop.store import atomic_write

MAX_RETRIES = 3
"""Times that Ray may start a part again whose node or worker died."""
CONNECT_S = 5.0
CONNECT_ATTEMPTS = 3
AHEAD = 2
"""Parts handed out for each processor of the cluster; more would only wait there."""


def run_on_ray(
    parts: Sequence[Part],
    config: SegmentConfig,
    folder: Path,
    address: str,
    tell: Callable[[int, Counter[str]], None],
) -> Iterator[int]:
    """Yield the number of each part as it is finished, in any order; results come to `folder`.

    The inputs must lie under the same paths on every node. `ray://host:port` goes through a Ray
    client server, `ray:host:port` straight to a cluster that this machine is part of.
    """
    try:
        import ray
    except ImportError:
        raise InputError(f"--on {address} needs Ray: pip install 'spyhop[ray]'") from None
    try:
        _connect(address)
        task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(part_on_node)
        waiting = [number for number in range(len(parts)) if not is_done(folder, number)]
        room = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and len(running) < room:
                number = waiting.pop(0)
                running[task.remote(parts[number], config, number)] = number
            done, _ = ray.wait(list(running), num_returns=1)
            files, tally = ray.get(done[0])
            number = running.pop(done[0])
            for name, data in sorted(files.items()):  # the mark of a finished part sorts last
                with atomic_write(folder / name) as temporary:
                    temporary.write_bytes(data)
            tell(number, tally)
            yield number
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    """Join the cluster; a busy one that does not start a server for us in time is asked again."""
    import ray
    import ray.util

    host, _, port = address.removeprefix("ray:").removeprefix("//").rpartition(":")
    try:  # Ray itself would wait for minutes
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise InputError(f"--on {address}: no cluster there ({error})") from None
    plain = address if address.startswith("ray://") else address.removeprefix("ray:")
    for attempt in range(1, CONNECT_ATTEMPTS + 1):
        try:
            ray.init(address=plain, log_to_driver=False, logging_level=logging.ERROR)
            return
        except (ConnectionError, RuntimeError) as error:
            ray.util.disconnect()  # a half-made connection would answer for the next one
            if attempt == CONNECT_ATTEMPTS:
                reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
                text = f"--on {address}: the cluster did not let us in ({reason})"
                raise InputError(text) from None


def part_on_node(
    part: Part, config: SegmentConfig, number: int
) -> tuple[dict[str, bytes], Counter[str]]:
    """Return the files of one part, made by a killable process on this node."""
    folder = Path(tempfile.mkdtemp(prefix="spyhop-part-"))
    total: Counter[str] = Counter()
    try:
        pool = Pool([part], config, folder, 1, lambda _, tally: total.update(tally))
        list(pool.run())
        found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        return {f"{number:06d}{name[6:]}": data for name, data in found.items()}, total
    finally:
        shutil.rmtree(folder, ignore_errors=True)
