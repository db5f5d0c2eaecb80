"""Draws of rows that stay nested: a smaller one is part of a larger one, whatever their order."""

import numpy as np
import numpy.typing as npt

from spyhop.store.artifact import Artifact
from spyhop.store.keys import number_of


def nested_draw(rows: Artifact, num_rows: int, seed: int) -> npt.NDArray[np.bool_]:
    """Return which rows are drawn, uniformly: (number of rows,), in their order.

    A row's place in the draw is a hash of (seed, id). Only ids are read; eight bytes a row stay.
    """
    names = (name for batch in rows.batches(["id"]) for name in batch["id"].to_pylist())
    places = np.fromiter((number_of(f"{seed}/{name}") for name in names), dtype=np.uint64)
    if num_rows >= len(places):
        return np.ones(len(places), dtype=np.bool_)
    is_drawn: npt.NDArray[np.bool_] = places <= np.partition(places, num_rows - 1)[num_rows - 1]
    return is_drawn
