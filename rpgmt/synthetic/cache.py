"""Scenes on disk: rendered on first use, then read where they lie."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rpgmt.data.regions import Entry
from rpgmt.synthetic.coco_format import VERSION, PeopleLabels, coco_document
from rpgmt.synthetic.packed import PackedArrays, PackedWriter
from rpgmt.synthetic.parallel import render_many, split_start
from rpgmt.synthetic.render import Scene, render
from rpgmt.whole_files import writing

Split = Literal["train", "val"]

_DENSE: dict[str, tuple[tuple[int, ...], type]] = {
    "people": ((), np.uint8),
    "parts": ((), np.uint8),
    "depth": ((), np.float32),
    "normals": ((3,), np.float32),
}
"""Fields of `Scene` that are packed, in a file each: numbers a pixel, and their type."""


def load(
    root: Path | str,
    *,
    count: int,
    size: int = 96,
    seed: int = 0,
    split: Split = "train",
    dense: bool = False,
    processes: int | None = None,
    progress: bool = True,
) -> SyntheticScenes:
    """The scenes of a split, from the cache ``root/synthetic/…``, which is rendered first where it is missing.

    The cache is written to a folder of another name and renamed at the end: an interrupted run leaves none, and of
    several processes that render the same at once, the first one's is kept. What a killed process left of such a folder is
    removed by the next one that renders.

    Args:
        root: folder of caches.
        count: how many scenes.
        size: width and height in pixels.
        seed: of the scenes.
        split: "train" and "val" have no scene in common.
        dense: store mask, parts, depth and normals too (some 7 bytes a pixel instead of 3), for tasks that read them in
            training. Without it they are rendered again, with the same values, whenever they are asked for.
        processes: as of ``render_many``.
        progress: show a progress bar while rendering.

    Raises:
        ValueError: count, size, seed or split is not possible.
        UserError: the cache cannot be written.
    """
    split_start(split, count)
    render(seed, 0, size)  # raises the errors of seed and size before anything is written
    folder = Path(root) / "synthetic" / f"v{VERSION}-seed{seed}-{size}px-{split}-{count}{'-packed' if dense else ''}"
    if not folder.is_dir():
        _fill(folder, count, size, seed, split, dense, processes, progress)
    return SyntheticScenes(folder, count=count, size=size, seed=seed, split=split, dense=dense)


def _fill(
    folder: Path, count: int, size: int, seed: int, split: Split, dense: bool, processes: int | None, progress: bool
) -> None:
    with writing(folder.parent), _incomplete(folder) as incomplete, ExitStack() as stack:
        # No memory map: where the disk is full, writing to one kills the process.
        images = stack.enter_context((incomplete / "image.npy").open("wb"))
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
        np.lib.format.write_array_header_1_0(images, header)
        maps = {name: stack.enter_context(PackedWriter(_packed(incomplete, name))) for name in (_DENSE if dense else ())}
        labels = PeopleLabels()
        title = f"Rendering synthetic {split}" if progress else None
        scenes = render_many(seed, split_start(split, count), count, size, processes=processes, progress=title)
        for i, scene in enumerate(scenes):
            images.write(scene.image.tobytes())
            for name, packed in maps.items():
                packed.add(getattr(scene, name).astype(_DENSE[name][1], copy=False))
            labels.add(i, scene)
        images.flush()
        for packed in maps.values():
            packed.finish()
        for name, values in labels.arrays().items():
            np.save(incomplete / f"{name}.npy", values)
        try:
            incomplete.rename(folder)
        except OSError:
            if not folder.is_dir():  # not just another process that was faster
                raise


@contextmanager
def _incomplete(folder: Path) -> Iterator[Path]:
    """A new folder beside the cache's, locked as long as this process lives; those that nobody has locked are removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob("incomplete-*"):
        with suppress(OSError), _locked(left):
            shutil.rmtree(left, ignore_errors=True)
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"incomplete-{folder.name}-", dir=folder.parent))
        with ExitStack() as stack:
            try:
                stack.enter_context(_locked(path))
            except (BlockingIOError, FileNotFoundError):  # another process took it for one that was left
                continue
            except OSError:  # some network file systems have no locks
                pass
            if not path.is_dir():
                continue
            try:
                path.chmod(0o755)  # mkdtemp's folders are private
                yield path
            finally:
                shutil.rmtree(path, ignore_errors=True)
            return


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Meanwhile no other process has the lock.

    Raises:
        OSError: one has it, or there are no locks.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when the process ends
        yield
    finally:
        os.close(handle)


class SyntheticScenes:
    """The scenes of a cache folder, read where they lie (images memory-mapped, maps packed); made by ``load``.

    Scenes are numbered from 0. Arrays are copies, which the caller may change; see ``Scene`` for their meaning.
    """

    def __init__(self, folder: Path, *, count: int, size: int, seed: int, split: Split, dense: bool) -> None:
        self.folder, self.count, self.size, self.seed, self.split, self.dense = folder, count, size, seed, split, dense
        self._images = np.load(folder / "image.npy", mmap_mode="r")
        self._maps = {
            name: PackedArrays(_packed(folder, name), (size, size, *channels), dtype)
            for name, (channels, dtype) in (_DENSE if dense else {}).items()
        }
        self._last: tuple[int, Scene] | None = None

    def __len__(self) -> int:
        return self.count

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickled memory map would be the whole array; worker processes open the files themselves.
        options = {"count": self.count, "size": self.size, "seed": self.seed, "split": self.split, "dense": self.dense}
        return _open, (self.folder, options)

    def image(self, i: int) -> NDArray[np.uint8]:
        """uint8 RGB (size, size, 3)."""
        return np.array(self._images[self._number(i)])

    def person_mask(self, i: int) -> NDArray[np.uint8]:
        """uint8 (size, size): 0, or 1 + the place of the visible person among the image's annotations."""
        return self._dense("people", i)

    def parts(self, i: int) -> NDArray[np.uint8]:
        """uint8 (size, size): index into ``rpgmt.synthetic.body.PARTS``."""
        return self._dense("parts", i)

    def depth(self, i: int) -> NDArray[np.float32]:
        """float32 (size, size), metres along the optical axis."""
        return self._dense("depth", i)

    def normals(self, i: int) -> NDArray[np.float32]:
        """float32 (size, size, 3), unit, camera frame."""
        return self._dense("normals", i)

    def read_image(self, entry: Entry, *_: int) -> NDArray[np.uint8]:
        """The image of an entry of the document's ``images``, always whole: less of it would spare no decoding."""
        return self.image(entry["id"])

    def document(self) -> dict[str, Any]:
        """The COCO key-point document of all scenes."""
        names = ("person_image", "keypoints", "boxes", "areas")
        return coco_document({name: np.load(self.folder / f"{name}.npy") for name in names}, self.count, self.size)

    def _number(self, i: int) -> int:
        if not 0 <= i < self.count:
            raise IndexError(f"scene {i} of {self.count}")
        return i

    def _dense(self, name: str, i: int) -> NDArray[Any]:
        if self.dense:
            return self._maps[name][self._number(i)]
        if self._last is None or self._last[0] != self._number(i):
            self._last = i, render(self.seed, split_start(self.split, self.count) + i, self.size)
        return np.array(getattr(self._last[1], name))


def _packed(folder: Path, name: str) -> Path:
    return folder / f"{name}.packed"


def _open(folder: Path, options: dict[str, Any]) -> SyntheticScenes:
    return SyntheticScenes(folder, **options)
