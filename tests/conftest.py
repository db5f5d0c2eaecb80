"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the unpacked public data; a test that needs it is skipped where it is absent."""
    named = os.environ.get("SPYHOP_DATA")
    if not named:
        pytest.skip("needs public data: set SPYHOP_DATA to the folder where it is unpacked")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"needs public data: SPYHOP_DATA={named} is no folder")
    return folder
