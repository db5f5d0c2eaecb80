"""Keep freed memory in the process while a model trains on a processor.

Each step frees and requests the same gigabytes. By default glibc returns large blocks to the
kernel, which then has to clear their pages again: about a tenth of a step's time.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Options of glibc's `mallopt`; other libraries have no such function."""
PAD_BYTES = 64 << 20


@contextmanager
def kept_memory() -> Iterator[None]:
    """Allocate from one heap that only grows; return its free pages at the end."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, PAD_BYTES)):
        library.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in (
            (MMAP_MAX, 65_536),
            (TRIM_THRESHOLD, 128 << 10),
            (TOP_PAD, 128 << 10),
        ):
            library.mallopt(option, value)
        library.malloc_trim(0)
