"""A comparison in one small file, to keep or to publish: what its figures are made of, without the networks."""

from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import Path

from rpgmt.errors import UserError
from rpgmt.whole_files import whole_file
from tools.benchmarks.sharing.store import GRID

KEPT = (GRID, "config.yaml", *(f"*/{name}" for name in ("config.yaml", "metrics.json", "metrics.csv", "val*.json", "val*.npz")))
"""Files of the folder and of its runs that the report, or a command that goes on, reads."""
SUFFIX = ".tar.xz"


def check_name(file: Path) -> None:
    """Raises UserError where the name does not say what the file will be."""
    if not file.name.endswith(SUFFIX):
        raise UserError(f"`--pack` is {file}: give the name of a file that ends in {SUFFIX}")


def pack(out: Path, file: Path) -> int:
    """Packs a comparison's folder, under its name; the same folder gives the same bytes.

    Args:
        out: the folder.
        file: to write.

    Returns:
        How many bytes it has.

    Raises:
        UserError: it cannot be written.
    """
    paths = sorted({path for pattern in KEPT for path in out.glob(pattern)})
    with whole_file(file) as part, tarfile.open(part, "w:xz") as archive:
        for path in paths:
            data = path.read_bytes()
            member = tarfile.TarInfo(f"{out.resolve().name}/{path.relative_to(out).as_posix()}")
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
    return file.stat().st_size
