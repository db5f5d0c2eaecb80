"""What readers of collections share: rows with stable ids, licence and origin, and their counts."""

from collections import Counter

from spyhop.schema import Query
from spyhop.stage import Context
from spyhop.store import row_id
from spyhop.text.options import has_options, named


class Reading:
    """Turns texts of one collection into queries.

    A row's id depends on its text alone, so that adding rows changes no other row. The n-th
    repetition of a row within its task has n counted in; tasks come one after the other.
    """

    def __init__(self, ctx: Context, collection: str, licence: str = "") -> None:
        self._ctx, self._collection, self._licence = ctx, collection, licence
        self._task = ""
        self._seen = Counter[str]()

    def query(
        self,
        task: str,
        query: str,
        target: str,
        origin: str,
        *,
        template: str = "",
        licence: str = "",
    ) -> Query:
        """Return the row and count it."""
        if task != self._task:
            self._task = task
            self._seen.clear()
        base = row_id(self._collection, task, query, target)
        self._seen[base] += 1
        told = named(template)
        is_multiple_choice = has_options(query) if told is None else told
        self._ctx.count(f"task/{self._collection}/{task}")
        if is_multiple_choice:
            self._ctx.count(f"multiple_choice/{'text' if told is None else 'template'}")
        return Query(
            id=base if self._seen[base] == 1 else row_id(base, str(self._seen[base])),
            collection=self._collection,
            task=task,
            query=query,
            target=target,
            multiple_choice=is_multiple_choice,
            origin=origin,
            template=template,
            licence=licence or self._licence,
        )
