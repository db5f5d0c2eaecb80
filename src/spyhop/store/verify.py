"""Content that is read back is the content that was written, or one clear line.

Whole files are compared with their XXH3 digest (128 bits, several gigabytes a second); identity
rests on SHA-256 instead (`artifact.digests`). JSON documents end with a digest of their own text.
"""

from pathlib import Path

import xxhash

_SEAL = b',\n "checksum": "'


def file_digest(path: Path) -> str:
    """Return the XXH3 digest of a file's content, as 32 hexadecimal digits."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sealed(document: str) -> bytes:
    """Return a JSON object that is not empty, with the digest of its text as last entry."""
    body = document.encode().rstrip().removesuffix(b"}").rstrip()
    return body + _SEAL + _digest(body) + b'"\n}\n'


def unsealed(raw: bytes) -> bytes:
    """Return a document without its digest; one that was never sealed is returned as it is."""
    body, seal, rest = raw.rpartition(_SEAL)
    if not seal:
        return raw
    if rest != _digest(body) + b'"\n}\n':
        raise ValueError("its checksum does not match its text")
    return body + b"\n}"


def _digest(body: bytes) -> bytes:
    return xxhash.xxh3_64_hexdigest(body).encode()
