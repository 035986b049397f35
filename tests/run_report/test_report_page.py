"""report.html of real runs: what is on the page, by parsing it."""

from __future__ import annotations

import base64
import csv
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from helpers.page_reader import Element, read_page
from run_report.conftest import TINY

from rpgmt import cli
from rpgmt.config import from_dict
from rpgmt.config.presets import ROOT
from rpgmt.engine.model_file import read_config
from tools import evaluate, report, train

GOLDEN = Path(__file__).parents[1] / "golden" / "runs_0_1"
SECTIONS = ["run", "metrics", "curves", "parameters", "predictions", "stages"]


def page_of(folder: Path) -> Element:
    return read_page((folder / "report.html").read_text(encoding="utf-8"))


def record(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def made(tmp_path: Path, *runs: Path) -> Element:
    """The page that the tool makes of runs."""
    assert report.main([*map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    return read_page((tmp_path / "page.html").read_text(encoding="utf-8"))


def shown(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


# ---- one run


def test_training_leaves_a_page_with_every_section(pose: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = page_of(pose)
    assert [section.attributes["id"] for section in page.all("section")] == SECTIONS
    assert [link.attributes["href"] for link in page.all("nav")[0].all("a")] == [f"#{name}" for name in SECTIONS]
    assert page.all("h1")[0].text == "pose-1 · pose · 2 stages · sharing rpg"
    assert (pose / "report.html").stat().st_size < 3_000_000
    assert report.main([str(pose)]) == 0
    assert capsys.readouterr().out == f"written: {pose / 'report.html'}\n"
    assert page_of(pose) == page


def test_the_end_of_training_names_the_report(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train.main(["pose", *TINY, "--data-root", str(root), "--max-steps", "1", "--out", str(out)]) == 0
    assert f"look at:  {out / 'report.html'}\n" in capsys.readouterr().out


def test_it_says_what_was_trained_how_and_on_what(pose: Path) -> None:
    run, found = page_of(pose).by_id("run"), record(pose)
    command = run.all("pre")[0]
    assert "train.py" in command.text or "pytest" in command.text
    assert f" pose {' '.join(TINY)} " in command.text
    assert command.text.endswith(f"--epochs 3 --ema 0.5 --out {pose}")
    assert command.text in (pose / "commands.txt").read_text().splitlines()
    facts = run.table("What was trained").rows()
    people = (found["data"]["train_people"], found["data"]["val_people"])
    assert facts["data"] == ["synthetic; boxes gt boxes; train people {}; val people {}".format(*people)]
    assert (facts["seed"], facts["steps"]) == ([str(found["seed"])], [str(found["steps"])])
    assert all(f"{name} {version}" in facts["versions"][0] for name, version in found["versions"].items() if version)
    assert facts["hardware"][0].startswith("cpu; ")
    assert found["hardware"]["processes"] == 1
    assert re.fullmatch(r"\d+:\d\d:\d\d", facts["time"][0])
    assert yaml.safe_load(run.all("details")[0].all("code")[0].text)["model"]["stages"] == 2


def test_the_metrics_are_those_of_metrics_json(pose: Path, multitask: Path) -> None:
    val = record(pose)["val"]
    rows = page_of(pose).by_id("metrics").table("Last validation").rows()
    assert rows == {name: [shown(val[f"stage_{k}/{name}"]) for k in (1, 2)] for name in val if "/" not in name}
    page, val = page_of(multitask).by_id("metrics"), record(multitask)["val"]
    for task in ("keypoints", "segmentation", "depth", "normals"):
        names = [name for name in val if name.startswith(f"{task}.") and ":" not in name]
        expected = {
            name.removeprefix(f"{task}."): [
                f"{val[f'stage_{k}/{name}']:.3f}" if val[name] is not None else "n/a" for k in (1, 2)
            ]
            for name in names
        }
        assert page.table(f"{task}, by stage").rows() == expected
    assert page.table("Last validation, by stage").rows().keys() == {"score"}
    parts = page.table("keypoints.PCK@0.2 of each part").rows()
    assert parts["left_ankle"][:2] == [shown(val[f"stage_{k}/keypoints.PCK@0.2:left_ankle"]) for k in (1, 2)]
    assert len(parts) == 17
    assert set(page.table("segmentation.mIoU of each part").rows()) == {"background", "person"}


def test_the_best_stage_of_each_metric_is_bold(multitask: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(multitask, run)
    found = record(run)
    values = {"keypoints.AP": (0.7, 0.6), "depth.rmse": (0.3, 0.4), "normals.mean": (30, 20), "depth.delta1": (0.2, 0.8)}
    values |= {"score": (0.5, 0.5), "keypoints.AR": (None, 0.5)}
    for name, of_stages in values.items():
        found["val"] |= {f"stage_{k}/{name}": value for k, value in enumerate(of_stages, 1)} | {name: of_stages[1]}
    (run / "metrics.json").write_text(json.dumps(found))
    page = made(tmp_path, run).by_id("metrics")
    bold = {}
    for task in ("keypoints", "depth", "normals", "Last validation"):
        for row in page.table(f"{task}, by stage").all("tbody")[0].all("tr"):
            bold[row.all("th")[0].text] = [bool(cell.all("b")) for cell in row.all("td")]
    first, second, none = [True, False], [False, True], [False, False]
    expected = {"AP": first, "rmse": first, "mean": second, "delta1": second, "score": none, "AR": none}
    assert {name: bold[name] for name in expected} == expected


def test_where_metrics_know_no_joints_the_gallerys_figures_do(pose: Path) -> None:
    parts = page_of(pose).by_id("metrics").table("Mean OKS of each part").rows()
    (group,) = json.loads((pose / "gallery/gallery.json").read_text())["groups"]
    assert {name: cells[:2] for name, cells in parts.items()} == {
        name: list(map(shown, v)) for name, v in group["parts"].items()
    }
    assert len(parts) == 17
    bars = re.findall(r"--part: ([\d.]+)%", (pose / "report.html").read_text())
    assert [float(bar) / 100 for bar in bars] == [
        pytest.approx(v[-1], abs=1e-3) for v in group["parts"].values() if v[-1] is not None
    ]


def test_best_and_last_step_are_those_of_the_curve(multitask: Path, tmp_path: Path) -> None:
    """The first of the metrics is the one by which training keeps the best weights."""
    run = tmp_path / "run"
    shutil.copytree(multitask, run)
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/score"]]
    assert len(rows) == 1
    with (run / "metrics.csv").open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        for step, score in ((9, 0.75), (12, 0.5)):
            writer.writerow({**rows[0], "step": step, "val/score": score, "val/stage_2/score": score})
    page = made(tmp_path, run)
    assert "score is best at step 9, 0.750; at the last step, 12, it is 0.500." in page.by_id("metrics").text
    tiles = {box.all("dt")[0].text: box.all("dd")[0].text for box in page.all("dl")[0].all("div")}
    assert tiles["score, best step: 9"] == "0.750"


@pytest.mark.parametrize("task", ["pose", "multitask", "classification"])
def test_the_first_metric_is_the_one_that_chooses_the_best_step(task: str) -> None:
    saved = read_config(GOLDEN / task)
    module = importlib.import_module(f"tasks.{saved.pop('task')}")
    config = from_dict(module.Config, saved)
    built = module.build(config) if task != "classification" else module.ClassificationTask
    assert next(iter(record(GOLDEN / task)["val"])) == built.monitor


def test_the_counting_table_says_smaller_than_what(pose: Path) -> None:
    section, found = page_of(pose).by_id("parameters"), record(pose)
    counts = found["parameters"]
    rows = section.table("The network in numbers").rows()
    names = {"bank N": "bank", "generated M": "generated", "fixed": "fixed", "trainable": "trainable"}
    assert {name: rows[name][0] for name in names} == {name: f"{counts[key]:,}" for name, key in names.items()}
    assert rows["MACs"][0] == f"{found['macs']:,}"
    assert rows["bytes"][0] == f"{found['bytes']['model_file']:,}"
    assert int(rows["buffers"][0].replace(",", "")) > 0
    plain = counts["generated"] + counts["fixed"]
    assert (
        f"{1 - counts['trainable'] / plain:.1%} smaller than the {plain:,} of the same network without sharing" in section.text
    )
    assert "stored and communicated; the multiply-accumulates stay the same" in section.text


@pytest.mark.parametrize("times", [0.5, 1, 9])
def test_the_first_figures_say_whether_the_bank_saves(times: float, pose: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(pose, run)
    found = record(run)
    counts = found["parameters"]
    counts["trainable"] = int(times * (counts["generated"] + counts["fixed"]))
    (run / "metrics.json").write_text(json.dumps(found))
    page = made(tmp_path, run)
    tiles = {box.all("dt")[0].text: box.all("dd")[0].text for box in page.all("dl")[0].all("div")}
    name = f"of the parameters without sharing: {'stored and communicated' if times < 1 else 'nothing is saved'}"
    assert float(tiles[name].rstrip("%")) == pytest.approx(100 * times, abs=0.1)
    assert ("nothing is saved" in page.by_id("parameters").text) == (times >= 1)


def test_every_curve_of_the_table_is_drawn_and_described(pose: Path) -> None:
    with (pose / "metrics.csv").open() as file:
        columns = {name for name, cell in list(csv.DictReader(file))[-1].items() if cell} - {"step", "epoch", "seconds"}
    panels = {"/".join(p for p in name.split("/") if not p.startswith("stage_")) for name in columns}
    drawings = page_of(pose).by_id("curves").all("svg")
    assert {drawing.attributes["aria-label"].partition(" over ")[0] for drawing in drawings} == panels
    by_name = {drawing.attributes["aria-label"].partition(" over ")[0]: drawing for drawing in drawings}
    assert len(by_name["val/loss/keypoints"].all("polyline")) == 2  # a line a stage
    for drawing in drawings:
        for line in drawing.all("polyline"):
            assert len(line.attributes["points"].split()) >= 1
            assert all(0 <= float(n) <= 360 for pair in line.attributes["points"].split() for n in pair.split(","))


# ---- pictures


@pytest.mark.parametrize(("task", "tasks", "each"), [("pose", 1, 2), ("multitask", 4, 1)])
def test_the_gallery_has_best_median_and_worst_of_every_task(
    task: str, tasks: int, each: int, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(task)
    section = page_of(folder).by_id("predictions")
    groups = json.loads((folder / "gallery/gallery.json").read_text())["groups"]
    assert len(groups) == len(section.all("h3")) == tasks
    images = section.all("img")
    assert len(images) == tasks * 3 * each * 4  # image, labels and two stages
    expected = [p["size"] for group in groups for row in group["rows"] for p in row["pictures"]]
    for image, size in zip(images, expected, strict=True):
        kind, _, data = image.attributes["src"].partition(",")
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data, validate=True), np.uint8), cv2.IMREAD_COLOR)
        assert kind == "data:image/webp;base64"
        assert picture is not None
        assert [picture.shape[1], picture.shape[0]] == size == [int(image.attributes[side]) for side in ("width", "height")]
        assert max(size) <= 256
    alts = [image.attributes["alt"] for image in images]
    assert len(set(alts)) == len(alts)
    for group in groups:
        assert [row["rank"] for row in group["rows"]] == [rank for rank in ("best", "median", "worst") for _ in range(each)]
        last = [row["pictures"][-1]["figure"] for row in group["rows"]]
        assert last == sorted(last, reverse=group["higher"])
        low, middle, high = group["spread"][-1]
        best, worst = (max(last), min(last)) if group["higher"] else (min(last), max(last))
        assert min(best, worst) <= low <= middle <= high <= max(best, worst)
        assert len({row["sample"] for row in group["rows"]}) == 3 * each
        assert group["samples"] > 3


def test_evaluation_draws_the_same_gallery(pose: Path, tmp_path: Path) -> None:
    """A moving average is what training measured, and so what both draw."""
    assert evaluate.main([str(pose), "--pictures", str(tmp_path), "--device", "cpu", "--batch-size", "3"]) == 0
    both = [json.loads((folder / "gallery/gallery.json").read_text())["groups"][0] for folder in (pose, tmp_path)]
    assert [row["sample"] for row in both[0]["rows"]] == [row["sample"] for row in both[1]["rows"]]
    assert np.allclose(both[0]["spread"], both[1]["spread"], atol=1e-3)
    for row in both[0]["rows"]:
        for file in (picture["file"] for picture in row["pictures"]):
            one, other = (cv2.imread(str(folder / "gallery" / file)) for folder in (pose, tmp_path))
            assert one is not None
            assert np.abs(one.astype(int) - other).mean() < 2


def test_a_page_has_room_for_so_many_pictures(pose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [path.stat().st_size for path in sorted((pose / "gallery").glob("keypoints-1-*.webp"))]
    monkeypatch.setattr("rpgmt.run_report.page.PICTURE_BYTES", sum(sizes))
    section = made(tmp_path, pose).by_id("predictions")
    assert len(section.all("img")) == 4
    assert f"5 more rows of pictures are in {pose / 'gallery'}." in section.text


# ---- what a page may hold


def test_names_are_text_whatever_they_hold(pose: Path, tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
    run = tmp_path / '<b>run & "co"\''
    shutil.copytree(pose, run)
    found = record(run)
    found["val"][f"AP:{bad}"] = 0.5
    found["data"][bad] = bad
    (run / "metrics.json").write_text(json.dumps(found))
    gallery = json.loads((run / "gallery/gallery.json").read_text())
    gallery["groups"][0]["rows"][0]["sample"] = gallery["groups"][0]["name"] = bad
    (run / "gallery/gallery.json").write_text(json.dumps(gallery))
    (run / "commands.txt").write_text(f"# today\ntrain.py {bad}\n")
    for page in (made(tmp_path, run), made(tmp_path, run, pose)):
        names = {element.name for element in page.everything()}
        assert not names & {"script", "b<"}
        assert all(image.attributes["src"].startswith("data:image/webp;base64,") for image in page.all("img"))
        assert not [e for e in page.everything() if any(name.startswith("on") for name in e.attributes)]
        assert page.text.count(bad) >= 3
        assert run.name in page.text


def test_the_page_needs_nothing_else(pose: Path) -> None:
    text = (pose / "report.html").read_text()
    page = read_page(text)
    assert not page.all("script")
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    (policy,) = [meta.attributes["content"] for meta in page.all("meta") if "http-equiv" in meta.attributes]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert page.all("html")[0].attributes["lang"] == "en"
    for table in page.all("table"):
        assert table.all("caption")[0].text
        assert all(cell.attributes["scope"] in ("row", "col") for cell in table.all("th"))
    ids = [e.attributes["id"] for e in page.everything() if "id" in e.attributes]
    assert len(set(ids)) == len(ids)


# ---- commands


def test_a_run_that_went_on_keeps_all_its_commands(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["pose", *TINY, "--data-root", str(root), "--out", str(out), "--max-steps"]
    assert train.main([*flags, "1"]) == 0
    assert train.main([*flags, "2", "--resume"]) == 0
    assert train.main([*flags, "2", "--resume"]) == 0  # which is finished, and so goes on with nothing
    first, second = page_of(out).by_id("run").all("pre")[:2]
    assert first.text.endswith("--max-steps 1")
    assert second.text.endswith("--max-steps 2 --resume")
    notes = [p.text for p in page_of(out).by_id("run").all("p")]
    assert [note.rpartition(", ")[2] for note in notes] == ["at step 0", "at step 1"]
    assert notes[1].startswith("Gone on with ")


# ---- several runs, old ones, unfinished ones


def test_runs_side_by_side(pose: Path, multitask: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(pose, other)
    (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("\n  seed: 0", "\n  seed: 5"))
    page = made(tmp_path, pose, other, multitask)
    table = page.table("Each run's last validation")
    assert [cell.text for cell in table.all("thead")[0].all("th")] == ["", "pose-1", "other", "multitask-1"]
    rows = table.rows()
    aps = [shown(record(run)["val"][name]) for run, name in ((pose, "AP"), (multitask, "keypoints.AP"))]
    assert rows["keypoints.AP"] == [aps[0], *aps]
    assert "AP" not in rows
    assert rows["score"] == ["–", "–", shown(record(multitask)["val"]["score"])]
    assert rows["trainable parameters"] == [f"{record(run)['parameters']['trainable']:,}" for run in (pose, pose, multitask)]
    differences = page.table("Keys of config.yaml").rows()
    assert differences["task"] == ["pose", "pose", "multitask"]
    assert differences["train.seed"] == ["0", "5", "0"]
    curves = {
        svg.attributes["aria-label"].partition(" over ")[0]: svg for svg in page.all("main")[0].all("section")[2].all("svg")
    }
    assert len(curves["train/loss"].all("polyline")) == 3
    assert len(curves["val/keypoints.AP"].all("polyline")) == 3
    assert "val/AP" not in curves
    wholes = [details for details in page.all("details") if "the whole report" in details.all("summary")[0].text]
    assert len(wholes) == 3
    assert all("Pearson" in whole.text and whole.all("img") for whole in wholes)
    assert (tmp_path / "page.html").stat().st_size < 3_000_000
    assert made(tmp_path, pose, other).table("Each run's last validation").rows()["AP"] == [aps[0]] * 2


@pytest.mark.parametrize("task", ["pose", "multitask", "classification"])
def test_runs_of_version_0_1_have_a_page(task: str, tmp_path: Path) -> None:
    page, found = made(tmp_path, GOLDEN / task), record(GOLDEN / task)
    assert page.table("The network in numbers").rows()["bank N"][0] == f"{found['parameters']['bank']:,}"
    assert "Its command was not recorded." in page.by_id("run").text
    ids = {section.attributes.get("id") for section in page.all("section")}
    more = {"pose": {"curves", "stages"}, "multitask": {"stages"}, "classification": set()}
    assert ids == {"run", "metrics", "parameters"} | more[task]
    assert not list((GOLDEN / task).glob("report.html"))


def test_a_run_that_has_just_begun_has_a_page(pose: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(pose / "config.yaml", run)
    page = made(tmp_path, run)
    assert [section.attributes["id"] for section in page.all("section")] == ["run"]
    shutil.copy(pose / "metrics.csv", run)
    assert [section.attributes["id"] for section in made(tmp_path, run).all("section")] == ["run", "curves"]


# ---- the tool


def test_bad_input_is_one_line(pose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(pose, broken)
    (broken / "metrics.json").write_text("{")
    (tmp_path / "list").mkdir()
    shutil.copy(pose / "config.yaml", tmp_path / "list")
    (tmp_path / "list/metrics.json").write_text("[]")
    cases = {
        "nothing": ([str(tmp_path / "no")], "is no folder: give the folders of runs"),
        "empty": ([str(tmp_path)], "holds no config.yaml: give the folders of runs"),
        "twice": ([str(pose), f"{pose}/../{pose.name}"], "is given twice"),
        "broken": ([str(broken)], "metrics.json: not JSON"),
        "list": ([str(tmp_path / "list")], "is not what a run writes"),
        "folder": ([str(pose), "--out", str(tmp_path)], "is a folder: give the name of a file in it"),
        "none": ([], "the following arguments are required: RUN"),
        "flag": ([str(pose), "--ouf", "x"], "`--ouf` is not a flag"),
    }
    for argv, says in cases.values():
        assert cli.run(report.main, argv, "report.py") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("report.py: ")
        assert says in line


def test_help_comes_at_once_and_loads_nothing() -> None:
    code = (
        "import sys, time, runpy; sys.argv = ['report.py', '--help']\n"
        "try:\n    runpy.run_path(r'{path}', run_name='__main__')\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {{'torch', 'cv2', 'matplotlib'}} & sys.modules.keys(), 'heavy'\n"
        "print('seconds', time.process_time())"
    ).format(path=ROOT / "tools" / "report.py")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert float(done.stdout.split()[-1]) < 1  # of work: the machine may be busy with other tests
