"""Shared fixtures of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that want it are skipped where it is missing."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is missing")
    return folder


@pytest.fixture(scope="session")
def shared_fixtures() -> Path:
    """The folder of published numbers beside the checkout; tests that want it are skipped where it is missing."""
    folder = SHARED / "fixtures"
    if not folder.is_dir():
        pytest.skip(f"no published numbers: {folder} is missing")
    return folder
