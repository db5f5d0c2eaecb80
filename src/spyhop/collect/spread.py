"""Work on many units in threads, and take what they make as it comes."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from threading import Event, Lock
from typing import TypeVar

Unit = TypeVar("Unit")
Made = TypeVar("Made")
WAITING = 4
"""Things made and not yet taken, for each thread; then the threads wait."""


def spread(
    units: Iterable[Unit], work: Callable[[Unit], Iterator[Made]], threads: int
) -> Iterator[Made]:
    """Yield what `work` yields for every unit, in no particular order; memory stays flat.

    Raises:
        Exception: The first one that `work` raises.
    """
    due, lock, stopped = iter(units), Lock(), Event()
    made: Queue[tuple[str, Made | BaseException | None]] = Queue(WAITING * threads)

    def take_units() -> None:
        try:
            while not stopped.is_set():
                with lock:
                    unit = next(due, None)
                if unit is None:
                    break
                for each in work(unit):
                    made.put(("made", each))
                    if stopped.is_set():
                        return
        except BaseException as error:  # noqa: BLE001 (raised again below)
            made.put(("error", error))
        finally:
            made.put(("end", None))

    with ThreadPoolExecutor(threads) as pool:
        left = [pool.submit(take_units) for _ in range(threads)]
        num_left = len(left)
        try:
            while num_left:
                kind, value = made.get()
                if kind == "end":
                    num_left -= 1
                elif kind == "error":
                    raise value  # type: ignore[misc]
                else:
                    yield value  # type: ignore[misc]
        finally:
            stopped.set()
            while num_left:  # a thread may wait for room
                num_left -= made.get()[0] == "end"
