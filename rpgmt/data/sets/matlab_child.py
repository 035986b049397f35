"""Reads arrays of a MATLAB file and writes them in NumPy's format: `python matlab_child.py FILE KEY…`, by `matlab.read_mat`.

A program that imports nothing of the library, so that it starts soon and whatever the file does to it ends here.
"""

from __future__ import annotations

import contextlib
import io
import resource
import sys
import warnings
from typing import Any

NO_ARRAY, TOO_LARGE = 3, 4
"""Exit statuses; the key is then on standard error."""
MOST_NUMBERS, MOST_BYTES = 10**8, 4 * 2**30
"""Of an array; of memory, which a few compressed bytes may ask for."""


def main(path: str, *keys: str) -> int:
    import numpy as np
    from scipy.io import loadmat

    with contextlib.suppress(ValueError, OSError):  # some systems have no such limit
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    warnings.simplefilter("ignore")
    arrays: dict[str, Any] = loadmat(path)
    for key in keys:
        array = arrays.get(key)
        if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.number) or array.dtype.kind == "c":
            sys.stderr.write(key)
            return NO_ARRAY
        if array.size > MOST_NUMBERS:
            sys.stderr.write(key)
            return TOO_LARGE
    stream = io.BytesIO()  # NumPy would ask a pipe for its position
    for key in keys:
        np.save(stream, np.asarray(arrays[key], dtype=np.float64), allow_pickle=False)
    sys.stdout.buffer.write(stream.getvalue())
    return 0


if __name__ == "__main__":
    try:
        status = main(*sys.argv[1:])
    except Exception:  # of many kinds, SciPy's own and others
        status = 1
    sys.exit(status)
