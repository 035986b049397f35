"""MATLAB files, in which MPII and Leeds Sports Pose keep their joints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rpgmt.errors import UserError


def read_mat(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of a MATLAB file.

    Raises:
        UserError: it is not a MATLAB file that SciPy reads, or lacks one of the arrays.
    """
    from scipy.io import loadmat

    try:
        arrays = loadmat(str(path))
    except Exception as error:  # of many kinds, SciPy's own and others
        raise UserError(f"{path}: not a MATLAB file of a version up to 7.2: give the data set's own") from error
    for key in keys:
        if key not in arrays or not np.issubdtype(arrays[key].dtype, np.number):
            raise UserError(f"{path}: it has no array of numbers `{key}`: give the data set's own file")
    return {key: np.asarray(arrays[key], dtype=np.float64) for key in keys}
