"""Arrays of one shape, compressed one by one without loss, in two files: what they are, and where each begins."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_LEVEL = 1
"""zlib's fastest: higher ones take many times as long for a tenth of the size."""


class PackedWriter:
    """Writes arrays one after another; a context, at whose end the file is closed.

    Args:
        path: of the file to write; `path` with `.index.npy` for its end tells where each array begins.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file, self._ends = path, path.open("wb"), [0]

    def add(self, array: NDArray[Any]) -> None:
        """The bytes of all numbers of one significance lie together: those of neighbours are alike."""
        planes = np.ascontiguousarray(array).view(np.uint8).reshape(-1, array.itemsize).T
        packed = zlib.compress(planes.tobytes(), _LEVEL)
        self._file.write(packed)
        self._ends.append(self._ends[-1] + len(packed))

    def finish(self) -> None:
        """Writes where each array begins: only now the file can be read."""
        self._file.flush()
        np.save(_index(self._path), np.array(self._ends))

    def __enter__(self) -> PackedWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class PackedArrays:
    """Arrays that a `PackedWriter` wrote, read one at a time where they lie.

    Args:
        path: of the file.
        shape, dtype: of each array.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._bytes, self._ends = np.memmap(path, np.uint8, "r"), np.load(_index(path))
        self._shape, self._dtype = shape, np.dtype(dtype)

    def __getitem__(self, i: int) -> NDArray[Any]:
        packed = self._bytes[self._ends[i] : self._ends[i + 1]].tobytes()
        planes = np.frombuffer(bytearray(zlib.decompress(packed)), np.uint8)  # of a bytearray, so that it may be changed
        numbers = np.ascontiguousarray(planes.reshape(self._dtype.itemsize, -1).T)
        return numbers.view(self._dtype).reshape(self._shape)


def _index(path: Path) -> Path:
    return path.with_name(path.stem + ".index.npy")
