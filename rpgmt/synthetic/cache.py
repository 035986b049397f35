"""People that the project draws itself: rendered on first use, cached on disk, labelled as COCO does."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.synthetic.raycast import Array, Index
from rpgmt.synthetic.render import Scene, render

__all__ = ["Scene", "SyntheticScenes", "load", "render", "render_many", "split_start"]

VERSION = 1
"""Of what is drawn: raise it when the same (seed, index) gives other scenes, so that old caches are not read."""

Split = Literal["train", "val"]
_STARTS = {"train": 0, "val": 1_000_000}
_CHUNK = 16
_DENSE = ("people", "parts", "depth", "normals")


def split_start(split: str, count: int) -> int:
    """Index of the split's first scene: the splits are far-apart ranges of one seed's scenes.

    Raises:
        ValueError: no such split, or so many scenes would reach into the next one.
    """
    if split not in _STARTS:
        raise ValueError(f"`split` is {split!r}: give one of {', '.join(_STARTS)}")
    if not 1 <= count <= _STARTS["val"]:
        raise ValueError(f"`count` is {count}: give 1 to {_STARTS['val']} scenes")
    return _STARTS[split]


def render_many(
    seed: int, start: int, count: int, size: int = 96, *, processes: int | None = None, progress: str | None = None
) -> Iterator[Scene]:
    """Scenes ``start`` … ``start + count - 1`` of ``seed``, in order; the same from any number of processes.

    Args:
        seed, size: as of ``render``.
        start: index of the first scene.
        count: how many.
        processes: how many to use; default: all cores, one for few scenes. More than one start as new interpreters, so
            that a script that calls this needs ``if __name__ == "__main__":``.
        progress: a title shows a progress bar with rate and time left on standard error.
    """
    if processes is None:
        processes = _default_processes(count)
    scenes = _in_order(seed, start, count, size, processes)
    return scenes if progress is None else _with_bar(scenes, count, progress)


def _default_processes(count: int) -> int:
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script and not os.path.exists(script):  # `python < script`: a new interpreter cannot import it
        return 1
    return min(os.cpu_count() or 1, -(-count // (4 * _CHUNK)))


def _in_order(seed: int, start: int, count: int, size: int, processes: int) -> Iterator[Scene]:
    if processes <= 1:
        yield from (render(seed, index, size) for index in range(start, start + count))
        return
    chunks = ((seed, first, min(_CHUNK, start + count - first), size) for first in range(start, start + count, _CHUNK))
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        waiting: deque[Future[list[Scene]]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(_render_chunk, *chunk))
            if len(waiting) > 3 * processes:  # never hold many finished scenes
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a rendering process died: a script that loads synthetic scenes needs `if __name__ == '__main__':` "
            "round its main part, or `processes=1`"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _render_chunk(seed: int, start: int, count: int, size: int) -> list[Scene]:
    return [render(seed, index, size) for index in range(start, start + count)]


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()  # returns when the parent is killed; an idle worker would wait for it for ever
        os._exit(1)


def _with_bar(scenes: Iterator[Scene], count: int, title: str) -> Iterator[Scene]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.0f} images/s")

    rate = Rate(table_column=Column(no_wrap=True))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, Remaining())
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(title, total=count)
        for scene in scenes:
            yield scene
            bar.advance(task)


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
    several processes that render the same at once, the first one's is kept.

    Args:
        root: folder of caches.
        count: how many scenes.
        size: width and height in pixels.
        seed: of the scenes.
        split: "train" and "val" have no scene in common.
        dense: store mask, parts, depth and normals too (18 bytes a pixel instead of 3), for tasks that read them in
            training. Without it they are rendered again, with the same values, whenever they are asked for.
        processes: as of ``render_many``.
        progress: show a progress bar while rendering.

    Raises:
        ValueError: count, size, seed or split is not possible.
    """
    split_start(split, count)
    render(seed, 0, size)  # raises the errors of seed and size before anything is written
    folder = Path(root) / "synthetic" / f"v{VERSION}-seed{seed}-{size}px-{split}-{count}{'-dense' if dense else ''}"
    if not folder.is_dir():
        _fill(folder, count, size, seed, split, dense, processes, progress)
    return SyntheticScenes(folder, count=count, size=size, seed=seed, split=split, dense=dense)


