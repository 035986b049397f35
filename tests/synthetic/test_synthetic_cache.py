from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import shutil
import signal
import time
from multiprocessing.context import ForkProcess
from pathlib import Path

import numpy as np
import pytest
from helpers.full_disk import no_file_larger_than

from rpgmt.errors import UserError
from rpgmt.synthetic import cache
from rpgmt.synthetic.cache import load
from rpgmt.synthetic.parallel import render_many, split_start
from rpgmt.synthetic.render import render


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_cache_is_the_same_from_any_number_of_processes_and_is_read_again(tmp_path: Path) -> None:
    one = load(tmp_path / "one", count=20, size=32, processes=1, progress=False)
    two = load(tmp_path / "two", count=20, size=32, processes=2, progress=False)
    assert contents(one.folder) == contents(two.folder)
    assert one.folder == tmp_path / "one/synthetic/v1-seed0-32px-train-20"
    before = {path: path.stat().st_mtime_ns for path in one.folder.iterdir()}
    again = load(tmp_path / "one", count=20, size=32, progress=False)
    assert before == {path: path.stat().st_mtime_ns for path in again.folder.iterdir()}


def test_dense_maps_are_the_same_stored_or_rendered_again(tmp_path: Path) -> None:
    stored = load(tmp_path, count=6, size=48, seed=3, split="val", dense=True, progress=False)
    light = load(tmp_path, count=6, size=48, seed=3, split="val", progress=False)
    assert {path.name for path in light.folder.iterdir()}.isdisjoint({"depth.packed", "normals.packed"})
    start = split_start("val", 6)
    for i in range(6):
        scene = render(3, start + i, 48)
        for data in (stored, light, pickle.loads(pickle.dumps(stored))):
            np.testing.assert_array_equal(data.image(i), scene.image)
            np.testing.assert_array_equal(data.depth(i), scene.depth)
            np.testing.assert_array_equal(data.normals(i), scene.normals)
            np.testing.assert_array_equal(data.person_mask(i), scene.people)
            np.testing.assert_array_equal(data.parts(i), scene.parts)
    assert len(pickle.dumps(stored)) < 1000  # the folder's name, not its contents
    light.depth(0)[:] = 0  # a copy
    assert light.depth(0).min() > 0
    with pytest.raises(IndexError):
        light.image(6)


def test_splits_share_no_scene(tmp_path: Path) -> None:
    train, val = (load(tmp_path, count=10, size=32, split=split, progress=False) for split in ("train", "val"))
    assert not {train.image(i).tobytes() for i in range(10)} & {val.image(i).tobytes() for i in range(10)}


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args, **kwargs):
        for i, scene in enumerate(render_many(*args, **kwargs)):
            if i == 3:
                raise KeyboardInterrupt
            yield scene

    with monkeypatch.context() as patch:
        patch.setattr(cache, "render_many", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(tmp_path, count=8, size=32, progress=False)
    assert list((tmp_path / "synthetic").iterdir()) == []
    assert len(load(tmp_path, count=8, size=32, progress=False).document()["images"]) == 8


def drawing(root: Path, split: str, count: int) -> tuple[ForkProcess, Path]:
    """A process that draws a cache, and the folder in which it has begun."""

    def draw() -> None:
        load(root, count=count, size=32, split=split, dense=True, processes=1, progress=False)  # type: ignore[arg-type]
        os._exit(0)

    known = set(root.glob("synthetic/incomplete-*/image.npy"))
    process = multiprocessing.get_context("fork").Process(target=draw)
    process.start()
    while process.is_alive() and not (begun := set(root.glob("synthetic/incomplete-*/image.npy")) - known):
        time.sleep(0.001)
    return process, begun.pop().parent


def killed_while_drawn(root: Path, kills: int, count: int) -> None:
    chance = random.Random(3)
    for _ in range(kills):
        process, folder = drawing(root, "train", count)
        assert len(list(root.glob("synthetic/incomplete-*"))) == 1  # what was left is gone
        time.sleep(chance.uniform(0, count / 400))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        if not folder.exists():  # it was done
            shutil.rmtree(root / "synthetic")
    scenes = load(root, count=count, size=32, dense=True, progress=False)
    assert [path.name for path in (root / "synthetic").iterdir()] == [scenes.folder.name]
    whole = load(root / "whole", count=count, size=32, dense=True, progress=False)
    assert contents(scenes.folder) == contents(whole.folder)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    killed_while_drawn(tmp_path, kills=2, count=20)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_killed_while_drawn_at_many_moments(tmp_path: Path) -> None:
    killed_while_drawn(tmp_path, kills=20, count=100)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_what_a_living_process_draws_is_left_alone(tmp_path: Path) -> None:
    process, folder = drawing(tmp_path, "val", 60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    load(tmp_path, count=4, size=32, processes=1, progress=False)
    assert folder.is_dir()
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    assert process.exitcode == 0
    assert len(load(tmp_path, count=60, size=32, split="val", dense=True, progress=False)) == 60
    assert not list(tmp_path.glob("synthetic/incomplete-*"))


@pytest.mark.parametrize("dense", [False, True])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, dense: bool) -> None:
    with no_file_larger_than(5000), pytest.raises(UserError, match="synthetic cannot be written: File too large") as caught:
        load(tmp_path, count=6, size=32, dense=dense, processes=1, progress=False)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "synthetic").iterdir()) == []


def test_of_two_runs_at_once_the_first_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(tmp_path / "other", count=4, size=32, progress=False)

    def overtaken(*args, **kwargs):
        yield from render_many(*args, **kwargs)
        shutil.copytree(first.folder, tmp_path / "synthetic" / first.folder.name)

    monkeypatch.setattr(cache, "render_many", overtaken)
    second = load(tmp_path, count=4, size=32, progress=False)
    assert contents(second.folder) == contents(first.folder)
    assert [path.name for path in (tmp_path / "synthetic").iterdir()] == [first.folder.name]


def test_the_bar_shows_rate_and_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(tmp_path, count=4, size=32)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "4/4" in captured.err
    assert "images/s" in captured.err


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"count": 0}, "`count` is 0: give 1 to 1000000 scenes"),
        ({"size": 8}, "`size` is 8: give at least 16 pixels"),
        ({"seed": -1}, "`seed` is -1: give 0 or more"),
        ({"split": "test"}, "`split` is 'test': give one of train, val"),
    ],
)
def test_impossible_requests(tmp_path: Path, wrong: dict, line: str) -> None:
    with pytest.raises(ValueError, match=f"^{line}$"):
        load(tmp_path, **{"count": 4, "progress": False, **wrong})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="`index` is -1"):
        render(0, -1)
