"""Members of a zip archive from outside, in memory and within limits; nothing is unpacked to disk.

Zstandard members (inspect's) are read through Arrow: Python's zipfile does not know them.
"""

import struct
import zlib
from pathlib import Path, PurePosixPath
from typing import Self
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import pyarrow as pa

from spyhop.schema import InputError

ZSTD = 93
"""Number of the compression method in the zip format."""
MEMBER_BYTES = 128 << 20
"""Unpacked size up to which a member is read."""
RATIO, FREE_BYTES = 500, 256 << 20
"""An archive may unpack to this multiple of its size, and to `FREE_BYTES` in any case."""
_HEADER = struct.Struct("<26xHH")


class Archive:
    """An open archive whose names and sizes were checked.

    Raises:
        InputError: If it is truncated, or no archive that a log tool writes: absolute paths or
            `..`, members that overlap, sizes beyond the limits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = ZipFile(path)
        except (BadZipFile, OSError, ValueError) as error:
            raise InputError(f"{path}: not a whole zip archive ({error!s:.80})") from None
        self.members = {info.filename: info for info in self._zip.infolist()}
        try:
            self._check()
        except InputError:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """Return the bytes of a member.

        Raises:
            InputError: If it is damaged, too large, or packed by an unknown method.
        """
        info = self.members[name]
        where = f"{self.path}: {name}"
        if info.file_size > MEMBER_BYTES:
            raise InputError(
                f"{where}: unpacks to {info.file_size / 1e6:,.0f} MB; at most "
                f"{MEMBER_BYTES / 1e6:,.0f} MB are read"
            )
        if info.flag_bits & 1 or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED, ZSTD):
            raise InputError(f"{where}: encrypted, or packed by method {info.compress_type}")
        try:
            if info.compress_type == ZSTD:
                return self._zstd(info)
            with self._zip.open(info) as stream:
                return stream.read(info.file_size + 1)
        except (BadZipFile, OSError, EOFError, ValueError, zlib.error, struct.error) as error:
            raise InputError(f"{where}: damaged ({error!s:.80})") from None

    def _zstd(self, info: ZipInfo) -> bytes:
        with self.path.open("rb") as file:
            file.seek(info.header_offset)
            name_bytes, extra_bytes = _HEADER.unpack(file.read(_HEADER.size))
            file.seek(name_bytes + extra_bytes, 1)
            packed = file.read(info.compress_size)
        with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
            found = bytes(stream.read(info.file_size + 1))
        if len(found) != info.file_size or zlib.crc32(found) != info.CRC:
            raise BadZipFile("size or checksum differs")
        return found

    def _check(self) -> None:
        infos = self._zip.infolist()
        size = self.path.stat().st_size
        for info in infos:
            parts = PurePosixPath(info.filename.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
                raise InputError(f"{self.path}: a member with the path {info.filename!r:.80}")
        if sum(info.compress_size for info in infos) > size:
            raise InputError(f"{self.path}: members overlap; no log tool writes such an archive")
        unpacked = sum(info.file_size for info in infos)
        if unpacked > max(FREE_BYTES, RATIO * size):
            raise InputError(
                f"{self.path}: {size / 1e6:,.1f} MB that unpack to {unpacked / 1e6:,.0f} MB; "
                "refused as a zip bomb"
            )
