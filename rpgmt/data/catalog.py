"""The data sets of people by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from rpgmt.data.coco.people import CocoPeople, find_files
from rpgmt.data.sets.crowdpose import read_crowdpose
from rpgmt.data.sets.lsp import read_lsp
from rpgmt.data.sets.mpii import read_mpii
from rpgmt.errors import UserError
from rpgmt.synthetic import cache

SetName = Literal["coco", "crowdpose", "mpii", "lsp"]


def read_people(name: SetName, root: Path, split: str, **own: Any) -> CocoPeople:
    """The people of a data set's files.

    Args:
        name: of the data set; `coco` is any in COCO's format (`find_files`).
        root: folder of its files.
        split: "train" or "val".
        own: of `coco`: `sigmas`, `flip_pairs` and `skeleton`, where not None, in place of the file's; others have their own.

    Raises:
        UserError: a file is missing or malformed, or a set that has its own sigmas, … is given others.
    """
    own = {key: value for key, value in own.items() if value is not None}
    if name == "coco":
        return CocoPeople.from_files(*find_files(root, split), **own)
    for key, value in own.items():
        raise UserError(f"`{key}` is {value}: {name} has its own; give it for data coco only")
    return {"crowdpose": read_crowdpose, "lsp": read_lsp, "mpii": read_mpii}[name](root, split)


def synthetic_people(root: Path, split: Literal["train", "val"], *, count: int, size: int) -> CocoPeople:
    """The people of images that are drawn here, once, and then kept.

    Args:
        root: folder of the cache.
        split: which images.
        count: how many.
        size: their width and height in pixels.
    """
    scenes = cache.load(root, count=count, size=size, split=split)
    return CocoPeople(scenes.document(), scenes.read_image, name=f"synthetic {split}")


def read_further(entry: str) -> CocoPeople:
    """The training people of a further set, given as NAME=DIR.

    Raises:
        UserError: the entry is malformed, or as `read_people`.
    """
    name, _, root = entry.partition("=")
    if name not in get_args(SetName) or not root:
        raise UserError(f"`also` is {entry!r}: give NAME=DIR with a name of {', '.join(get_args(SetName))}")
    return read_people(name, Path(root), "train")  # type: ignore[arg-type]
