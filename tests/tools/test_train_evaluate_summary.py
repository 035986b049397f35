"""The tools from end to end, on real files: train, evaluate, summarise, go on, start from a model."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open

import rpgmt
from rpgmt import cli
from rpgmt.config.presets import CONFIGS
from rpgmt.config.presets import ROOT as REPOSITORY
from rpgmt.synthetic.cache import load
from tools import benchmark, data, evaluate, summary, train

TINY = ["--channels", "16", "--depth", "2", "--stages", "2", "--rpg-size", "20%", "--batch-size", "4", "--workers", "0"]
TINY += ["--train-images", "8", "--val-images", "6", "--warmup-steps", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the synthetic images of the tests."""
    folder = tmp_path_factory.mktemp("data")
    load(folder, count=8, split="train", progress=False)
    load(folder, count=6, split="val", progress=False)
    return folder


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training."""
    out = tmp_path_factory.mktemp("runs") / "pose"
    assert train.main(["pose", *TINY, "--data-root", str(root), "--epochs", "2", "--ema", "0.9", "--out", str(out)]) == 0
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def error_line(main: object, argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.run(main, argv) == 2  # type: ignore[arg-type]
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_the_run_folder_holds_what_it_promises(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    expected = {"config.yaml", "metrics.json", "metrics.csv", "checkpoints", "model.safetensors"}
    assert names >= expected | {"predictions.png", "curves.png"}
    assert any(name.startswith("events") for name in names)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) >= {"task", "val", "parameters", "bytes", "macs", "data", "seed", "steps", "seconds", "versions"}
    assert metrics["task"] == "pose"
    assert {"AP", "stage_1/AP", "stage_2/AP"} <= set(metrics["val"])
    assert metrics["val"]["AP"] == metrics["val"]["stage_2/AP"]
    assert metrics["data"]["boxes"] == "gt boxes"
    assert metrics["bytes"]["model_file"] == (run / "model.safetensors").stat().st_size
    parameters = metrics["parameters"]
    assert parameters["trainable"] == parameters["bank"] + parameters["fixed"]
    assert parameters["bank"] == round(parameters["generated"] / 5)


def test_the_model_file_is_as_small_as_it_says(run: Path) -> None:
    parameters = json.loads((run / "metrics.json").read_text())["parameters"]
    tensors = weights(run)
    buffers = sum(t.numel() * t.element_size() for name, t in tensors.items() if "running" in name or "num_batches" in name)
    size = (run / "model.safetensors").stat().st_size
    assert size <= 4 * parameters["trainable"] + buffers + 160 * len(tensors) + 8192


def test_evaluate_finds_what_training_measured(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evaluation.json"
    assert evaluate.main([str(run), "--json", str(path), "--batch-size", "4"]) == 0
    assert "gt boxes" in capsys.readouterr().out
    found, trained = json.loads(path.read_text())["val"], json.loads((run / "metrics.json").read_text())["val"]
    assert found.keys() == trained.keys()
    for name, value in trained.items():
        assert (value is None) == (found[name] is None)
        assert value is None or math.isclose(value, found[name], abs_tol=1e-6), name


def test_the_same_seed_gives_the_same_weights_twice_and_another_seed_others(run: Path, root: Path, tmp_path: Path) -> None:
    arguments = ["pose", *TINY, "--data-root", str(root), "--epochs", "2", "--ema", "0.9"]
    assert train.main([*arguments, "--out", str(tmp_path / "again")]) == 0
    assert train.main([*arguments, "--seed", "1", "--out", str(tmp_path / "other")]) == 0
    first, again, other = weights(run), weights(tmp_path / "again"), weights(tmp_path / "other")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["bank_stage_1.values"], other["bank_stage_1.values"])


def test_a_saved_config_starts_the_same_run(run: Path, tmp_path: Path) -> None:
    assert train.main(["pose", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "copy")]) == 0
    first, copy = weights(run), weights(tmp_path / "copy")
    assert all(torch.equal(first[name], copy[name]) for name in first)


def test_a_stopped_run_goes_on_to_the_same_weights_with_no_flag_but_resume(run: Path, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    arguments = ["pose", *TINY, "--data-root", str(root), "--epochs", "2", "--ema", "0.9", "--out", str(out)]
    steps = json.loads((run / "metrics.json").read_text())["steps"]
    assert steps > 3
    assert train.main([*arguments, "--max-steps", str(steps - 2), "--schedule", "constant"]) == 0
    whole = tmp_path / "whole"
    assert train.main([*arguments[:-1], str(whole), "--schedule", "constant"]) == 0
    assert train.main(["pose", "--resume", "--out", str(out), "--max-steps", str(steps)]) == 0
    first, other = weights(whole), weights(out)
    assert all(torch.equal(first[name], tensor) for name, tensor in other.items())


@pytest.mark.parametrize("sharing", ["tied", "none"])
def test_the_other_sharings_train_by_one_flag(sharing: str, root: Path, tmp_path: Path) -> None:
    out = tmp_path / sharing
    arguments = ["pose", *TINY, "--data-root", str(root), "--max-steps", "2", "--sharing", sharing, "--out", str(out)]
    assert train.main(arguments) == 0
    assert rpgmt.load(out)(torch.zeros(1, 3, 64, 64))[1]["keypoints"].shape == (1, 17, 16, 16)


def test_fine_tuning_starts_from_a_models_weights(run: Path, root: Path, tmp_path: Path) -> None:
    arguments = ["pose", *TINY, "--data-root", str(root), "--max-steps", "1", "--lr", "1e-12", "--seed", "9"]
    assert train.main([*arguments, "--init-from", str(run), "--out", str(tmp_path / "tuned")]) == 0
    first, tuned = weights(run), weights(tmp_path / "tuned")
    assert torch.allclose(first["bank_stage_2.values"], tuned["bank_stage_2.values"], atol=1e-9)


def test_a_taught_run_goes_on_exactly_and_needs_no_teacher_afterwards(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = tmp_path / "teacher.safetensors"
    shutil.copy(run / "model.safetensors", teacher)
    alone = ["pose", *TINY, "--data-root", str(root), "--sharing", "tied", "--schedule", "constant"]
    taught = [*alone, "--teacher", str(teacher)]
    assert train.main([*taught, "--max-steps", "4", "--out", str(tmp_path / "whole")]) == 0
    assert f"teacher: {teacher}, " in capsys.readouterr().out
    assert train.main([*taught, "--max-steps", "2", "--out", str(tmp_path / "parts")]) == 0
    longer = ["pose", "--resume", "--max-steps", "4", "--out", str(tmp_path / "parts")]
    moved = teacher.rename(tmp_path / "moved.safetensors")
    assert f"`teacher` is {teacher}: {teacher} does not exist" in error_line(train.main, longer, capsys)
    shutil.copy(tmp_path / "whole" / "model.safetensors", teacher)
    assert "`teacher`: the file is not the one that the run in" in error_line(train.main, longer, capsys)
    assert train.main([*longer, "--teacher", str(moved)]) == 0
    assert train.main([*alone, "--max-steps", "4", "--out", str(tmp_path / "alone")]) == 0
    teacher.unlink()
    moved.unlink()
    assert evaluate.main([str(tmp_path / "whole"), "--data-root", str(root), "--device", "cpu"]) == 0
    whole, parts, other = (weights(tmp_path / folder) for folder in ("whole", "parts", "alone"))
    assert whole.keys() == parts.keys() == other.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not torch.equal(whole["trunk.conv.weight"], other["trunk.conv.weight"])
    of_runs = [json.loads((tmp_path / folder / "metrics.json").read_text()) for folder in ("whole", "parts", "alone")]
    assert of_runs[0]["fingerprints"] == of_runs[1]["fingerprints"]
    assert "fingerprints" not in of_runs[2]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "its input size is 72×96, that of the network to train 64×64"),
        (["--input-size", "72,96", "--sigma", "2"], "its sigma is 1.0, that of the network to train 2.0"),
        (["--input-size", "72,96", "--loss", "mse"], "its loss is cross_entropy, that of the network to train mse or ohkm"),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_line(
    flags: list[str], words: str, run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pose", *TINY, "--input-size", "64,64", "--data-root", str(root), "--out", str(tmp_path / "out")]
    assert words in error_line(train.main, [*arguments, "--teacher", str(run), *flags], capsys)
    assert not (tmp_path / "out").exists()


def test_summary_counts_a_run_and_a_config_alike(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert summary.main([str(run), "--json", str(tmp_path / "a.json"), "--modules"]) == 0
    text = capsys.readouterr().out
    for word in ("bank N", "generated M", "fixed", "trainable", "buffers", "bytes", "MACs", "bank_stage_2", "BatchNorm2d"):
        assert word in text
    assert summary.main(["pose", *TINY, "--json", str(tmp_path / "b.json")]) == 0
    assert summary.main(["--config", str(run / "config.yaml"), "--json", str(tmp_path / "c.json")]) == 0
    a, b, c = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "abc")
    assert a["parameters"] == b["parameters"] == c["parameters"]
    assert a["macs"] == b["macs"] == c["macs"]
    assert a["bytes"]["model_file"] == (run / "model.safetensors").stat().st_size
    assert b["bytes"]["model_file"] is None
    assert sum(row["generated"] for row in a["modules"]) == a["parameters"]["generated"]


def test_the_step_benchmark_prints_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "step.json"
    assert benchmark.main(["step", *TINY, "--rounds", "2", "--json", str(path)]) == 0
    assert "ratio to none" in capsys.readouterr().out
    rows = {row["sharing"]: row for row in json.loads(path.read_text())["rows"]}
    assert set(rows) == {"none", "tied", "rpg", "signed"}
    assert rows["none"]["ratio"] == 1.0


def test_real_coco_files_train_and_evaluate(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "coco"
    data = ["--data", "coco", "--data-root", str(shared_data / "coco")]
    assert train.main(["pose", *TINY, *data, "--max-steps", "2", "--out", str(out)]) == 0
    assert json.loads((out / "metrics.json").read_text())["data"]["name"] == "coco"
    assert evaluate.main([str(out), *data]) == 0


def test_training_from_written_files_equals_training_from_memory(root: Path, tmp_path: Path) -> None:
    assert data.main(["synthetic", "--out", str(tmp_path / "files"), "--train", "8", "--val", "6"]) == 0
    arguments = ["pose", *TINY, "--max-steps", "3"]
    assert train.main([*arguments, "--data-root", str(root), "--out", str(tmp_path / "a")]) == 0
    files = ["--data", "coco", "--data-root", str(tmp_path / "files")]
    assert train.main([*arguments, *files, "--out", str(tmp_path / "b")]) == 0
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text())["val"] for name in "ab"]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rpg-size", "0"], "`--rpg-size` is 0: give at least 1"),
        (["--rpg-size", "-5"], "`--rpg-size` is -5: give at least 1"),
        (["--rpg-size", "1Q"], "`--rpg-size` is '1Q': not a size"),
        (["--stage", "4"], "did you mean `--stages`?"),
        (["--config", "nothing"], "no such preset of pose"),
        (["--stages", "many"], "`--stages` is 'many'"),
        (["--rpg-size", "1"], "2 banks need at least 1 parameter each"),
        (["--data", "coco", "--data-root", "/nowhere"], "no such data root"),
        (["--init-from", "/nowhere"], "does not exist"),
        (["--teacher", "/nowhere"], "/nowhere does not exist"),
        (["--teacher", "README.md"], "is not a model file"),
        (["--precision", "16"], "a CPU has no mixed precision with float16"),
        (["--init-from", "README.md"], "is not a model file"),
        (["--input-size", "8,8"], "`--input-size` is [8, 8]"),
        (["--heads", "keypoints=17,depth=1"], "the pose task trains one head"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    flags: list[str], message: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pose", *TINY, "--data-root", str(root), "--max-steps", "1", "--out", str(tmp_path / "out"), *flags]
    assert message in error_line(train.main, arguments, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is empty"), ("{", "not JSON"), ("[]", "not a COCO document"), ('{"images": [{"id": 1}]}', "it needs a list")],
)
def test_a_broken_annotation_file_is_one_line(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        (tmp_path / f"person_keypoints_{split}.json").write_text(content)
    arguments = ["pose", *TINY, "--data", "coco", "--data-root", str(tmp_path), "--out", str(tmp_path / "out")]
    assert message in error_line(train.main, arguments, capsys)


def test_fine_tuning_that_is_killed_at_once_goes_on_from_the_models_weights(run: Path, root: Path, tmp_path: Path) -> None:
    """The first weights are in a checkpoint before the first step."""
    out = tmp_path / "tuned"
    code = (
        "import os, sys\nfrom tools import train\nfrom rpgmt.engine.training_step import TrainingStep\n"
        "TrainingStep.gradients = lambda *_, **__: os._exit(9)\ntrain.main(sys.argv[1:])"
    )
    arguments = ["pose", *TINY, "--data-root", str(root), "--max-steps", "1", "--lr", "1e-12", "--seed", "9"]
    command = [sys.executable, "-c", code, *arguments, "--init-from", str(run), "--out", str(out)]
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=120).returncode == 9
    assert train.main(["pose", "--resume", "--out", str(out)]) == 0
    assert torch.allclose(weights(run)["bank_stage_2.values"], weights(out)["bank_stage_2.values"], atol=1e-9)


def test_two_processes_leave_one_run_and_no_error(root: Path, tmp_path: Path) -> None:
    arguments = ["pose", *TINY, "--data-root", str(root), "--max-steps", "2", "--devices", "2", "--out", str(tmp_path / "two")]
    command = [sys.executable, "-W", "ignore", "tools/train.py", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "train.py:" not in done.stderr
    assert done.stdout.count("bank N") == 1
    assert (tmp_path / "two" / "metrics.json").is_file()


def test_a_run_goes_on_from_a_table_that_was_cut_off_and_not_from_half_a_checkpoint(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cut"
    arguments = ["pose", *TINY, "--data-root", str(root), "--schedule", "constant", "--max-steps", "1", "--out", str(out)]
    assert train.main(arguments) == 0
    with (out / "metrics.csv").open("a") as file:
        file.write("2.5")
    assert train.main(["pose", "--resume", "--max-steps", "2", "--out", str(out)]) == 0
    last = out / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    capsys.readouterr()
    line = error_line(train.main, ["pose", "--resume", "--max-steps", "3", "--out", str(out)], capsys)
    assert "is not a whole checkpoint" in line


def test_a_folder_in_use_is_refused_and_left_alone(run: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "metrics.json").read_bytes()
    line = error_line(train.main, ["pose", *TINY, "--data-root", str(root), "--out", str(run)], capsys)
    assert "not an empty folder" in line
    assert (run / "metrics.json").read_bytes() == before


def test_evaluating_a_missing_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist: give a run folder" in error_line(evaluate.main, ["/nowhere"], capsys)
    assert "`/nowhere` is neither a run folder or model file nor a task: tasks: " in error_line(
        summary.main, ["/nowhere"], capsys
    )


@pytest.mark.parametrize("preset", sorted((CONFIGS / "pose").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_is_read_and_builds(preset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(yaml.safe_load(preset.read_text()), dict)
    assert summary.main(["pose", "--config", preset.stem]) == 0
    assert "generated M" in capsys.readouterr().out


@pytest.mark.parametrize("tool", ["train", "evaluate", "summary", "benchmark", "data", "report"])
def test_each_tool_answers_help_as_a_program_without_torch(tool: str) -> None:
    code = f"import sys, runpy; sys.argv = ['{tool}.py', '--help']\ntry: runpy.run_path('tools/{tool}.py', run_name='__main__')"
    code += "\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_a_bad_flag_ends_the_program_with_status_2() -> None:
    command = [sys.executable, "tools/train.py", "pose", "--rpg-size", "0"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "train.py: `--rpg-size` is 0: give at least 1, e.g. 250K\n"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["pose", "--lr", "0.1"], "pose --lr 0.1 --out 'my runs/1' --resume"),
        (["pose", "--out", "my runs/1"], "pose --out 'my runs/1' --resume"),
        (["pose", "--out=my runs/1", "--resume", "--epochs", "9"], "pose '--out=my runs/1' --epochs 9 --resume"),
    ],
)
def test_the_command_that_goes_on_is_the_users_with_the_folder(
    argv: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["tools/train.py", *argv])
    monkeypatch.setenv("UV", "uv")
    out = Path("my runs/1")
    assert train.go_on(argv, out) == f"uv run tools/train.py {expected}"
    words = shlex.split(train.go_on(argv, out))[3:]
    assert shlex.split(train.go_on(words, out))[3:] == words
    monkeypatch.delenv("UV")
    assert train.go_on(argv, out) == f"{shlex.quote(sys.executable)} tools/train.py {expected}"
    assert train.go_on(argv, out, "rpgmt train") == f"rpgmt train {expected}"


def test_ctrl_c_ends_a_run_in_order_and_tells_the_command_that_goes_on(
    root: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    out = tmp_path / "stopped"
    arguments = ["pose", *TINY, "--data-root", str(root), "--epochs", "100000", "--schedule", "constant", "--out", str(out)]
    own = {name: value for name, value in os.environ.items() if name != "UV"}  # the command names this interpreter then
    process = start([sys.executable, "tools/train.py", *arguments], cwd=REPOSITORY, stdout=subprocess.PIPE, env=own)
    while not (out / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    steps = json.loads((out / "metrics.json").read_text())["steps"]
    assert steps > 0
    before, _, command = text.strip().splitlines()[-1].partition("; go on with: ")
    assert before == f"interrupted; results are in {out}"
    words = [*shlex.split(command), "--max-steps", str(steps + 1)]
    assert subprocess.run(words, cwd=REPOSITORY, capture_output=True, timeout=120).returncode == 0
    assert json.loads((out / "metrics.json").read_text())["steps"] == steps + 1


@pytest.mark.parametrize("tool", [train, evaluate, summary, benchmark, data], ids=lambda tool: tool.__name__)
def test_a_tool_names_itself_as_it_was_called(tool: Any, capsys: pytest.CaptureFixture[str]) -> None:
    name = tool.__name__.rpartition(".")[2]
    for prog, given in ((f"{name}.py", []), (f"rpgmt {name}", [f"rpgmt {name}"])):
        with contextlib.suppress(SystemExit):
            tool.main(["--help"], *given)
        assert capsys.readouterr().out.startswith(f"usage: {prog} ")


@pytest.mark.parametrize("name", benchmark.BENCHMARKS)
def test_so_does_a_benchmark(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.main([name, "--help"], "rpgmt benchmark")
    assert capsys.readouterr().out.startswith(f"usage: rpgmt benchmark {name} ")
