"""Tensors in safetensors files as plain bits: where each begins, and pieces of it.

No tensor is ever read whole, and no value is ever computed with, so that bits stay what they are.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spyhop.schema import InputError

SUFFIX = ".safetensors"
INDEX = "model.safetensors.index.json"
WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4}
WIDTHS |= {"F16": 2, "BF16": 2, "I16": 2, "U16": 2}
"""Bytes of a number; every other kind is taken byte by byte."""
PIECE_ITEMS = 1 << 22
"""Numbers of a piece: memory is some tens of megabytes, whatever the model's size."""
MAX_HEADER = 100_000_000
"""Largest header that the format allows, in bytes."""

Bits = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    """In the file, in bytes."""
    num_bytes: int

    @property
    def width(self) -> int:
        """Bytes of one number."""
        return WIDTHS.get(self.dtype, 1)

    def pieces(self, num_items: int) -> Iterator[Bits]:
        """Yield the numbers' bits in order, up to `num_items` at a time."""
        kind = np.dtype(f"<u{self.width}")
        left = self.num_bytes
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            while left:
                data = stream.read(min(left, num_items * self.width))
                if not data or len(data) % self.width:
                    raise InputError(f"{self.file}: damaged: it ends within {self.name}")
                left -= len(data)
                yield np.frombuffer(data, kind)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A safetensors file: its header, and its tensors in the order of their bytes."""

    path: Path
    header: str
    tensors: tuple[Tensor, ...]


def weight_files(folder: Path) -> list[Path]:
    """Return a model's safetensors files: those its index names, or the ones that are there."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InputError(f"{index}: not an index of weights") from None
        found = [folder / name for name in names]
    else:
        one = folder / f"model{SUFFIX}"
        found = [one] if one.is_file() else sorted(folder.glob(f"*{SUFFIX}"))
    if missing := [path.name for path in found if not path.is_file()]:
        raise InputError(f"{folder}: {missing[0]} is missing; its index names it")
    if not found:
        raise InputError(
            f"{folder}: no *{SUFFIX} in it; load the model once with transformers and "
            "save_pretrained() it"
        )
    return found


def read_header(path: Path) -> TensorFile:
    """Read which tensors a file holds."""
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            text = stream.read(min(size, MAX_HEADER)).decode()
        found = parse_header(path, text)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a safetensors file ({error!s:.80})") from None
    end = max((each.start + each.num_bytes for each in found.tensors), default=8 + size)
    if end != path.stat().st_size:
        raise InputError(f"{path}: damaged: {path.stat().st_size} bytes, and {end} are announced")
    return found


def parse_header(path: Path, text: str) -> TensorFile:
    """Return the tensors that a header announces."""
    begin = 8 + len(text.encode())
    tensors = []
    for name, about in json.loads(text).items():
        if name != "__metadata__":
            (first, last), shape = about["data_offsets"], tuple(map(int, about["shape"]))
            kind = str(about["dtype"])
            tensors.append(Tensor(name, kind, shape, path, begin + first, last - first))
    tensors.sort(key=lambda each: (each.start, each.num_bytes))
    for each in tensors:
        if each.start != begin or each.num_bytes < 0 or each.num_bytes % each.width:
            raise ValueError(f"{each.name} does not begin where the one before it ends")
        begin += each.num_bytes
    return TensorFile(path, text, tuple(tensors))


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cast(bits: Bits, old: str, new: str) -> Bits | None:
    """Return numbers of one floating type as those of another; None where that is not known.

    The same on every machine: half precision is widened exactly, single is rounded to even.
    """
    if old == new:
        return bits
    if old == "F32":
        wide = bits
    elif old == "F16":
        wide = bits.view("<f2").astype("<f4").view("<u4")
    elif old == "BF16":
        wide = np.left_shift(bits.astype(np.uint32), 16)
    else:
        return None
    if new == "F16":
        with np.errstate(over="ignore", invalid="ignore"):
            return wide.view("<f4").astype("<f2").view("<u2")
    if new == "BF16":
        return ((wide + (wide >> 16 & 1) + np.uint32(0x7FFF)) >> 16).astype("<u2")
    return wide if new == "F32" else None


def packed(difference: Bits) -> bytes:
    """Compress small differences of either sign: zigzag, then all first bytes, all second, ..."""
    bits = 8 * difference.itemsize
    signed = difference.view(f"<i{difference.itemsize}")
    folded = (signed << 1) ^ (signed >> (bits - 1))
    planes = folded.view(np.uint8).reshape(-1, difference.itemsize).T
    return bytes(pa.Codec("zstd").compress(planes.tobytes(), asbytes=True))


def unpacked(data: bytes, num_items: int, dtype: Any) -> Bits:  # noqa: ANN401 (numpy's)
    """Undo `packed`."""
    kind = np.dtype(dtype)
    plain = pa.Codec("zstd").decompress(data, num_items * kind.itemsize, asbytes=True)
    planes = np.frombuffer(plain, np.uint8).reshape(kind.itemsize, num_items)
    folded = np.ascontiguousarray(planes.T).view(kind).reshape(-1)
    result: Bits = (folded >> 1) ^ (~(folded & 1) + kind.type(1))
    return result
