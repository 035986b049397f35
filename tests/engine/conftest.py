"""What the tests of training share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.threads import single_thread


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The last bits depend on the number of threads, and a forked process may have but one. Small steps are faster."""
    with single_thread():
        yield
