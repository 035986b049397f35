"""The benchmark of the loader: that it runs, adds up, and compares like with like."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rpgmt import cli
from rpgmt.codecs.heatmap import Heatmap
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.images import normalize, read_image_file
from rpgmt.data.pose_crops import PoseCrops
from tools import benchmark
from tools.benchmarks.common import made_images
from tools.benchmarks.common.stopwatch import ThreadStopwatch
from tools.benchmarks.loader import timing
from tools.benchmarks.loader.plain_crops import PlainCrops


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little data: the figures mean nothing, and take no time."""
    monkeypatch.setattr(made_images, "IMAGES", 3)
    monkeypatch.setattr(timing, "BATCH", 2)


@pytest.mark.usefixtures("few")
def test_the_loader_benchmark_prints_its_steps_and_the_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = cv2.getNumThreads(), torch.get_num_threads()
    path = tmp_path / "loader.json"
    assert benchmark.main(["loader", "--rounds", "2", "--json", str(path)]) == 0
    text = capsys.readouterr().out
    for word in ("read", "decode", "warp", "augmentation", "targets", "collate", "images a second", "ours / plain", "640×480"):
        assert word in text
    record = json.loads(path.read_text())
    own, plain = (record["ways"][way] for way in ("ours", "plain"))
    assert set(own["ms"]) == set(timing.STEPS)
    assert [step for step, value in own["ms"].items() if value is None] == ["augmentation"]
    assert [step for step, value in plain["ms"].items() if value is None] == ["read"]
    assert record["ratio"] > 0
    assert record["ratio_quartiles"][0] <= record["ratio"] <= record["ratio_quartiles"][1]
    assert (cv2.getNumThreads(), torch.get_num_threads()) == threads


@pytest.mark.usefixtures("few")
def test_the_loader_benchmark_takes_files_in_cocos_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    document, _ = made_images.make_files(tmp_path / "images")
    (tmp_path / "person_keypoints_train.json").write_text(json.dumps(document))
    arguments = ["loader", "--data-root", str(tmp_path), "--rounds", "1", "--input-size", "64,96"]
    assert benchmark.main(arguments) == 0
    text = capsys.readouterr().out
    assert tmp_path.name in text.replace("\n", "")
    assert "64×96" in text


@pytest.mark.usefixtures("few")
def test_both_ways_load_the_same(tmp_path: Path) -> None:
    """Without random changes: the plain way's half pixel and its rounding are all that is between them."""
    document, folder = made_images.make_files(tmp_path)

    def read(entry: dict, *need: int) -> np.ndarray:
        return read_image_file(folder / entry["file_name"], entry["width"], entry["height"], *need)

    people = CocoPeople(document, read)
    own = PoseCrops(people, (96, 128))
    pairs = people.keypoints.flip_pairs
    plain = PlainCrops(people.people, folder, pairs, (96, 128), ThreadStopwatch(), flip=0, scale=0, rotation=0)
    codec = Heatmap(input_size=(96, 128), heatmap_size=(24, 32), sigma=2.0)
    for index in range(len(own)):
        ours, other = own[0, index], plain[index]
        maps, weights = codec.encode(torch.tensor(ours["keypoints"])[None], torch.tensor(ours["visibility"])[None])
        assert torch.equal(weights[0], other["weight"])
        assert (maps[0] - other["target"]).abs().max() < 0.5
        assert (normalize(torch.tensor(ours["image"])[None])[0] - other["image"]).abs().mean() < 0.3


def test_made_images_take_as_many_bytes_as_photographs() -> None:
    """COCO's, of 640×480 and at quality 90, have a median of 103 KB."""
    image = made_images.photograph(np.random.default_rng(0))
    assert image.shape == (480, 640, 3)
    assert 80_000 < len(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]) < 130_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loader", "--rounds", "0"], "`--rounds` is 0: give at least 1"),
        (["loader", "--input-size", "192"], "`--input-size` is '192': give width and height"),
        (["loader", "--input-size", "30,30"], "`--input-size` is '30,30': give multiples of 4"),
        (["loader", "--data-root", "/nowhere"], "/nowhere: no such data root"),
        (["loader", "--round", "3"], "did you mean `--rounds`"),
    ],
)
def test_what_the_user_can_mend_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(benchmark.main, arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
