"""Members of a zip archive from outside, in memory and within limits; nothing is unpacked to disk.

Zstandard members (inspect's) are read through Arrow: Python's zipfile does not know them.
"""

import struct
import zlib
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import pyarrow as pa

from spyhop.schema import InputError

ZSTD = 93
"""Number of the compression method in the zip format."""
MEMBER_BYTES = 128 << 20
"""Unpacked size up to which a member is read."""
RATIO, FREE_BYTES = 500, 256 << 20
"""An archive may unpack to this multiple of its size, and to `FREE_BYTES` in any case."""


def members(path: Path) -> dict[str, ZipInfo]:
    """Return the members of an archive by name.

    Raises:
        InputError: If it is truncated, or no archive that a log tool writes: absolute paths or
            `..`, members that overlap, sizes beyond the limits.
    """
    try:
        with ZipFile(path) as archive:
            infos = archive.infolist()
    except (BadZipFile, OSError, ValueError, struct.error) as error:
        raise InputError(f"{path}: not a whole zip archive ({error!s:.80})") from None
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in info.filename.partition("/")[0]:
            raise InputError(f"{path}: a member with the path {info.filename!r:.80}")
    size, unpacked = path.stat().st_size, sum(info.file_size for info in infos)
    if sum(info.compress_size for info in infos) > size:
        raise InputError(f"{path}: members overlap; no log tool writes such an archive")
    if unpacked > max(FREE_BYTES, RATIO * size):
        raise InputError(
            f"{path}: {size / 1e6:,.1f} MB that unpack to {unpacked / 1e6:,.0f} MB; refused as a "
            "zip bomb"
        )
    return {info.filename: info for info in infos}


def read_member(path: Path, info: ZipInfo) -> bytes:
    """Return the bytes of a member."""
    where = f"{path}: {info.filename}"
    if info.file_size > MEMBER_BYTES:
        sizes = f"{info.file_size / 1e6:,.0f} MB; at most {MEMBER_BYTES / 1e6:,.0f} MB are read"
        raise InputError(f"{where}: unpacks to {sizes}")
    if info.flag_bits & 1 or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED, ZSTD):
        raise InputError(f"{where}: encrypted, or packed by method {info.compress_type}")
    try:
        with path.open("rb") as file:
            file.seek(info.header_offset + 26)
            file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
            packed = file.read(info.compress_size)
        if info.compress_type == ZSTD:
            with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
                packed = bytes(stream.read(info.file_size + 1))
        elif info.compress_type == ZIP_DEFLATED:
            packed = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, info.file_size + 1)
    except (OSError, zlib.error, struct.error) as error:
        raise InputError(f"{where}: damaged ({error!s:.80})") from None
    if len(packed) != info.file_size or zlib.crc32(packed) != info.CRC:
        raise InputError(f"{where}: damaged (its size or checksum differs)")
    return packed
