"""Packed arrays come back to the last bit, in any order."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from rpgmt.synthetic.packed import PackedArrays, PackedWriter


@pytest.mark.parametrize(("dtype", "shape"), [(np.float32, (5, 7, 3)), (np.float32, (4, 4)), (np.uint8, (9, 2))])
def test_arrays_come_back(dtype: type, shape: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(0, 50, shape).astype(dtype) for _ in range(4)]
    arrays[1][...] = 0
    arrays[2] = np.asfortranarray(arrays[2])
    if dtype is np.float32:
        arrays[3].flat[:4] = (np.nan, np.inf, -0.0, 1e-42)
    writer = PackedWriter(tmp_path / "x.packed")
    for array in arrays:
        writer.add(array)
    with writer:
        writer.finish()
    packed = PackedArrays(tmp_path / "x.packed", shape, dtype)
    for i in (2, 0, 3, 1):
        assert packed[i].tobytes() == np.ascontiguousarray(arrays[i]).tobytes()
        assert packed[i].dtype == dtype
        packed[i][...] = 1  # a copy, which the caller may change
    with pytest.raises(IndexError):
        packed[4]
    assert pickle.loads(pickle.dumps(packed[0])).shape == shape


def test_what_is_alike_takes_less(tmp_path: Path) -> None:
    flat = np.tile(np.linspace(1, 2, 64, dtype=np.float32), (64, 1))
    writer = PackedWriter(tmp_path / "x.packed")
    writer.add(flat)
    with writer:
        writer.finish()
    assert (tmp_path / "x.packed").stat().st_size < flat.nbytes / 4
