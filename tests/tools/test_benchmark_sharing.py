"""The comparison of ways of sharing: its rows, pairing, choice of rates; a small one from flags to figures."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpgmt import cli
from rpgmt.config import ModelConfig
from rpgmt.errors import UserError
from rpgmt.models.width import generated_weights, trainable
from tasks import multitask, pose
from tools import benchmark, train
from tools.benchmarks.sharing import measure, read_grid, samples
from tools.benchmarks.sharing.grid import Measurement
from tools.benchmarks.sharing.report import Report
from tools.benchmarks.sharing.rows import BITS, ROWS, plan
from tools.benchmarks.sharing.store import Store, choose_rate, run_name

TINY = ModelConfig(stages=2, channels=8, depth=1, heads={"keypoints": 17}, input_size=(32, 32))

# ---- rows


def test_all_rows_at_a_size_have_as_many_parameters() -> None:
    rows, notes = plan(dataclasses.replace(TINY, channels=16), ROWS, [4], ["50%"])
    assert notes == []
    names = [row.name for row in rows]
    kinds = ("tied-50pc", "rpg-stage-50pc", "rpg-layer-50pc", "signed-50pc", "narrow-50pc", "none")
    assert names[:6] == [f"{kind}-t4" for kind in kinds]
    assert len(set(names)) == len(names)
    by_name = {row.name: row for row in rows}
    wanted = by_name["rpg-stage-50pc-t4"].parameters
    plain = by_name["none-t4"].model
    assert wanted == by_name["none-t4"].parameters - generated_weights(plain) // 2
    for row in rows:
        assert row.parameters == trainable(dataclasses.replace(row.model, parameters=None, channels=row.channels))
        if row.kind in ("tied", "signs", "signed", "rpg-layer", "rpg-global", "rpg-block"):
            assert row.parameters == wanted
        elif row.kind in ("narrow", "wide", "low-rank"):
            others = [trainable(dataclasses.replace(row.model, parameters=None, channels=row.channels + d)) for d in (-4, 4)]
            assert abs(row.parameters - wanted) <= min(abs(other - wanted) for other in others)
    assert by_name["tied-50pc-t4"].model.tied_sets == 2
    assert by_name["signs-50pc-t4"].model.rpg_block == generated_weights(plain) // 2
    assert by_name["narrow-50pc-t4"].channels == 12
    assert by_name["wide-50pc-t4"].model.stages == 1
    assert [row.model.stages for row in rows if row.kind == "none" and not row.bits] == [4, 1, 2, 3]
    assert {(row.source, row.bits) for row in rows if row.bits} == {
        (source, bits)
        for source in ("tied-50pc-t4", "rpg-stage-50pc-t4", "signed-50pc-t4", *(f"none-t{stages}" for stages in (1, 2, 3, 4)))
        for bits in BITS.values()
    }


def test_rounded_are_the_rows_that_are_compared_or_else_all_that_can_be() -> None:
    asked = (["tied", "narrow", "8bit"], ["8bit"], ["ruler", "8bit"])
    named, alone, ruler = (plan(TINY, kinds, [4], ["50%"])[0] for kinds in asked)
    assert [row.source for row in named if row.bits] == ["tied-50pc-t4"]
    assert [row.source for row in ruler if row.bits] == ["none-t1", "none-t2", "none-t3"]
    assert [row.source for row in alone if row.bits] == ["tied-50pc-t4", "rpg-stage-50pc-t4", "signed-50pc-t4", "none-t4"]


def test_what_cannot_be_is_left_out_with_a_line() -> None:
    rows, notes = plan(TINY, ["tied", "rpg-stage"], [2], ["30%"])
    assert [row.name for row in rows] == ["rpg-stage-30pc-t2"]
    assert notes == ["tied-30pc-t2 is left out: 30% of the weights are no whole number of 2 stages"]


def test_a_row_that_no_width_makes_equal_is_left_out() -> None:
    rows, notes = plan(dataclasses.replace(TINY, channels=4), ["low-rank", "none"], [4], ["1%"])
    assert [row.name for row in rows] == ["none-t4"]
    assert len(notes) == 1
    assert notes[0].startswith("low-rank-1pc-t4 is left out: `parameters` is")


@pytest.mark.parametrize("module", [pose, multitask])
def test_samples_and_their_order_do_not_depend_on_the_kind(module: Any, tmp_path: Path) -> None:
    data = module.DataConfig(root=tmp_path, train_images=10, val_images=2, image_size=32, hold_out=0.2)
    base = module.Config(data=data)
    base = dataclasses.replace(base, train=dataclasses.replace(base.train, batch_size=2, epochs=2, seed=5))
    heads = {"keypoints": 17} | ({"depth": 1} if module is multitask else {})
    kinds = ["tied", "rpg-stage", "narrow", "none"] if module is pose else ["tied", "rpg-layer"]
    rows, _ = plan(dataclasses.replace(TINY, heads=heads), kinds, [2], ["50%"])
    tasks = [module.build(dataclasses.replace(base, model=row.model)) for row in rows]
    orders = {measure.order_of(task.train_data, task.config.train) for task in tasks}
    assert len(orders) == 1
    first, *others = tasks
    for key in ((0, 0), (1, 3)):
        wanted = first.train_data[key]
        for task in others:
            sample = task.train_data[key]
            assert sample.keys() == wanted.keys()
            for name, value in wanted.items():
                np.testing.assert_array_equal(sample[name], value)
    other_seed = dataclasses.replace(first.config.train, seed=6)
    assert measure.order_of(first.train_data, other_seed) not in orders


# ---- the choice of a rate


def test_the_best_rate_is_chosen_and_of_equal_ones_the_lower() -> None:
    assert choose_rate({0.1: 0.5, 0.01: 0.5, 1.0: 0.4}) == 0.01
    assert choose_rate({0.1: None, 1.0: 0.4, 2.0: math.nan}) == 1.0
    assert choose_rate({0.1: None}) is None


# ---- a small comparison, run here

FLAGS = (
    *("--image-size", "32", "--train-images", "10", "--val-images", "4", "--input-size", "32,32", "--batch-size", "4"),
    *("--stages", "2", "--channels", "4", "--depth", "1", "--device", "cpu", "--precision", "32", "--workers", "0"),
    *("--epochs", "1", "--hold-out", "0.2", "--sizes", "50%", "--draws", "5"),
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command whose trainings and measurements have all been run, in this process: the bench would start others."""
    folder = tmp_path_factory.mktemp("sharing")
    words = ["pose", *FLAGS, "--data-root", str(folder / "data"), "--out", str(folder / "out"), "--rates", "0.001,0.01"]
    argv = [*words, "--rows", "rpg-stage", "--seeds", "3"]
    grid, _ = read_grid(argv, "sharing")
    jobs = grid.jobs()
    names = ["rpg-stage-50pc-t2-lr0.001-seed3", "rpg-stage-50pc-t2-lr0.01-seed3", "rpg-stage-50pc-t2-seed3 on val"]
    assert [job.name for job in jobs] == names
    assert [job.ready() for job in jobs] == [True, True, False]
    for job in jobs:
        assert job.ready()  # by what was done before
        run = measure.main if isinstance(job, Measurement) else train.main
        assert run(job.command()[2:]) == 0  # type: ignore[attr-defined]
        assert job.result() is not None
    return argv


