"""MATLAB files, in which MPII and Leeds Sports Pose keep their joints.

SciPy's reader follows the lengths that a file states into memory that is not its own: of 1,500 files with one byte changed, 40
ended the process. So it runs in a process of its own (`matlab_child`), half a second, and plain arrays come back.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rpgmt.data.sets import matlab_child
from rpgmt.errors import UserError

MOST_SECONDS = 120
_ADVICE = "give the data set's own file"


def read_mat(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of a MATLAB file, float64.

    Raises:
        UserError: it is not a MATLAB file that SciPy reads, or lacks one of the arrays.
    """
    command = [sys.executable, "-I", matlab_child.__file__, str(path.absolute()), *keys]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # more would only reserve memory
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=os.environ | one_thread, timeout=MOST_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{path}: reading it takes more than {MOST_SECONDS} seconds: {_ADVICE}") from None
    if done.returncode < 0:
        how = signal.Signals(-done.returncode).name
        raise UserError(f"{path}: a damaged MATLAB file, which ends SciPy's reader ({how}): {_ADVICE}")
    if done.returncode == matlab_child.NO_ARRAY:
        raise UserError(f"{path}: it has no array of numbers `{done.stderr.decode()}`: {_ADVICE}")
    if done.returncode == matlab_child.TOO_LARGE:
        raise UserError(f"{path}: `{done.stderr.decode()}` is larger than any such data set's: {_ADVICE}")
    if done.returncode:
        raise UserError(f"{path}: not a MATLAB file of a version up to 7.2: {_ADVICE}")
    stream = io.BytesIO(done.stdout)
    return {key: np.load(stream, allow_pickle=False) for key in keys}
