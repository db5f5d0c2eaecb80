"""Weight deltas: publish what training changed of a licensed base, not the base itself.

Orca's authors meant to release their weights as a difference to LLaMA's. Floating subtraction
loses bits, so the difference is taken between the numbers' bit patterns as integers, which gives
every bit back; where training moved a number little, its upper bytes are zero and compress well.

A delta's folder holds `delta.json` (what it takes and what it gives, with checksums), one
`<file>.delta` for each file of weights, `files/` (tokenizer, config and all else, as they are)
and `README.md`. A `.delta` is a sequence of pieces, each a length (four bytes, little-endian) and
that many bytes of zstd: the pieces of each tensor in the order of the file.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from spyhop.schema import InputError
from spyhop.stage import Progress
from spyhop.store import atomic_write
from spyhop.store.artifact import RECORD
from spyhop.train.tensors import (
    PIECE_ITEMS,
    SUFFIX,
    Bits,
    Tensor,
    TensorFile,
    cast,
    digest_file,
    packed,
    parse_header,
    read_header,
    unpacked,
    weight_files,
)

MANIFEST = "delta.json"
CARRIED = "files"
EMBEDDINGS = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings)\.weight$")
"""What an output head without a counterpart is compared with: the base may have tied the two."""
OTHER_WEIGHTS = (".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".pt", ".pth", SUFFIX)

README = """\
# Weight delta to {base}

The difference between a model and its base, {base}; it is no model by itself \
({gigabytes:.2f} GB of weights once it is applied). The base is under its own licence: get it from \
where it is published, then

    spyhop delta apply BASE THIS_FOLDER MODEL

restores the model bit by bit, or reports that BASE is another one. `files/README.md`, where there \
is one, is the model's own card.
"""

Report = Callable[[Progress], None]


def _plain(name: str) -> str:
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError("a file's name leads elsewhere")
    return name


Name = Annotated[str, AfterValidator(_plain)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseTensor(_Part):
    """A tensor of the base that one of the result starts from."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


class TensorDelta(_Part):
    """How a tensor of the result is made: from one of the base, or (None) from nothing."""

    name: str
    base: BaseTensor | None


class FileDelta(_Part):
    """A file of weights of the result."""

    name: Name
    header: str
    sha256: str
    """Of the whole file, as it was and will be again."""
    tensors: tuple[TensorDelta, ...]


class Carried(_Part):
    """A file that is passed on as it is."""

    name: Name
    sha256: str


class Manifest(_Part):
    """What a delta takes and gives."""

    format: Literal["spyhop-delta-1"] = "spyhop-delta-1"
    base: str
    """Name of the base's folder, for people."""
    files: tuple[FileDelta, ...]
    carried: tuple[Carried, ...]


