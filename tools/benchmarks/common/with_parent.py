"""Becomes another program, which is asked to end when the one that started it has ended, killed perhaps.

Run by the benchmarks: `python with_parent.py PARENT COMMAND …`. It is no part of `subprocess.Popen`: code between fork and exec
is not safe where the parent has threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Number of a setting in Linux' `prctl.h`; it outlives exec. Other systems have none such: there the program goes on."""

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(sys.argv[1]):  # it has ended already
            sys.exit(1)
    os.execvp(sys.argv[2], sys.argv[2:])
