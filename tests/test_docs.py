"""What the README and the pages of docs/ say is true: their code runs, their commands are legal, their links lead somewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import re
import runpy
import shlex
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.videos import write_video

import rpgmt
import tasks
from rpgmt import cli
from rpgmt.config import to_dict
from rpgmt.config.presets import CONFIGS, ROOT
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.engine.model_file import save_model
from rpgmt.models import build
from rpgmt.prediction.meaning import KeypointMaps, Reading
from tools import benchmark, data, demo, evaluate, export, predict, report, summary, train

README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
TOOLS = {
    "benchmark": benchmark,
    "data": data,
    "demo": demo,
    "evaluate": evaluate,
    "export": export,
    "predict": predict,
    "report": report,
    "summary": summary,
    "train": train,
}
TASKS = cli.find_tasks(tasks)
OF_UV = {"--torch-backend", "--group", "--no-sync"}
TINY = ["--stages", "2", "--channels", "8", "--depth", "1", "--rpg-size", "50%", "--input-size", "32,32"]
TINY += ["--batch-size", "2", "--max-steps", "1", "--warmup-steps", "0", "--workers", "0", "--device", "cpu"]

KEYPOINT_MAPS = KeypointMaps(keypoints=COCO_KEYPOINTS, codec="heatmap", stride=4, sigma=1.0, logits=True, flip_shift=0)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", text(page), flags=re.DOTALL | re.MULTILINE)


def quoted(page: Path) -> list[str]:
    """What stands between backticks, on one line each."""
    return [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", prose(page))]


def commands() -> list[tuple[str, str]]:
    """Every page's commands of tools, whole: in blocks of the shell, and between backticks as tools/….py, or as `rpgmt …`."""
    found = set()
    for page in PAGES:
        lines = [line for block in blocks(page, "bash") for line in block.splitlines()] + quoted(page)
        for line in lines:
            if match := re.search(r"(?:^|\s)(?:tools/|rpgmt )(\w+)(?:\.py)? (.*)|(?:^|\s)tools/(\w+)\.py$", line):
                tool, arguments = (match[1], match[2]) if match[1] else (match[3], "")
                found.add((page.name, f"{tool} {arguments}".strip()))
    return sorted(found)


@functools.cache
def flags_of(*words: str) -> frozenset[str]:
    """The flags that `--help` of a tool lists."""
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as end:
        TOOLS[words[0]].main([*words[1:], "--help"])
    assert end.value.code in (0, None)
    return frozenset(re.findall(r"--[a-z][a-z0-9-]*", out.getvalue()))


def all_flags() -> frozenset[str]:
    words = [
        ("demo",),
        ("evaluate",),
        ("export",),
        ("predict",),
        ("report",),
        ("summary",),
        *(("data", verb) for verb in ("synthetic", "check", "convert")),
        *(("train", task) for task in TASKS),
    ]
    words += [("benchmark", kind) for kind in ("generation", "step", "loader", "predict", "multitask", "classification")]
    words += [("benchmark", "sharing", task) for task in ("pose", "multitask", "report")]
    return frozenset().union(*(flags_of(*name) for name in words))


def test_there_are_pages_and_commands() -> None:
    assert len(PAGES) > 9
    assert len(commands()) > 25
    assert {command.split()[0] for _, command in commands()} == set(TOOLS)


def test_the_readme_is_short() -> None:
    assert len(text(README).splitlines()) <= 140
    assert len(text(README).split()) <= 1250


def test_the_readme_has_the_two_commands() -> None:
    starts = [line for block in blocks(README, "bash") for line in block.splitlines()]
    assert starts[:2] == [
        "pip install uv && uv run tools/train.py pose --stages 4 --rpg-size 1M",
        "pip install uv && uv run pytest",
    ]


