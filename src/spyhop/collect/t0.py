"""T0's prompts (P3): a folder with one JSONL file per template, of prompt and completion."""

from collections.abc import Iterator

from spyhop.collect.reading import Reading
from spyhop.schema import Config, Query
from spyhop.stage import Context, stage, sum_estimates
from spyhop.store import Artifact
from spyhop.store.files import field, json_lines, matching


class T0Config(Config):
    """Which templates are read, and what their fields are called."""

    pattern: str = "*.jsonl"
    query: str = "prompt"
    target: str = "completion"
    end_mark: str = "<|endoftext|>"
    """Cut from the end of every target."""
    licence: str = ""


@stage(version=1, writes=Query, plan=lambda config, folder: sum_estimates([folder]))
def read_t0(ctx: Context, config: T0Config, *, folder: Artifact) -> Iterator[Query]:
    """Read the prompts; task and template are the file's name, as in FLAN-v2's T0 (193 tasks).

    A template whose file holds no line is counted under `empty_files`. Rows without a prompt
    are dropped as `no_query`.
    """
    reading = Reading(ctx, "t0", config.licence)
    for path in matching(folder.path, config.pattern):
        name, is_empty = path.name.split(".")[0], True
        for number, (where, row) in enumerate(json_lines(path), 1):
            is_empty = False
            query = reading.query(
                name,
                field(row, config.query, where).strip(),
                field(row, config.target, where).removesuffix(config.end_mark).strip(),
                f"{path.name}:{number}",
                template=name,
            )
            if query.query:
                yield query
            else:
                ctx.drop(query, "no_query")
        ctx.count("empty_files", int(is_empty))
