"""The comparison of classifiers: every kind of row from end to end, going on, rows that fail, the claims, bad input."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.image_folders import write_folders
from helpers.threads import single_thread
from safetensors.torch import load_file

import rpgmt
from rpgmt import cli
from rpgmt.config import ClassifierConfig
from rpgmt.errors import UserError
from tasks.classification import Config
from tools import benchmark, train
from tools.benchmarks.classification import derive, inference_time
from tools.benchmarks.classification import rows as table
from tools.benchmarks.classification.claims import Claims
from tools.benchmarks.classification.report import Report
from tools.benchmarks.classification.rows import Sizes, plan
from tools.benchmarks.common import trainings
from tools.benchmarks.common.figures import Figures

CLASSES = ("bird", "cat", "dog", "fish", "frog", "horse")
SMALL = (
    *(
        "classification",
        "--data",
        "cifar10_jpeg",
        "--classes",
        "6",
        "--width",
        "0.0625",
        "--batch-size",
        "16",
        "--workers",
        "0",
    ),
    *("--device", "cpu", "--precision", "32", "--epochs", "1", "--max-steps", "2", "--lr", "0.05", "--sizes", "50%,25%,10%"),
)
PARAMETERS = 11802
"""Trained parameters of ResNet-18 at this width with a bank of a quarter: 10,896 + 906."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    with single_thread():
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jpeg")
    write_folders(folder, {"train": 36, "test": 12}, CLASSES, size=(32, 32))
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trainings run in this process, which has loaded its libraries; names of those that were started."""
    started: list[str] = []

    def train_here(chosen: Sequence[trainings.Training], jobs: int) -> list[trainings.Training]:
        failed = []
        for training in [one for one in chosen if one.result() is None]:
            started.append(training.name)
            words = training.command()[1:]
            own = train.main if words[0] == str(trainings.TRAIN) else derive.main
            try:
                own(words[1:])
            except (UserError, ValueError) as error:
                training.log.write_text(f"much\n{error}\n\n")
                failed.append(training)
        return failed

    monkeypatch.setattr(trainings, "train_all", train_here)
    monkeypatch.setattr(inference_time, "REPEATS", 1)
    monkeypatch.setattr(inference_time, "LEAST_REPEATS", 1)
    return started


def test_every_kind_of_row(root: Path, tmp_path: Path, here: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("torch_pruning", "torchdeq"):
        pytest.importorskip(package, reason=f"{package} is not installed (the extras prune and equilibrium)")
    out = tmp_path / "out"
    arguments = [*SMALL, "--data-root", str(root), "--out", str(out)]
    assert benchmark.main(arguments) == 0
    assert len(here) == len(set(here)) == len(table.ROWS) + 2  # three sizes

    record = json.loads((out / "benchmark.json").read_text())
    rows = {row["name"]: row["figures"]["0"] for row in record["rows"]}
    assert [f"{name}-seed0" for name in rows] == sorted(here, key=lambda name: list(rows).index(name.removesuffix("-seed0")))
    for name in ("rpg-global-r18-10896", "rpg-block-r18-10896", "projected-10896", "pruned-weights-10896"):
        assert rows[name]["remaining"] == PARAMETERS
    for name in ("narrow-10896", "pruned-l1-10896", "pruned-fpgm-10896", "equilibrium-10896"):
        assert 0.9 * PARAMETERS < rows[name]["remaining"] < 1.1 * PARAMETERS
    assert rows["pruned-l1-10896"]["remaining"] <= PARAMETERS
    assert rows["pruned-baked-10896"]["remaining"] == rows["plain-r18"]["trainable"] // 2
    assert rows["pruned-bank-10896"]["remaining"] == PARAMETERS - 10896 // 2
    assert rows["rpg-half-r34"]["bank"] == rows["rpg-half-r34"]["generated"] // 2
    assert rows["rpg-global-r34-10896"]["bank"] == 10896
    assert rows["tied"]["trainable"] < rows["plain-r18"]["trainable"]
    assert rows["quantized-4-10896"]["bytes"] < rows["quantized-8-10896"]["bytes"] < rows["rpg-global-r18-10896"]["bytes"]
    assert rows["quantized-8-10896"]["seconds"] == rows["quantized-8-10896"]["epochs"] == 0
    assert rows["equilibrium-10896"]["function_evaluations"] > 1
    assert rows["equilibrium-10896"]["residual"] > 0
    assert all(row["ms"] > 0 and row["macs"] > 0 for row in rows.values())
    assert rows["pruned-l1-10896"]["macs"] < rows["pruned-weights-10896"]["macs"] == rows["plain-r18"]["macs"]
    assert json.loads((out / "projected-10896-seed0.json").read_text())["epochs_before"] > 0
    assert (out / "benchmark.png").stat().st_size < 300_000
    with (out / "benchmark.csv").open() as file:
        assert [line["row"] for line in csv.DictReader(file)] == list(rows)
    text = (out / "table.md").read_text()
    assert "| pruned-bank-10896 |" in text
    assert "one seed" in text

    # What was pruned has stayed so, in the file too; what no config describes is refused.
    weights = rpgmt.load(out / "pruned-weights-10896-seed0")
    assert sum(int((p != 0).sum()) for p in weights.parameters()) <= PARAMETERS
    assert rpgmt.report(rpgmt.load(out / "projected-10896-seed0")).bank == 10896
    with pytest.raises(UserError, match="in the network"):
        rpgmt.load(out / "pruned-l1-10896-seed0")

    here.clear()
    capsys.readouterr()
    assert benchmark.main([*arguments, "--rows", "pruned-bank,quantized-8"]) == 0
    assert here == []  # all of it is finished
    assert "rpg-global-r18-10896" in capsys.readouterr().out  # what they start from

    assert cli.run(benchmark.main, [*arguments, "--rows", "tied", "--weight-decay", "0.5"]) == 2
    assert "`weight_decay` is 0.5: the run in" in capsys.readouterr().err


def test_a_derived_row_is_a_process(root: Path, tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    arguments = [*SMALL, "--data-root", str(root), "--out", str(out)]
    assert benchmark.main([*arguments, "--rows", "rpg-global-r18"]) == 0
    monkeypatch.undo()
    assert benchmark.main([*arguments, "--rows", "quantized-8"]) == 0
    assert (out / "quantized-8-10896-seed0" / "metrics.json").is_file()


@pytest.mark.parametrize("kind", ["pruned-weights", "projected"])
def test_a_derived_row_goes_on_where_it_was(kind: str, root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    common = [*SMALL[1 : SMALL.index("--epochs")], "--data-root", str(root), "--epochs", "1", "--schedule", "constant"]
    network = ["--sharing", "none", "--rpg-size", "10896"]
    assert train.main(["classification", *common, *network, "--max-steps", "1", "--out", str(source)]) == 0
    if kind == "projected":
        network[1] = "rpg"
    words = [kind, "--source", str(source), "--parameters", str(PARAMETERS), *common, *network]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert derive.main([*words, "--max-steps", "2", "--out", str(whole)]) == 0
    assert derive.main([*words, "--max-steps", "1", "--out", str(parts)]) == 0
    assert derive.main([*words, "--max-steps", "2", "--out", str(parts), "--resume"]) == 0
    files = [load_file(folder / "model.safetensors") for folder in (whole, parts)]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def test_a_row_that_fails_leaves_the_others(
    root: Path, tmp_path: Path, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / "plain-r18-seed0").mkdir(parents=True)
    (out / "plain-r18-seed0" / "notes.txt").touch()
    arguments = [*SMALL, "--data-root", str(root), "--out", str(out), "--rows", "tied,projected"]
    assert benchmark.main(arguments) == 1
    assert here == ["plain-r18-seed0", "tied-seed0"]
    text = capsys.readouterr().out
    assert f"failed: plain-r18, seed 0: `out` is {out / 'plain-r18-seed0'}: not an empty folder" in text
    assert "failed: projected-10896, seed 0: plain-r18, from which it starts, failed" in text
    assert [row["name"] for row in json.loads((out / "benchmark.json").read_text())["rows"]] == ["tied"]


# ---- the claims


def claims(top1: dict[str, tuple[float, ...]], ms: dict[str, float] | None = None) -> dict[str, tuple[str, str]]:
    config = Config(model=ClassifierConfig(width=0.25))
    sizes = Sizes((100000, 10000, 1000), 10000, 10000)
    rows = plan(config, table.ROWS, sizes, config.train, config.train)
    known = {row.name: row for row in rows}
    assert top1.keys() <= known.keys()
    figures = {
        name: Figures(name, {seed: {"top1": v, "ms": (ms or {}).get(name), "epochs": 3} for seed, v in enumerate(values)})
        for name, values in top1.items()
    }
    seeds = max(map(len, top1.values()))
    return {claim.text: (claim.answer, claim.figures) for claim in Claims(rows, figures, sizes, seeds, 10000).all()}


def answer(found: dict[str, tuple[str, str]], begin: str) -> tuple[str, str]:
    (text,) = [text for text in found if text.startswith(begin)]
    return found[text]


def test_claims_of_made_up_rows() -> None:
    found = claims(
        {
            "plain-r34": (0.900,),
            "rpg-half-r34": (0.896,),  # 0.4 points less are equal
            "rpg-global-r18-100K": (0.80,),
            "rpg-global-r18-10K": (0.70,),
            "rpg-global-r18-1K": (0.60,),
            "rpg-block-r18-10K": (0.71,),
            "narrow-10K": (0.60,),
            "rpg-global-r34-10K": (0.705,),
            "equilibrium-10K": (0.65,),
            "pruned-weights-10K": (0.70,),
            "pruned-l1-10K": (0.75,),
        },
        {"rpg-global-r18-10K": 0.5, "equilibrium-10K": 10.0},
    )
    assert answer(found, "ResNet-34 with a bank")[0] == "yes"
    assert answer(found, "One bank beats")[0] == "no"
    assert answer(found, "Banks by block")[0] == "yes"
    assert "one seed" in answer(found, "Banks by block")[1]
    assert "sampling" not in answer(found, "Banks by block")[1]
    yes, figures = answer(found, "Generated, ResNet-34")
    assert yes == "yes"
    assert "rpg-global-r34-10K 70.50 % against rpg-global-r18-10K 70.00 %; +0.50 points" in figures
    assert "within two sampling errors, 1.29, of 10,000 images" in figures  # 2 √(0.705 · 0.295 / 10⁴ + 0.7 · 0.3 / 10⁴)
    linear = answer(found, "Accuracy is linear")
    assert linear == ("yes", "R² 1.000 over 3 sizes, +10.00 points a tenfold N; one seed")
    assert answer(found, "A generated network beats the equilibrium")[0] == "yes"
    assert "20.0 times" in answer(found, "Inference takes")[1]
    assert answer(found, "Inference takes")[0] == "yes"
    assert answer(found, "A generated network matches or beats pruned-weights")[0] == "yes"
    assert answer(found, "A generated network matches or beats pruned-l1")[0] == "no"
    assert answer(found, "A generated network matches or beats pruned-fpgm") == ("not measured", "")


def test_claims_of_several_seeds_and_none() -> None:
    found = claims({"plain-r34": (0.8, 0.9), "rpg-half-r34": (0.7, 0.8)})
    no, figures = answer(found, "ResNet-34 with a bank")
    assert no == "no"
    assert "75.00 ± 7.07 % against plain-r34 85.00 ± 7.07 %" in figures
    assert "2 seeds" in figures
    assert {value for text, (value, _) in found.items() if "bank of half" not in text} == {"not measured"}


def test_a_report_of_nothing_is_written(tmp_path: Path) -> None:
    config = Config(model=ClassifierConfig(width=0.25))
    sizes = Sizes((1000,), 1000, 1000)
    rows = plan(config, ["tied"], sizes, config.train, config.train)
    report = Report("made up", [0, 1], rows, {}, {("tied", 0): "no memory"}, sizes, 10)
    report.write(tmp_path, {})
    assert "failed: tied, seed 0: no memory" in (tmp_path / "table.md").read_text()
    assert not (tmp_path / "benchmark.png").exists()


# ---- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "tide"], "`--rows` is 'tide': did you mean `tied`? rows: plain-r18"),
        (["--seeds", "0,0"], "`--seeds` is '0,0': give different whole numbers"),
        (["--jobs", "0"], "`--jobs` is 0: give at least 1"),
        (["--finetune-epochs", "0"], "`--finetune-epochs` is 0: give at least 1"),
        (["--finetune-lr", "0"], "`--finetune-lr` is 0.0: give more than 0"),
        (["--network", "resnet34"], "`--network` is each row's own"),
        (["--rpg-size=1M"], "`--rpg-size` is each row's own"),
        (["--width", "0.125"], "`--sizes` is 2359296: ResNet-18 has 174,336 weights to generate at --width 0.125"),
        (["--sizes", "1K,x"], "`--sizes` is 'x': not a size"),
        (["--sizes", "1K,1000"], "`--sizes` is '1K,1000': give different sizes"),
        (["--sizes", "2K,1K", "--block-size", "3K"], "`--block-size` is 3K: give one of --sizes, 2K,1K"),
    ],
)
def test_what_the_user_can_mend_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(benchmark.main, ["classification", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