def _fill(
    folder: Path, count: int, size: int, seed: int, split: Split, dense: bool, processes: int | None, progress: bool
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    incomplete = Path(tempfile.mkdtemp(prefix=f"incomplete-{folder.name}-", dir=folder.parent))
    try:
        incomplete.chmod(0o755)  # mkdtemp's folders are private
        pixels = (count, size, size)
        kinds: dict[str, tuple[tuple[int, ...], type]] = {"image": ((*pixels, 3), np.uint8)}
        if dense:
            kinds |= {"people": (pixels, np.uint8), "parts": (pixels, np.uint8)}
            kinds |= {"depth": (pixels, np.float32), "normals": ((*pixels, 3), np.float32)}
        maps = {
            name: np.lib.format.open_memmap(incomplete / f"{name}.npy", mode="w+", shape=shape, dtype=dtype)
            for name, (shape, dtype) in kinds.items()
        }
        labels = Labels()
        title = f"Rendering synthetic {split}" if progress else None
        scenes = render_many(seed, split_start(split, count), count, size, processes=processes, progress=title)
        for i, scene in enumerate(scenes):
            for name, array in maps.items():
                array[i] = getattr(scene, name)
            labels.add(i, scene)
        for array in maps.values():
            array.flush()
        for name, values in labels.arrays().items():
            np.save(incomplete / f"{name}.npy", values)
        try:
            incomplete.rename(folder)
        except OSError:
            if not folder.is_dir():  # not just another process that was faster
                raise
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)


class Labels:
    """Key points, boxes and areas of many scenes' people, collected scene by scene."""

    def __init__(self) -> None:
        self._rows: list[tuple[Index, Array, Index, Index]] = []

    def add(self, image: int, scene: Scene) -> None:
        """Add the people of image number ``image``."""
        self._rows.append((np.full(len(scene.areas), image), scene.keypoints, scene.boxes, scene.areas))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """One row for each person: image number, key points (17, 3), box (4,) and area."""
        names = ("person_image", "keypoints", "boxes", "areas")
        return {name: np.concatenate(rows) for name, rows in zip(names, zip(*self._rows, strict=True), strict=True)}


def coco_document(labels: dict[str, NDArray[Any]], count: int, size: int) -> dict[str, Any]:
    """The COCO key-point document of ``Labels.arrays()`` for ``count`` images; image ids are their numbers.

    Numbers are Python's, and a JSON file gives back exactly these. Edges of the skeleton count from one, as COCO's.
    """
    people = zip(*(labels[name].tolist() for name in ("person_image", "keypoints", "boxes", "areas")), strict=True)
    annotations = []
    for i, (image, keypoints, box, area) in enumerate(people, 1):
        flat = [number for x, y, v in keypoints for number in (x, y, int(v))]
        annotations.append(
            {
                "id": i,
                "image_id": image,
                "category_id": 1,
                "bbox": [float(number) for number in box],
                "area": float(area),
                "iscrowd": 0,
                "keypoints": flat,
                "num_keypoints": sum(v > 0 for v in flat[2::3]),
            }
        )
    return {
        "info": {"description": "People drawn by rpgmt", "version": str(VERSION)},
        "images": [{"id": i, "file_name": f"{i:06d}.png", "width": size, "height": size} for i in range(count)],
        "annotations": annotations,
        "categories": [
            {
                "id": 1,
                "name": "person",
                "supercategory": "person",
                "keypoints": list(COCO_KEYPOINTS.names),
                "skeleton": [[a + 1, b + 1] for a, b in COCO_KEYPOINTS.skeleton],
            }
        ],
    }


class SyntheticScenes:
    """The scenes of a cache folder, read where they lie (memory-mapped); made by ``load``.

    Scenes are numbered from 0. Arrays are copies, which the caller may change; see ``Scene`` for their meaning.
    """

    def __init__(self, folder: Path, *, count: int, size: int, seed: int, split: Split, dense: bool) -> None:
        self.folder, self.count, self.size, self.seed, self.split, self.dense = folder, count, size, seed, split, dense
        self._maps = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("image", *(_DENSE if dense else ()))}
        self._last: tuple[int, Scene] | None = None

    def __len__(self) -> int:
        return self.count

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickled memory map would be the whole array; worker processes open the files themselves.
        options = {"count": self.count, "size": self.size, "seed": self.seed, "split": self.split, "dense": self.dense}
        return _open, (self.folder, options)

    def image(self, i: int) -> NDArray[np.uint8]:
        """uint8 RGB (size, size, 3)."""
        return np.array(self._maps["image"][self._number(i)])

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

    def read_image(self, entry: dict[str, Any], *_: int) -> NDArray[np.uint8]:
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
            return np.array(self._maps[name][self._number(i)])
        if self._last is None or self._last[0] != self._number(i):
            self._last = i, render(self.seed, split_start(self.split, self.count) + i, self.size)
        return np.array(getattr(self._last[1], name))


def _open(folder: Path, options: dict[str, Any]) -> SyntheticScenes:
    return SyntheticScenes(folder, **options)
