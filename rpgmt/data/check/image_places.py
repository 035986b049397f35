"""Checks of where the images of a document lie: the rules are those of `rpgmt.data.coco.data_root`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rpgmt.data.check.findings import Findings
from rpgmt.data.coco.data_root import image_folders
from rpgmt.data.file_names import file_inside
from rpgmt.errors import UserError

_ELSEWHERE = "images that lie elsewhere"


def find_folder(root: Path, split: str, files: Sequence[str], path: Path, findings: Findings) -> Path | None:
    """As training: the first folder that has the first image or, with that one missing, another.

    Args:
        root, split: of the data.
        files: names of the images.
        path: of the document that names them.
        findings: is told where there is none.
    """
    folders = [root / place for place in image_folders(split)]
    holding = (place for some in (files[:1], files) for place in folders if any(_is_in(place, name) for name in some))
    if (folder := next(holding, None)) is not None:
        return folder
    elsewhere = [error for name in files if (error := _leads_out(folders, name, path))]
    for error in elsewhere:
        findings.refuse(_ELSEWHERE, error)
    if not elsewhere:
        looked = ", ".join(image_folders(split))
        findings.refuse("splits without images", f"{path}: {files[0]} and the others, looked in {looked}")
    return None


def is_there(folder: Path, file_name: str, path: Path, findings: Findings) -> bool:
    """Whether an image that the document `path` names is a file in its folder; the findings are told where it is not."""
    try:
        file = file_inside(folder, file_name, str(path))
    except UserError as error:
        findings.refuse(_ELSEWHERE, str(error))
        return False
    if not os.path.isfile(file):
        findings.refuse("images that are missing", str(file))
        return False
    return True


def _is_in(folder: Path, name: str) -> bool:
    try:
        return os.path.isfile(file_inside(folder, name, name))
    except UserError:
        return False


def _leads_out(folders: Sequence[Path], name: str, path: Path) -> str | None:
    """Why an image is not read from the first folder where its name leads elsewhere; None where it leads nowhere else."""
    for folder in folders:
        try:
            file_inside(folder, name, str(path))
        except UserError as error:
            return str(error)
    return None
