"""Files from elsewhere: `hf://` and `s3://` paths, and Hugging Face data sets by name.

Fetched files become one artifact, under the key of address and revision; readers
then take it like any folder. The usual libraries do the work and need the extra `[hub]`.
"""

import re
import shutil
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pydantic import Field, model_validator

from spyhop.lazy import library
from spyhop.schema import Config, InputError
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import PartWriter
from spyhop.store.files import matching

COPY_BYTES = 1 << 22


class FetchConfig(Config):
    """Address and revision of remote files."""

    address: str
    """Address of the data: `hf://datasets/owner/name`, `s3://bucket/folder`, any other that fsspec
    reads, or the name (or folder) of a data set for `datasets.load_dataset`."""
    revision: str = Field(min_length=1)
    """Commit of a data set on the hub. Elsewhere a name of your own for the state of the files:
    change it when they changed, and they are fetched again."""
    pattern: str = "**"
    """Files below the address."""
    subset: str = ""
    """Configuration of a data set by name."""
    split: str = "train"
    """Split of the data set, if it has several."""
    rows: int = Field(0, ge=0)
    """Known number of rows, for plans only."""
    num_bytes: int = Field(0, ge=0)
    """Known number of unpacked bytes, for plans only."""

    @model_validator(mode="after")
    def _is_pinned(self) -> "FetchConfig":
        is_hub = self.address.startswith("hf://") or "://" not in self.address
        is_commit = re.fullmatch("[0-9a-f]{40}", self.revision)
        if is_hub and not is_commit and not Path(self.address).exists():
            raise ValueError(
                f"revision = {self.revision!r} can move; name the commit (40 digits) of the data "
                "set, as its page on the hub shows it"
            )
        return self


@stage(
    version=1,
    writes=FOLDER,
    plan=lambda config: Estimate(rows=config.rows, num_bytes=config.num_bytes),
)
def fetch(ctx: Context, config: FetchConfig) -> None:
    """Copy the files that match, or write the rows of a data set by name as Parquet."""
    (_copy if "://" in config.address else _load)(ctx, config)


def _copy(ctx: Context, config: FetchConfig) -> None:
    address = config.address.rstrip("/")
    if address.startswith("hf://"):
        library("huggingface_hub", address)
        address = f"{address}@{config.revision}"
    if address.startswith("s3://"):
        library("s3fs", address)
    fsspec = library("fsspec", address)
    try:
        files, root = fsspec.core.url_to_fs(address)
        found = sorted(filter(files.isfile, files.glob(f"{root}/{config.pattern}")))
        if not found:
            raise InputError(f"{config.address}: no file matches {config.pattern!r}")
        for name in ctx.track(found, "fetching", total=len(found), unit="files"):
            place = ctx.out / PurePosixPath(name).relative_to(PurePosixPath(root))
            place.parent.mkdir(parents=True, exist_ok=True)
            with files.open(name, "rb") as source, place.open("wb") as target:
                shutil.copyfileobj(source, target, COPY_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"{config.address}: cannot be fetched ({error!s:.200})") from None
    ctx.count("files", len(found))


def _load(ctx: Context, config: FetchConfig) -> None:
    datasets = library("datasets", config.address)
    writer: PartWriter | None = None
    try:
        rows = datasets.load_dataset(
            config.address,
            config.subset or None,
            split=config.split,
            revision=None if Path(config.address).exists() else config.revision,
            streaming=True,
        )
        batches = rows.with_format("arrow").iter(batch_size=4096)
        for table in ctx.track(batches, "fetching", unit="batches"):
            for batch in table.combine_chunks().to_batches():
                writer = writer or PartWriter(ctx.out, batch.schema)
                writer.add_batch(batch)
    except (OSError, ValueError, pa.ArrowException, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"{config.address}: cannot be loaded ({error!s:.200})") from None
    if writer is None:
        raise InputError(f"{config.address}: split {config.split!r} holds no rows")
    writer.close()
    ctx.count("files", len(matching(ctx.out, "*.parquet")))