@pytest.mark.parametrize(("page", "command"), commands())
def test_the_commands_are_legal(page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(*blocks(DOCS / "recipes.md", "yaml"))
    tool, *arguments = shlex.split(re.sub(r"\[(.*?)\]", r"\1", command))
    if tool == "train":
        name, config = cli.parse_train(arguments, TASKS)
        assert name != "pose" or set(config.model.with_heads().heads) == {"keypoints"}
        if page == "README.md" and "coco_json" not in arguments:
            assert (name, config.model.stages) == ("pose", 4)
        return
    if tool == "benchmark":
        known = flags_of(tool, *arguments[: 2 if arguments[0] == "sharing" else 1])
    elif tool == "data":
        known = flags_of("data", arguments.pop(0))
    elif tool == "summary" and arguments[0] in TASKS:
        cli.parse_train(arguments, TASKS)
        return
    else:
        known = flags_of(tool)
    assert {word for word in arguments if word.startswith("-")} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_flags_exist(page: Path) -> None:
    """All that is called a flag, wherever it stands, is one of some tool."""
    named = {flag for words in quoted(page) for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", words)}
    assert named <= all_flags() | OF_UV


def test_the_presets_that_are_named_exist() -> None:
    named = {words for page in PAGES for words in quoted(page) if re.fullmatch(r"configs/\w+/\w+\.yaml", words)}
    assert named
    assert all((ROOT / preset).is_file() for preset in named), named


def test_every_preset_is_in_the_recipes() -> None:
    named = set(quoted(DOCS / "recipes.md"))
    assert {path.stem for path in CONFIGS.rglob("*.yaml")} <= named


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photograph and the model that the main command makes, untrained."""
    monkeypatch.chdir(tmp_path)
    name, config = cli.parse_train(["pose", "--stages", "4", "--rpg-size", "1M"], TASKS)
    run = tmp_path / "runs" / f"{name}-1"
    run.mkdir(parents=True)
    config = dataclasses.replace(config, model=config.model.with_heads())
    reading = Reading(input_size=config.model.input_size, cut="people", heads={"keypoints": KEYPOINT_MAPS})
    save_model(run / "model.safetensors", build(config.model), {"task": name, **to_dict(config)}, reading)
    cv2.imwrite("photo.jpg", np.random.default_rng(0).integers(0, 255, (120, 90, 3), np.uint8))
    return tmp_path


def run_python(page: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for code in blocks(page, "python"):
            exec(code, names)
    return names


def test_the_readme_uses_a_model(workplace: Path) -> None:
    names = run_python(README)
    people = names["people"]
    assert people.keypoints.shape == (1, 17, 2)
    assert len(people.stages) == 4
    assert names["picture"].shape == (120, 90, 3)


def test_what_the_readme_does_with_a_model_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands in their order, on a model that is trained first; but for the demo, which does not end by itself."""
    monkeypatch.chdir(tmp_path)
    people = ["--train-images", "4", "--val-images", "4"]
    for number in (1, 2):
        assert train.main(["pose", *TINY, *people, "--out", f"runs/pose-{number}"]) == 0
    write_images(Path(), "photo.jpg")
    section = README.read_text().partition("## Use a model")[2].partition("\n## ")[0]
    commands = re.findall(r"uv run tools/(\w+)\.py ([^`\n]+)", section)
    assert [tool for tool, _ in commands] == ["predict", "evaluate", "report", "export", "demo"]
    for tool, words in commands[:-1]:
        assert cli.run(TOOLS[tool].main, shlex.split(words)) == 0, tool
    for written in ("predictions/1/results.json", "report.html", "runs/pose-1/model.onnx"):
        assert Path(written).is_file(), written


def test_a_detector_finds_and_a_tracker_follows(workplace: Path) -> None:
    from helpers.box_detector import box_detector, draw  # which needs an extra

    box_detector(workplace / "detector.onnx")
    cv2.imwrite(str(workplace / "photo.jpg"), draw((48, 64), [(16, 16, 16, 16)])[..., ::-1])
    names = run_python(DOCS / "detectors.md")
    assert np.allclose(names["found"].boxes, [[16, 16, 16, 16]], rtol=0, atol=1.5)  # JPEG
    assert names["ids"].tolist() == [1]


def test_the_loop_runs_and_leaves_a_plain_network(capsys: pytest.CaptureFixture[str]) -> None:
    code, *_ = blocks(DOCS / "own-loop.md", "python")
    names = run_python(DOCS / "own-loop.md")
    shown = capsys.readouterr().out
    ((bank, generated, fixed),) = (map(int, line.split()) for line in shown.splitlines() if re.fullmatch(r"\d+ \d+ \d+", line))
    assert bank == round(generated / 4)
    assert fixed > 0
    assert "weights before: drawn anew" in shown
    assert "weights before: projected" in shown
    (signed,) = (int(line) for line in shown.splitlines() if re.fullmatch(r"\d+", line))
    assert signed == (32 * 3 * 9 + 64 * 32 * 9) // 4
    for network in (names["model"], names["network"]):
        assert type(network[0]).__name__ == "Conv2d"
    assert len([line for line in code.splitlines() if line]) <= 15


def test_the_commands_of_predict_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as it is written, but for the detector, whose weights would be downloaded, and the camera, which is a video."""
    from helpers.box_detector import box_detector  # which needs an extra

    monkeypatch.chdir(tmp_path)
    _, config = cli.parse_train(["pose", *TINY], TASKS)
    config = dataclasses.replace(config, model=config.model.with_heads())
    heads = {"keypoints": KEYPOINT_MAPS}
    reading = Reading(input_size=config.model.input_size, cut="people", heads=heads)
    for name in ("model.safetensors", "best.safetensors"):
        Path("runs/pose-1").mkdir(parents=True, exist_ok=True)
        save_model(Path("runs/pose-1") / name, build(config.model), {"task": "pose", **to_dict(config)}, reading)
    box_detector(tmp_path / "boxes.onnx", labels=[1, 2, 2])
    write_images(Path("photos"), "1.jpg", "2.jpg")
    write_images(Path(), "photo.jpg")
    write_video(tmp_path / "dance.mp4", 4)
    document = json.loads(*blocks(DOCS / "own-data.md", "json"))
    document["images"][0]["file_name"] = "photos/2.jpg"
    Path("annotations.json").write_text(json.dumps(document))
    (block,) = blocks(DOCS / "predict.md", "bash")
    for number, line in enumerate(block.splitlines()):
        words = shlex.split(line)[3:]
        words = [{"ssdlite": "boxes.onnx", "0": "dance.mp4"}.get(word, word) for word in words]
        status = cli.run(predict.main, [*words, "--device", "cpu"])
        assert status == (1 if "--boxes" in words else 0)  # one photo has no annotations
        out = Path("results" if "--out" in words else f"predictions/{number + 1 - (number > 2)}")
        assert json.loads((out / "images.json").read_text())["categories"][0]["keypoints"]
        assert any((out / folder).is_dir() for folder in ("pictures", "videos"))


def test_all_python_runs_and_what_it_calls_exists() -> None:
    with_code = [page.name for page in PAGES if blocks(page, "python")]
    # Each has a test above; that of the export is tests/tools/test_export.py, which has a file to run it on.
    assert sorted(with_code) == ["README.md", "detectors.md", "export.md", "own-loop.md"]
    for name in re.findall(r"`(\w+)(?:\(|`)", prose(DOCS / "own-loop.md").partition("| function |")[2].partition("\n\n")[0]):
        assert hasattr(rpgmt, name), name


def write_images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / name), np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))


def test_the_key_points_of_the_example_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (document,) = map(json.loads, blocks(DOCS / "own-data.md", "json"))
    command = next(line for block in blocks(DOCS / "own-data.md", "bash") for line in block.splitlines() if "coco_json" in line)
    (person,) = document["annotations"]
    document["annotations"] = [person, {**person, "id": 2}]
    for split in ("train", "val"):
        (tmp_path / f"person_keypoints_{split}.json").write_text(json.dumps(document))
    write_images(tmp_path / "images", "cat.jpg")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.replace("DIR", str(tmp_path)))
    assert train.main([*words[words.index("pose") :], *TINY, "--out", "run"]) == 0
    assert set(torch.nn.Module.state_dict(rpgmt.load("run"))) >= {"heads.0.keypoints.weight"}


def test_the_folders_of_the_example_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (description,) = blocks(DOCS / "own-data.md", "yaml")
    command = next(line for block in blocks(DOCS / "own-data.md", "bash") for line in block.splitlines() if "folders" in line)
    (tmp_path / "dataset.yaml").write_text(description)
    names, (document,) = ("cat.png", "dog.png"), map(json.loads, blocks(DOCS / "own-data.md", "json"))
    document["images"] = [{**document["images"][0], "id": i, "file_name": name} for i, name in enumerate(names)]
    document["annotations"] = [{**document["annotations"][0], "id": i, "image_id": i} for i in range(len(names))]
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"annotations/person_keypoints_{split}.json").write_text(json.dumps(document))
        (tmp_path / f"scenes_{split}.csv").write_text("image,class\ncat.png,indoor\ndog.png,outdoor\n")
        write_images(tmp_path / "images" / split, *names)
        maps = {"masks": np.eye(48, 64, dtype=np.uint8), "depth": np.full((48, 64), 1500, np.uint16)}
        for folder, labels in maps.items():
            (tmp_path / folder / split).mkdir(parents=True)
            for name in names:
                cv2.imwrite(str(tmp_path / folder / split / name), labels)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.replace("DIR", str(tmp_path)))
    assert train.main([*words[words.index("multitask") :], *TINY, "--out", "run"]) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())["val"]
    assert {"keypoints.AP", "segmentation.mIoU", "depth.abs", "scene.accuracy"} <= set(metrics)


def test_the_preset_of_the_example_is_one(tmp_path: Path) -> None:
    (preset,) = blocks(DOCS / "recipes.md", "yaml")
    (tmp_path / "mine.yaml").write_text(preset)
    _, config = cli.parse_train(["pose", "--config", str(tmp_path / "mine.yaml")], TASKS)
    assert (config.model.heads, config.data.root) == ({"keypoints": 12}, Path("my-data"))


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", prose(page))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "RESULTS.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve()
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_pages_and_readme_link_each_other() -> None:
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= set(links(README))
    for page in PAGES[1:]:
        assert "../README.md" in links(page), page.name
        assert sum(link.partition("#")[0].endswith(".md") for link in links(page)) > 2, page.name  # and its neighbours


def test_pictures_are_small_and_shown() -> None:
    pages = [*PAGES, ROOT / "RESULTS.md"]
    shown = {Path(link).name for page in pages for link in links(page) if link.endswith(".png")}
    pictures = {picture.name: picture for picture in DOCS.iterdir() if picture.suffix == ".png"}
    assert set(pictures) == shown
    assert all(picture.stat().st_size <= 300_000 for picture in pictures.values())
    assert {path.suffix for path in DOCS.iterdir() if path.is_file()} == {".md", ".png", ".py"}


@pytest.mark.parametrize("rows", sorted((DOCS / "rows").iterdir()), ids=lambda path: path.name)
def test_stored_rows_are_named_and_make_the_figures_that_are_told(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = text(ROOT / "RESULTS.md")
    assert f"docs/rows/{rows.name}" in results
    shutil.unpack_archive(rows, tmp_path, filter="data")
    (out,) = tmp_path.iterdir()
    assert benchmark.main(["sharing", "report", "--out", str(out), "--json", str(tmp_path / "figures.json")]) == 0
    assert "CUT SHORT" not in capsys.readouterr().out
    record = json.loads((tmp_path / "figures.json").read_text())
    for row in record["rows"]:
        scores = ", ".join(f"{100 * figures[record['monitor']]:.2f}" for figures in row["figures"].values())
        assert scores in results  # by seed


def test_the_picture_of_the_readme_is_made_of_the_others() -> None:
    compose: Callable[[], np.ndarray] = runpy.run_path(str(DOCS / "front.py"))["compose"]
    assert np.array_equal(cv2.imread(str(DOCS / "front.png")), compose())


def test_the_tree_is_the_tree() -> None:
    """All that it names exists, and no folder of the library or of the project is missing in it."""
    (tree,) = [block for block in blocks(DOCS / "design.md", "") if block.startswith("rpgmt/  ")]
    parent, named = ROOT, set()
    for line in tree.splitlines():
        match = re.fullmatch(r"(  )?([\w.]+/?)( {2,}.*)?", line)
        assert match, line
        if not match[1]:
            parent = ROOT / match[2]
        place = parent / match[2] if match[1] else parent
        assert place.is_dir() if match[2].endswith("/") else place.is_file(), line
        named.add(place)
    wanted = {path.parent for path in (ROOT / "rpgmt").glob("*/__init__.py")} | set(ROOT.glob("tasks/[a-z]*.py"))
    wanted |= {ROOT / name for name in ("rpgmt", "tasks", "configs", "tools", "tests", "docs")}
    assert not wanted - named, "a line in the tree of docs/design.md is missing"
