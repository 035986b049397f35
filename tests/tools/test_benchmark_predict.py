"""The benchmark of prediction: that it runs, adds up, and compares like with like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tasks
from rpgmt import cli
from tools import benchmark
from tools.benchmarks.common import made_images
from tools.benchmarks.predict import images, network, video

TINY = ["--stages", "2", "--channels", "8", "--depth", "1", "--rpg-size", "50%", "--input-size", "32,32", "--device", "cpu"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little data: the figures mean nothing, and take no time."""
    monkeypatch.setattr(made_images, "IMAGES", 3)


@pytest.mark.usefixtures("few")
def test_the_benchmark_prints_its_ways_and_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "predict.json"
    assert benchmark.main(["predict", *TINY, "--rounds", "2", "--frames", "20", "--json", str(path)]) == 0
    text = capsys.readouterr().out
    for word in (
        *images.WAYS,
        "decode",
        "crop",
        "network",
        "draw",
        "encode",
        "frames/s of the command",
        "2 stages, 8 channels",
    ):
        assert word in text
    record = json.loads(path.read_text())
    assert record["images"][images.BARE]["ratio"] == 1
    for figures in record["images"].values():
        assert figures["images_per_second"] > 0
        assert figures["ratio_quartiles"][0] <= figures["ratio"] <= figures["ratio_quartiles"][1]
    assert set(record["video"]["ms"]) == set(video.STEPS) - {"detect"}
    assert all(taken > 0 for taken in record["video"]["ms"].values())
    assert (record["video"]["frames"], record["video"]["people_a_frame"]) == (20, 1)


@pytest.mark.usefixtures("few")
def test_the_bare_network_sees_what_the_predictor_sees(tmp_path: Path) -> None:
    _, config = cli.parse_train(["pose", *TINY], cli.find_tasks(tasks))
    predictor = network.untrained(config, "cpu", None)
    predictor.batch_size = 2
    files, boxes = images.people(tmp_path)
    batches = images.batches_of(predictor, files, boxes)
    assert [len(batch) for batch in batches] == [2, 1]
    found = predictor(list(files), boxes)
    with torch.inference_mode():
        outputs = [predictor.network.model(batch)[-1]["keypoints"] for batch in batches]  # type: ignore[attr-defined]
    scores = torch.cat([predictor.reading.heads["keypoints"].decode(output, (32, 32))[1] for output in outputs])
    for one, own in zip(found, scores, strict=True):
        assert (torch.from_numpy(one.keypoint_scores[0]) == own).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "`--rounds` is 0: give at least 1"),
        (["--frames", "0"], "`--frames` is 0: give at least 1"),
        (["--detector", "none.onnx", "--rounds", "1", *TINY], "none.onnx: no such file"),
    ],
)
def test_what_the_user_can_mend_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(benchmark.main, ["predict", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
