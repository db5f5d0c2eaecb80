"""Keys, sources, artifacts, partial work and locks: how results are named, kept and found again."""

from spyhop.store.artifact import (
    Artifact,
    Artifacts,
    InputRecord,
    Record,
    find,
    nested_draw,
    rows_of,
)
from spyhop.store.atomic import atomic_write
from spyhop.store.inventory import RUNS, Entry, Inventory, forget, point, pointed, strays
from spyhop.store.keys import canonical, key_of, number_of, row_id
from spyhop.store.parts import PartWriter, arrow_schema
from spyhop.store.source import Source
from spyhop.store.work import Work, claim, remove_parts
