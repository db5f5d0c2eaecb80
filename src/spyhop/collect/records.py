"""Any files of rows as queries: a setting for each column says what it is called."""

from collections.abc import Iterator

from spyhop.collect.columns import Columns, compose
from spyhop.collect.reading import Reading, UnusedKeys
from spyhop.schema import Config, Query
from spyhop.stage import Context, stage, sum_estimates
from spyhop.store import Artifact
from spyhop.store.rows import read_rows, row_files


class RecordsConfig(Config):
    """Files of rows, and what they are."""

    collection: str
    pattern: str = "*"
    """Files of the folder. Their ending is their format: .jsonl, .json, .csv, .tsv, .parquet or
    .arrow (a folder that `datasets` saved); text formats also as .gz, .bz2 or .zst."""
    columns: Columns = Columns()
    licence: str = ""
    """Licence of the rows, if no column holds it."""


@stage(version=2, writes=Query, plan=lambda config, folder: sum_estimates([folder]))
def read_records(ctx: Context, config: RecordsConfig, *, folder: Artifact) -> Iterator[Query]:
    """Read the rows of every file; some 10^7 of them, for larger tables see `draw`.

    Rows whose query is empty or null are dropped as `no_query`. Counts: `unused/<key>`, the rows
    with a key that no column names.
    """
    reading = Reading(ctx, config.collection, config.licence)
    keys = config.columns.keys()
    unused = UnusedKeys(ctx, folder.path.name, keys)
    for path in row_files(folder.path, config.pattern):
        unused.add_columns(path)
        for number, (where, row) in enumerate(read_rows(path, keys), 1):
            found = compose(row, config.columns, where)
            unused.add(row)
            query = reading.query(
                found.task or path.name.split(".")[0],
                found.query,
                found.target,
                f"{path.name}:{number}",
                template=found.template,
                licence=found.licence,
                has_options=found.has_options,
            )
            if found.query:
                yield query
            else:
                ctx.drop(query, "no_query")
    unused.report()