def make_delta(base: Path, model: Path, out: Path, report: Report = lambda _: None) -> Manifest:
    """Write to `out` what `model` has and `base` has not.

    Tensors are compared by name. Where only the first dimension differs (an added token), the rows
    that both have are; another floating type is converted first; what the base lacks is stored.
    Sharding may differ. Memory is that of some pieces of a tensor.

    Raises:
        InputError: If a folder holds no safetensors, the model holds other weights beside them,
            or `out` is there already.
    """
    known = _tensors(base)
    results = [read_header(path) for path in weight_files(model)]
    carried = _carried(model, {file.path for file in results})
    meter = _meter("comparing", results, report)
    files = []
    with _new_folder(out) as folder:
        for file in results:
            name = file.path.name
            with (folder / f"{name}.delta").open("wb") as stream:
                tensors = tuple(_compare(each, known, stream, meter) for each in file.tensors)
            sha256 = digest_file(file.path)
            files.append(FileDelta(name=name, header=file.header, sha256=sha256, tensors=tensors))
        (folder / CARRIED).mkdir()
        for path in carried:
            shutil.copyfile(path, folder / CARRIED / path.name)
        manifest = Manifest(
            base=base.resolve().name,
            files=tuple(files),
            carried=tuple(Carried(name=path.name, sha256=digest_file(path)) for path in carried),
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
        num_bytes = sum(file.path.stat().st_size for file in results)
        text = README.format(base=manifest.base, gigabytes=num_bytes / 1e9)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return manifest


def apply_delta(base: Path, delta: Path, out: Path, report: Report = lambda _: None) -> Manifest:
    """Write to `out` the model that the delta was made of, bit by bit.

    Raises:
        InputError: If this is not the base, the delta is damaged, or `out` is there already;
            nothing is left at `out` then.
    """
    manifest, known = _read(delta), _tensors(base)
    results = [_announced(delta, file, out) for file in manifest.files]
    other_base = f"{base}: not the base that this delta was made for"

    def other_values(name: str) -> InputError:
        return InputError(f"{other_base}: {name} has other values than that of {manifest.base!r}")

    for wanted in (each.base for file in manifest.files for each in file.tensors if each.base):
        found = known.get(wanted.name)
        if found is None or (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
            has = f"it has {found.dtype} {found.shape}" if found else "it has no such tensor"
            raise InputError(
                f"{other_base} ({manifest.base!r}): {wanted.name} should be {wanted.dtype} "
                f"{wanted.shape}, and {has}"
            )
    meter = _meter("restoring", results, report)
    with _new_folder(out) as folder:
        for file, result in zip(manifest.files, results, strict=True):
            source, header = delta / f"{file.name}.delta", file.header.encode()
            total = hashlib.sha256(start := len(header).to_bytes(8, "little") + header)
            with (folder / file.name).open("wb") as stream:
                stream.write(start)
                for data in _restored(source, file, result, known, other_values):
                    total.update(data)
                    stream.write(data)
                    meter(len(data))
            if total.hexdigest() != file.sha256:
                raise _damaged(source)
        for carried in manifest.carried:
            source = delta / CARRIED / carried.name
            if not source.is_file() or digest_file(source) != carried.sha256:
                raise _damaged(source)
            shutil.copyfile(source, folder / carried.name)
    return manifest


def _tensors(base: Path) -> dict[str, Tensor]:
    files = [read_header(path) for path in weight_files(base)]
    return {each.name: each for file in files for each in file.tensors}


def _meter(doing: str, files: list[TensorFile], report: Report) -> Callable[[int], None]:
    """Return a function that takes the bytes of weights that were just done, and reports all."""
    done, total = 0.0, sum(each.num_bytes for file in files for each in file.tensors) / 1e6

    def add(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes / 1e6
        report(Progress(doing, done, total, "MB"))

    return add


def _carried(model: Path, weights: set[Path]) -> list[Path]:
    """Return the files beside the weights; without its subfolders (logs, snapshots)."""
    found = [
        path
        for path in sorted(model.iterdir())
        if path.is_file() and path not in weights and path.name != RECORD and path.name[0] != "."
    ]
    for path in found:
        if path.name.endswith(OTHER_WEIGHTS):
            raise InputError(
                f"{path}: weights that the index does not name would be published as they are; "
                "move that file away"
            )
    return found


def _compare(
    tensor: Tensor, known: dict[str, Tensor], stream: BinaryIO, report: Callable[[int], None]
) -> TensorDelta:
    start, digest = _counterpart(tensor, known), hashlib.sha256()
    before = _predicted(start, tensor, digest)
    for piece, predicted in zip(tensor.pieces(PIECE_ITEMS), before, strict=True):
        data = packed(piece - predicted)
        stream.write(len(data).to_bytes(4, "little") + data)
        report(piece.nbytes)
    if start is None:
        return TensorDelta(name=tensor.name, base=None)
    of = BaseTensor(
        name=start.name, dtype=start.dtype, shape=start.shape, sha256=digest.hexdigest()
    )
    return TensorDelta(name=tensor.name, base=of)


def _counterpart(tensor: Tensor, known: dict[str, Tensor]) -> Tensor | None:
    """Return the base's tensor that this one probably came from."""
    embeddings = [name for name in known if EMBEDDINGS.search(name)]
    found = known.get(tensor.name) or (known[embeddings[0]] if embeddings else None)
    if found is None or found.shape[1:] != tensor.shape[1:] or not tensor.shape:
        return found if found and found.shape == tensor.shape else None
    empty = np.empty(0, np.dtype(f"<u{found.width}"))
    return found if cast(empty, found.dtype, tensor.dtype) is not None else None


def _predicted(start: Tensor | None, tensor: Tensor, digest: "hashlib._Hash") -> Iterator[Bits]:
    """Yield the base's numbers as the result's type, zeros where it has none, in its pieces.

    All of the base is hashed on the way, also rows that the result lacks.
    """
    before = start.pieces(PIECE_ITEMS) if start is not None else iter(())
    left, kind = tensor.num_bytes // tensor.width, np.dtype(f"<u{tensor.width}")
    while left:
        found = np.zeros(min(left, PIECE_ITEMS), kind)
        if start is not None and (piece := next(before, None)) is not None:
            digest.update(piece.data)
            as_result = cast(piece, start.dtype, tensor.dtype)
            assert as_result is not None
            found[: len(as_result)] = as_result[: len(found)]
        left -= len(found)
        yield found
    for piece in before:
        digest.update(piece.data)


def _restored(
    source: Path,
    file: FileDelta,
    result: TensorFile,
    known: dict[str, Tensor],
    other_values: Callable[[str], InputError],
) -> Iterator[bytes]:
    """Yield the tensors of a file of weights."""
    with source.open("rb") as pieces:
        for about, tensor in zip(file.tensors, result.tensors, strict=True):
            digest = hashlib.sha256()
            start = known[about.base.name] if about.base else None
            for predicted in _predicted(start, tensor, digest):
                data = pieces.read(int.from_bytes(pieces.read(4), "little"))
                try:
                    change = unpacked(data, len(predicted), predicted.dtype)
                except (OSError, ValueError):
                    raise _damaged(source) from None
                yield (change + predicted).tobytes()
            if about.base and digest.hexdigest() != about.base.sha256:
                raise other_values(about.base.name)
        if pieces.read(1):
            raise _damaged(source)


def _read(delta: Path) -> Manifest:
    path = delta / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError:
        raise InputError(f"{delta}: not a delta: it holds no {MANIFEST}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: damaged: {where or 'the file'}: {first['msg']}") from None


def _announced(delta: Path, file: FileDelta, out: Path) -> TensorFile:
    try:
        result = parse_header(out / file.name, file.header)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(delta / MANIFEST) from None
    if [each.name for each in result.tensors] != [each.name for each in file.tensors]:
        raise _damaged(delta / MANIFEST)
    if not (delta / f"{file.name}.delta").is_file():
        raise InputError(f"{delta}: {file.name}.delta is missing; fetch the delta again")
    return result


def _damaged(path: Path) -> InputError:
    return InputError(f"{path}: damaged: it does not give what its checksum says; fetch it again")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes `out` when all went well, and is deleted otherwise."""
    out = out.expanduser().absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: it is there already; name another folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(out) as temporary:
            temporary.mkdir()
            yield temporary
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from None