def test_from_flags_to_figures(compared: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = Path(compared[compared.index("--out") + 1])
    assert benchmark.main(["sharing", *compared]) == 0
    text = capsys.readouterr().out
    assert "3 of 3 trainings and measurements are finished already" in text
    assert "CUT SHORT" not in text
    record = json.loads((out / "benchmark.json").read_text())
    assert record["complete"] is True
    for row in record["rows"]:
        run = out / run_name(row["name"], row["rate"], 3)
        trained = json.loads((run / "metrics.json").read_text())
        assert row["tried"][f"{row['rate']:g}"] == trained["val"]["AP"] == max(row["tried"].values())
        figures = row["figures"]["3"]
        assert figures["parameters.trainable"] == trained["parameters"]["trainable"] == row["parameters"]
        assert figures["bytes"] == (run / "model.safetensors").stat().st_size
        assert record["val_samples"] == json.loads((run / "val.json").read_text())["samples"]
    files = [out / name for name in ("benchmark.csv", "table.md", "benchmark.png", "benchmark.json")]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    assert benchmark.main(["sharing", "report", "--out", str(out)]) == 0
    assert [file.read_bytes() for file in files] == before  # made again of what is stored


def test_a_packed_comparison_is_reported_and_goes_on_elsewhere(
    compared: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, packed, again = Path(compared[compared.index("--out") + 1]), tmp_path / "rows.tar.xz", tmp_path / "again.tar.xz"
    assert benchmark.main(["sharing", "report", "--out", str(out), "--pack", str(packed)]) == 0
    assert benchmark.main(["sharing", "report", "--out", str(out), "--pack", str(again)]) == 0
    assert packed.read_bytes() == again.read_bytes()
    shutil.unpack_archive(packed, tmp_path / "elsewhere", filter="data")
    other = tmp_path / "elsewhere" / out.name
    assert not [path for path in other.rglob("*") if path.suffix in (".safetensors", ".ckpt", ".png")]
    assert benchmark.main(["sharing", "report", "--out", str(other)]) == 0
    for name in ("benchmark.csv", "benchmark.json", "table.md"):
        assert (other / name).read_bytes() == (out / name).read_bytes()
    capsys.readouterr()
    assert benchmark.main(["sharing", *compared, "--out", str(other)]) == 0
    assert "3 of 3 trainings and measurements are finished already" in capsys.readouterr().out
    assert cli.run(benchmark.main, ["sharing", "report", "--out", str(out), "--pack", str(tmp_path / "rows.zip")]) == 2
    assert "rows.zip: give the name of a file that ends in .tar.xz" in capsys.readouterr().err


def test_what_validation_measures_is_what_evaluate_measures(compared: list[str], tmp_path: Path) -> None:
    from tools import evaluate

    out = Path(compared[compared.index("--out") + 1])
    run = next(path.parent for path in out.glob("rpg-stage*/val.json"))
    assert evaluate.main([str(run), "--hold-out", "0", "--device", "cpu", "--json", str(tmp_path / "val.json")]) == 0
    other, own = json.loads((tmp_path / "val.json").read_text()), json.loads((run / "val.json").read_text())
    assert own["label"] == other["data"] == "synthetic val, gt boxes"
    assert own["val"] == pytest.approx(other["val"], abs=1e-6)


def test_rounded_networks_are_measured_and_a_grid_cut_short_says_so(
    compared: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(compared[compared.index("--out") + 1])
    grid, _ = read_grid([*compared[:-3], "4bit", "--seeds", "3,4"], "sharing")
    rounded = next(job for job in grid.jobs() if job.name == "rpg-stage-50pc-t2-4bit-seed3 on val")
    assert isinstance(rounded, Measurement)
    assert measure.main(rounded.command()[2:]) == 0
    assert benchmark.main(["sharing", "report", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if line.startswith("CUT SHORT: "))
    assert "rpg-stage-50pc-t2: seed 4; tied-50pc-t2: seeds 3, 4; signed-50pc-t2: seeds 3, 4; none-t2: seeds 3, 4;" in line
    assert (out / "table.md").read_text().startswith("CUT SHORT: ")
    record = json.loads((out / "benchmark.json").read_text())
    assert record["complete"] is False
    assert record["missing"]["tied-50pc-t2-4bit"] == [3, 4]
    assert record["missing"]["none-t2"] == [3, 4]
    figures = {row["name"]: row["figures"]["3"] for row in record["rows"]}
    exact, rounded_bytes = (figures[f"rpg-stage-50pc-t2{mark}"]["tensor_bytes"] for mark in ("", "-4bit"))
    bank = figures["rpg-stage-50pc-t2"]["parameters.bank"]
    steps = 2 * -(-(bank // 2) // 256)  # of the two stages' banks
    assert exact - rounded_bytes == 4 * bank - bank // 2 - 4 * steps
    whole, packed = (figures[f"rpg-stage-50pc-t2{mark}"]["bytes"] for mark in ("", "-4bit"))
    assert 0 < whole - packed < 4 * bank + 2000  # the same but for the names of tensors
    assert cli.run(benchmark.main, ["sharing", *compared, "--epochs", "2"]) == 2
    assert "`epochs` is 2: the run in" in capsys.readouterr().err


def test_shorter_runs_of_another_seed_may_try_the_rates(
    compared: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = [*compared[:-2], "--seeds", "3,4", "--epochs", "2", "--tuning-epochs", "1", "--tuning-seed", "9"]
    other[other.index("--out") + 1] = str(tmp_path / "out")
    grid, _ = read_grid([*other, "--rows", "tied,rpg-stage"], "sharing")
    tried, known = (("-lr0.001-epochs1-seed9", "-lr0.01-epochs1-seed9"), ("-seed3", "-seed3 on val"))
    later = [f"{name}-50pc-t2{end}" for name in ("tied", "rpg-stage") for end in ("-seed4", "-seed4 on val")]
    first = [f"{name}-50pc-t2{end}" for name in ("tied", "rpg-stage") for end in (*tried, *known)]
    assert [job.name for job in grid.jobs()] == first + later
    assert [job.ready() for job in grid.jobs()] == [True, True, False, False] * 2 + [False] * 4
    assert grid.jobs()[0].cost < grid.jobs()[2].cost
    capsys.readouterr()
    assert benchmark.main(["sharing", "report", "--out", str(tmp_path / "out")]) == 0  # of nothing, as after an early Ctrl-C
    assert "CUT SHORT: 4 of 4 networks" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"] == []


def copied(compared: list[str], out: Path, *forgotten: str) -> list[str]:
    """The command for a copy of its folder, in which files of these names are not."""
    shutil.copytree(Path(compared[compared.index("--out") + 1]), out)
    for name in forgotten:
        (out / name).unlink()
    argv = [*compared]
    argv[argv.index("--out") + 1] = str(out)
    return argv


def test_more_seeds_keep_the_rate_that_was_chosen(
    compared: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = copied(compared, out, "grid.json", "config.yaml")  # what other commands have asked for
    read_grid(argv, "sharing")
    before = json.loads((out / "grid.json").read_text())["rows"]["rpg-stage-50pc-t2"]
    more = [*argv[:-1], "4"]
    without = [word for word in more if word not in ("--rates", "0.001,0.01")]
    for words in (more, without):
        grid, _ = read_grid(words, "sharing")
        assert [job.result() is not None for job in grid.jobs()] == [True, True, False, False]  # tried with seed 3, as before
        assert json.loads((out / "grid.json").read_text())["rows"]["rpg-stage-50pc-t2"] == {**before, "seeds": [3, 4]}
    capsys.readouterr()
    assert benchmark.main(["sharing", "report", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "CUT SHORT: 1 of 2 networks are not there yet (rpg-stage-50pc-t2: seed 4)." in text
    assert f"This goes on: `sharing {shlex.join(without)}`." in text  # the last one that asks for it
    assert f"`sharing {shlex.join(argv)}`" not in text  # it has nothing left to do
    assert list(json.loads((out / "benchmark.json").read_text())["rows"][0]["figures"]) == ["3"]
    stored = (out / "grid.json").read_bytes()
    for flags, message in (
        (["--rates", "0.001,0.02"], "`--rates` is 0.001,0.02: rpg-stage-50pc-t2 in"),
        (["--rates", "0.01"], "has 0.001,0.01; give these and more, or another --out"),
        (["--tuning-seed", "4"], "`--tuning-seed` is 4: rpg-stage-50pc-t2 in"),
        (["--rows", "4bit", "--rates", "0.02"], "`--rates` is 0.02: rpg-stage-50pc-t2 in"),
    ):
        assert cli.run(benchmark.main, ["sharing", *more, *flags]) == 2
        assert message in capsys.readouterr().err
        assert (out / "grid.json").read_bytes() == stored


def test_rates_may_be_added_and_all_are_compared(compared: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = copied(compared, out, "grid.json", "config.yaml")  # what other commands have asked for
    read_grid(before, "sharing")
    argv = [*before]
    argv[argv.index("--rates") + 1] = "0.001,0.01,0.1"
    grid, _ = read_grid(argv, "sharing")
    jobs = {job.name: job for job in grid.jobs()}
    assert [name for name, job in jobs.items() if job.result() is None] == [
        "rpg-stage-50pc-t2-lr0.1-seed3",
        "rpg-stage-50pc-t2-seed3 on val",  # the new rate may be the best one
    ]
    grid.ended(jobs["rpg-stage-50pc-t2-lr0.1-seed3"])  # as a run that came to nothing: the old choice stands
    assert jobs["rpg-stage-50pc-t2-seed3 on val"].result() is not None
    assert Store.read(out).rows["rpg-stage-50pc-t2"].missing == [3]
    stored = json.loads((out / "grid.json").read_text())
    assert list(stored["commands"]) == [f"sharing {shlex.join(argv)}"]  # the one before lacks a rate
    assert stored["rows"]["rpg-stage-50pc-t2"]["rates"] == [0.001, 0.01, 0.1]


def test_a_teacher_is_read_before_anything_is_made_and_stays_the_same(
    compared: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Path(compared[compared.index("--out") + 1])
    one, other = (runs / f"rpg-stage-50pc-t2-lr{rate}-seed3" / "model.safetensors" for rate in ("0.001", "0.01"))
    teacher = tmp_path / "teacher.safetensors"

    def taught(*flags: str) -> list[str]:
        own = ["--out", str(tmp_path / "taught"), "--rows", "none", "--teacher", str(teacher)]
        return [*compared, *own, *flags]

    with pytest.raises(UserError, match=r"`teacher` is .*teacher\.safetensors does not exist"):
        read_grid(taught(), "sharing")
    assert not (tmp_path / "taught").exists()

    shutil.copy(one, teacher)
    read_grid(taught("--out", str(tmp_path / "more"), "--hold-out", "0.5"), "sharing")
    assert "note: `teacher` was trained with hold_out 0.2, these are with 0.5" in capsys.readouterr().out
    read_grid(taught("--teacher-weight", "0.25"), "sharing")
    assert "note: `teacher`" not in capsys.readouterr().out
    assert Report(Store.read(tmp_path / "taught")).label().endswith(f"samples, taught by {teacher} (0.25)")
    shutil.copy(other, teacher)
    with pytest.raises(UserError, match="`teacher`: another network taught those in"):
        read_grid(taught("--teacher-weight", "0.25"), "sharing")


def test_a_folder_has_one_number_of_draws(compared: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    argv = copied(compared, out, "grid.json")
    read_grid(argv, "sharing")
    assert cli.run(benchmark.main, ["sharing", *argv, "--draws", "9"]) == 2
    assert f"`--draws` is 9: the networks in {out} are measured with 5; leave it out" in capsys.readouterr().err
    place = argv.index("--draws")
    grid, _ = read_grid([*argv[:place], *argv[place + 2 :]], "sharing")
    assert grid.draws == 5
    record = next(out.glob("*/val.json"))
    record.write_text(json.dumps({**json.loads(record.read_text()), "draws": 9}))  # as an earlier version allowed it
    assert [job.name for job in grid.jobs() if job.result() is None] == ["rpg-stage-50pc-t2-seed3 on val"]


# ---- chance of the validation set


def test_a_draw_counts_an_image_as_often_as_it_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PCK by the samples' own counts; AP: each image once, or each twice, is AP as it is."""
    import torch

    from rpgmt.data.loader import validation_loader
    from rpgmt.engine.evaluate import validate

    data = pose.DataConfig(root=tmp_path, train_images=1, val_images=6, image_size=48)
    base = pose.Config(data=data, model=dataclasses.replace(TINY, sharing="none"))
    for protocol in ("pck", "coco"):
        task = pose.build(dataclasses.replace(base, evaluation=pose.EvaluationConfig(protocol=protocol)))
        found = validate(task, Guess(task), validation_loader(task.val_data, 1), torch.device("cpu"))
        assert found is not None
        figures = samples.figures(task, found.predictions)
        count = int(figures["image"].max()) + 1
        each = np.arange(count)
        draws = np.stack([each, np.repeat(each, 2)[:count], samples.drawn_images(count, 1)[0]])
        if protocol == "coco":
            draws = np.stack([np.tile(each, 1), each[::-1]])
        monkeypatch.setattr(samples, "drawn_images", lambda count, n, draws=draws: draws)
        values = samples.resampled(task, found.predictions, len(draws))
        score = found.metrics[task.monitor]
        assert score is not None
        assert 0 < score < 1
        if protocol == "coco":
            np.testing.assert_allclose(values, score)
            monkeypatch.setattr(samples, "drawn_images", lambda count, n, each=each: np.stack([np.repeat(each, 2)]))
            np.testing.assert_allclose(samples.resampled(task, found.predictions, 1), score)
            continue
        for drawn, value in zip(draws, values, strict=True):
            times = np.bincount(drawn, minlength=count)[figures["image"]]
            hits, counted = figures["keypoints.hits"], figures["keypoints.counted"]
            assert value == pytest.approx((times * hits).sum() / (times * counted).sum())


class Guess:
    """Built below: torch comes late."""

    def __new__(cls, task: Any) -> Any:
        import torch
        from torch import nn

        class Guessing(nn.Module):
            """Knows where the points of every other sample are."""

            def __init__(self) -> None:
                super().__init__()
                self.number = itertools.count()
                self.bias = nn.Parameter(torch.zeros(1))

            def forward(self, images: Any, stop_after: int | None = None) -> list[dict[str, Any]]:
                sample = task.val_data[0, next(self.number)]
                maps, _ = task.heads["keypoints"].codec.encode(
                    torch.as_tensor(sample["keypoints"])[None], torch.as_tensor(sample["visibility"])[None]
                )
                logits = maps.clamp(min=1e-9).log()
                return [{"keypoints": logits if sample["index"] % 2 else logits.flip(-1)}] * 2

        return Guessing()


# ---- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the task comes first"),
        (["poise"], "the task comes first"),
        (["report", "--out", "nowhere"], "`--out` is nowhere: no comparison of sharing is there"),
        (["pose", "--sharing", "tied"], "`--sharing` is each row's own: leave it out"),
        (["pose", "--lr=1"], "`--lr` is each row's own"),
        (["pose", "--rows", "tyed"], "`--rows` is 'tyed': did you mean `tied`?"),
        (["pose", "--rates", "0.1,x"], "`--rates` is '0.1,x': give different learning rates"),
        (["pose", "--sizes", "25%,a"], "`--sizes` is 'a': not a size"),
        (["pose", "--resume"], "`--resume`: the same command goes on with what is there"),
        (["pose", "--draws", "1"], "`--draws` is 1: give at least 2"),
        (["pose", "--max-steps", "3"], "`--max-steps` and `--patience` end runs early"),
        (["multitask", "--stop-after", "1"], "`--stop-after` is 1: all stages are compared"),
    ],
)
def test_what_the_user_can_mend_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(benchmark.main, ["sharing", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
