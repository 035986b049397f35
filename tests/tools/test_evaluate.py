"""tools/evaluate.py: one trained model measured in other ways, and a pretrained trunk through all tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.full_disk import no_file_larger_than
from helpers.people_files import write_coco, write_detections, write_lsp

import rpgmt
from rpgmt import cli
from tools import evaluate, train

TINY = ["--channels", "16", "--depth", "2", "--stages", "2", "--rpg-size", "20%", "--batch-size", "4", "--workers", "0"]
TINY += ["--input-size", "64,64", "--warmup-steps", "0", "--device", "cpu", "--max-steps", "2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    write_coco(folder, 6)
    document = json.loads((folder / "annotations/person_keypoints_val.json").read_text())
    write_detections(folder / "detections.json", document)
    return folder


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with generated stages on the files, named in its config."""
    out = tmp_path_factory.mktemp("runs") / "pose"
    assert train.main(["pose", *TINY, "--data", "coco", "--data-root", str(root), "--out", str(out)]) == 0
    return out


def measure(run: Path, tmp_path: Path, *flags: str) -> dict[str, object]:
    path = tmp_path / "out.json"
    assert evaluate.main([str(run), "--batch-size", "3", "--json", str(path), *flags]) == 0
    record: dict[str, object] = json.loads(path.read_text())
    return record


def test_the_flip_test_and_fewer_stages(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = measure(run, tmp_path)
    flipped = measure(run, tmp_path, "--flip-test", "--stop-after", "1")
    assert plain["data"] == "coco val, gt boxes"
    assert flipped["data"] == "coco val, gt boxes, flip test"
    assert "stage_2/AP" in plain["val"]  # type: ignore[operator]
    assert "stage_2/AP" not in flipped["val"]  # type: ignore[operator]


def test_outputs_without_room_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = tmp_path / "pictures"
    for flags, named in (
        (["--json", "/dev/full"], "/dev/full cannot be written: No space left on device: make room"),
        (["--save-results", "/dev/full"], "/dev/full cannot be written: No space left on device: make room"),
        (["--pictures", str(pictures)], f"{pictures / 'predictions.png'} cannot be written: File too large"),
    ):
        capsys.readouterr()
        with no_file_larger_than(5000):
            assert cli.run(evaluate.main, [str(run), *flags], "evaluate.py") == 2
        err = capsys.readouterr().err
        assert named in err
        assert err.count("\n") == 1
    assert list(pictures.iterdir()) == []


def test_detected_boxes_results_pictures_and_costs(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, pictures = tmp_path / "results.json", tmp_path / "pictures"
    flags = ["--detections", str(root / "detections.json"), "--rescoring", "box_mean", "--nms", "hard", "--costs"]
    record = measure(run, tmp_path, *flags, "--save-results", str(results), "--pictures", str(pictures))
    assert record["data"] == "coco val, detected boxes"
    assert (pictures / "predictions.png").stat().st_size > 10_000
    saved = json.loads(results.read_text())
    assert saved
    assert set(saved[0]) == {"image_id", "category_id", "keypoints", "score"}
    one, two = record["costs"]  # type: ignore[misc]
    assert 0 < one["macs"] < two["macs"]  # type: ignore[index]
    assert one["ms"] > 0  # type: ignore[index]
    out = capsys.readouterr().out
    assert "detected boxes" in out
    assert "MACs (G)" in out


def test_percentages_of_every_joint_are_printed(
    tmp_path: Path, run: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = measure(run, tmp_path, "--protocol", "pck")
    assert "PCK@0.2:left_ankle" in record["val"]  # type: ignore[operator]
    assert "left_ankle" in capsys.readouterr().out


def test_another_data_set_needs_its_own_folder_and_as_many_key_points(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lsp(tmp_path / "lsp", 4)
    assert cli.run(evaluate.main, [str(run), "--data", "lsp", "--data-root", str(tmp_path / "lsp")]) == 2
    assert "the data has 14 key points" in capsys.readouterr().err
    assert cli.run(evaluate.main, [str(run), "--data", "mpii"]) == 2  # not the folder of the run's own data
    assert ".data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "`MODEL` is missing: give a run folder or model file first"),
        (["--flip-test"], "`MODEL` is missing"),
        (["RUN", "--stop-after", "3"], "`stop_after` is 3: the network has 2 stages"),
        (["RUN", "--detections", "/nowhere.json"], "/nowhere.json"),
        (["RUN", "--workers", "-1"], "`--workers` is -1: give at least 0"),
        (["RUN", "--protocol", "pckh"], "lacks a `head_size`"),
        (["RUN", "--batch-size", "0"], "`--batch-size` is 0: give at least 1"),
        (["RUN", "--flip-tset"], "did you mean `--flip-test`?"),
        (["RUN", "--nms", "sometimes"], "one of none, hard, soft"),
    ],
)
def test_mistakes_are_one_line(run: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(evaluate.main, [str(run) if word == "RUN" else word for word in arguments]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert line in said


def test_a_pretrained_trunk_by_one_flag(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from torchvision.models import resnet18

    weights = resnet18().state_dict()
    torch.save(weights, tmp_path / "resnet.pth")
    flags = ["--trunk", "resnet18", "--trunk-weights", str(tmp_path / "resnet.pth"), "--lr", "1e-9"]
    out = tmp_path / "run"
    assert train.main(["pose", *TINY, "--data", "coco", "--data-root", str(root), *flags, "--out", str(out)]) == 0
    assert "trunk: weights from" in capsys.readouterr().out
    trunk = rpgmt.load(out).get_submodule("trunk")
    torch.testing.assert_close(trunk.state_dict()["layer1.0.conv1.weight"], weights["layer1.0.conv1.weight"], atol=1e-6, rtol=0)
    assert evaluate.main([str(out)]) == 0
