"""No data set chooses what is read of the machine: names, paths and links that lead out of its folders are refused."""

from __future__ import annotations

import base64
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from helpers.labelled_set import random_document, write_set
from helpers.people_files import write_mpii

from rpgmt.data.catalog import read_multitask_set, read_people
from rpgmt.data.check.examination import examine
from rpgmt.data.convert.conversion import convert
from rpgmt.data.file_names import ALLOWED, file_inside
from rpgmt.data.sets.image_classes import read_folder
from rpgmt.errors import UserError
from rpgmt.run_report.page import page
from rpgmt.run_report.runs import read_runs
from tools.data import main as data_tool

SIZE = {"width": 40, "height": 30}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """An image that is nobody's business, outside of the data root."""
    path = tmp_path / "private/secret.jpg"
    path.parent.mkdir()
    assert cv2.imwrite(str(path), np.full((SIZE["height"], SIZE["width"], 3), 77, np.uint8))
    return path


def labelled_people() -> dict[str, Any]:
    document = random_document(np.random.default_rng(0), 2, least=1)
    document["categories"][0]["sigmas"] = [0.05] * 6
    return document


def write(root: Path, name: str, **more: Any) -> None:
    """People whose first image is called so, and is of the secret's size."""
    document = labelled_people()
    write_set(root, {"train": document})
    document["images"][0] |= {"file_name": name, **SIZE}
    document["annotations"][0] |= {"bbox": [2, 2, 20, 20], **more}
    (root / "annotations/person_keypoints_train.json").write_text(json.dumps(document))


def names(secret: Path) -> dict[str, str]:
    return {
        "up": "../../../private/secret.jpg",
        "through": "a/../../../../private/secret.jpg",
        "absolute": str(secret),
        "link": "link.jpg",
        "linked folder": "linked/secret.jpg",
        "behind a link": "linked/../private/secret.jpg",
    }


@pytest.mark.parametrize("way", ["up", "through", "absolute", "link", "linked folder", "behind a link"])
def test_an_image_elsewhere_is_refused_unless_the_user_allows_it(
    tmp_path: Path, secret: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, name = tmp_path / "data", names(secret)[way]
    write(root, name)
    (root / "images/train/a").mkdir(exist_ok=True)
    (root / "images/train/link.jpg").symlink_to(secret)
    (root / "images/train/linked").symlink_to(secret.parent)
    with pytest.raises(UserError, match=r"person_keypoints_train\.json: '.*' leads out of .*/images/train") as error:
        read_people("coco", root, "train")
    assert repr(name) in str(error.value)
    assert f"allow the folder by {ALLOWED}=DIR" in str(error.value)
    findings = examine(root, task="pose", data="coco", splits=["train"], progress=False).findings
    assert any("images" in finding.title for finding in findings.refused)
    monkeypatch.setenv(ALLOWED, f"{tmp_path / 'elsewhere'}{os.pathsep}{secret.parent}")
    people = read_people("coco", root, "train")
    assert abs(people.read_image(people.people[0].image).astype(int) - 77).max() < 3


def test_an_image_of_nobody_stays_in_its_folder_too(tmp_path: Path, secret: Path) -> None:
    """Boxes of a detector could ask for it."""
    root = tmp_path / "data"
    write(root, "0.jpg")
    path = root / "annotations/person_keypoints_train.json"
    document = json.loads(path.read_text())
    document["images"] = [*document["images"][1:], {"id": 99, "file_name": str(secret), **SIZE}]
    document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] == 11]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"person_keypoints_train\.json: '.*' leads out of"):
        read_people("coco", root, "train")


def test_folders_that_the_user_linked_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "disk", "0.jpg")
    (tmp_path / "disk/images/train/0.jpg").unlink(missing_ok=True)
    cv2.imwrite(str(tmp_path / "disk/images/train/0.jpg"), np.zeros((SIZE["height"], SIZE["width"], 3), np.uint8))
    for name, links in {
        "root": {"": "disk"},
        "images": {"images": "disk/images", "annotations": "disk/annotations"},
        "split": {
            "images/train": "disk/images/train",
            "annotations/person_keypoints_train.json": "disk/annotations/" + "person_keypoints_train.json",
        },
    }.items():
        for here, there in links.items():
            link = tmp_path / name / here
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(tmp_path / there)
        people = read_people("coco", tmp_path / name, "train")
        assert people.read_image(people.people[0].image).shape == (SIZE["height"], SIZE["width"], 3)
    (tmp_path / "disk/images/train/again.jpg").symlink_to("0.jpg")  # a link that stays
    assert file_inside(tmp_path / "split/images/train", "again.jpg", "x").is_file()


@pytest.mark.parametrize("name", ["a\0b.png", "\ud800.png", "", "x" * 5000, "x/" * 3000 + "y", "y" * 256 + ".png"])
def test_names_that_no_file_has_are_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"^list\.txt: a file is called .*: no file has such a name$") as error:
        file_inside(tmp_path, name, "list.txt")
    assert len(str(error.value)) < 300


def test_the_images_of_mpii_stay_in_their_folder(tmp_path: Path) -> None:
    write_mpii(tmp_path, 1)
    path = tmp_path / "annot/train.json"
    people = json.loads(path.read_text())
    people[0]["image"] = "../annot/../../private/secret.jpg"
    path.write_text(json.dumps(people))
    with pytest.raises(UserError, match=r"annot/train\.json: .* leads out of .*/images"):
        read_people("mpii", tmp_path, "train")


def description(**changes: Any) -> dict[str, Any]:
    maps = {"seg": {"folder": "seg/{split}", "kind": "classes", "classes": ["a", "b"]}}
    return {"images": "images/{split}", "maps": maps, **changes}


ESCAPES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "images": lambda out: description(images=f"{out}/{{split}}"),
    "up": lambda _: description(images="../private/{split}"),
    "maps": lambda out: description(maps={"seg": {"folder": f"{out}/{{split}}", "kind": "classes", "classes": ["a"]}}),
    "keypoints": lambda _: description(keypoints="images/../../private/people_{split}.json"),
    "classes": lambda out: description(classes={"c": {"file": f"{out}/c.csv", "classes": ["a"]}}),
}


@pytest.mark.parametrize("what", ESCAPES)
def test_a_description_names_what_is_beside_it(tmp_path: Path, secret: Path, what: str) -> None:
    root = tmp_path / "data"
    for name in ("images", "seg"):
        (root / name / "train").mkdir(parents=True)
        cv2.imwrite(str(root / name / "train/0.png"), np.eye(8, dtype=np.uint8))
    (root / "dataset.yaml").write_text(yaml.safe_dump(ESCAPES[what](secret.parent)))
    with pytest.raises(UserError, match=r"dataset\.yaml: '.*' leads out of"):
        read_multitask_set("folders", root, "train")


@pytest.mark.parametrize("file", ["images/train/0.png", "seg/train/0.png", "depth/train/0.npy"])
def test_links_of_single_files_stay_in_their_folder(tmp_path: Path, secret: Path, file: str) -> None:
    root = tmp_path / "data"
    maps = {**description()["maps"], "depth": {"folder": "depth/{split}", "kind": "depth"}}
    for name in ("images", "seg", "depth"):
        (root / name / "train").mkdir(parents=True)
        cv2.imwrite(str(root / name / "train/0.png"), np.eye(8, dtype=np.uint8))
    (root / file).unlink(missing_ok=True)
    (root / file).symlink_to(secret)
    (root / "dataset.yaml").write_text(yaml.safe_dump(description(maps=maps)))

    def read() -> None:
        labelled = read_multitask_set("folders", root, "train")
        labelled.read_maps(labelled.regions.regions[0].image, list(labelled.maps))

    with pytest.raises(UserError, match=r"leads out of .*/train, to .*/private/secret\.jpg"):
        read()


def test_linked_classes_are_followed_and_linked_images_are_not(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "data/train/a").mkdir(parents=True)
    (tmp_path / "data/train/b").symlink_to(secret.parent)
    image = tmp_path / "data/train/a/1.jpg"
    image.write_bytes(secret.read_bytes())
    assert len(read_folder(tmp_path / "data", "train").labels) == 2
    image.unlink()
    image.symlink_to(secret)
    with pytest.raises(UserError, match=r"'1\.jpg' leads out of"):
        read_folder(tmp_path / "data", "train")


YOLO = "kpt_shape: [1, 3]\nnames: [cat]\nflip_idx: [0]\nval: images/val\n"


@pytest.mark.parametrize(
    ("settings", "listed"),
    [
        ("path: {out}\ntrain: .\n", ""),
        ("train: {out}\n", ""),
        ("train: ../private\n", ""),
        ("train: list.txt\n", "../private/secret.jpg"),
        ("train: list.txt\n", "{out}/secret.jpg"),
        ("train: list.txt\n", "images/link.jpg"),
        ("train: images\n", ""),
    ],
)
def test_yolo_reads_what_lies_below_its_file(tmp_path: Path, secret: Path, settings: str, listed: str) -> None:
    root = tmp_path / "data"
    (root / "images/val").mkdir(parents=True)
    (root / "images/val/a.jpg").write_bytes(secret.read_bytes())
    (root / "images/link.jpg").symlink_to(secret)
    (root / "data.yaml").write_text(YOLO + settings.format(out=secret.parent))
    (root / "list.txt").write_text(listed.format(out=secret.parent) + "\n")
    with pytest.raises(UserError, match="leads out of"):
        convert(root, tmp_path / "out", origin="yolo-pose", target="coco")


def test_links_that_convert_makes_are_named_for_who_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "source", {"train": labelled_people()})
    done = convert(tmp_path / "source", tmp_path / "out", origin="coco", target="coco", val=0, link=True)
    (note,) = [note for note in done.notes if ALLOWED in note]
    with pytest.raises(UserError, match="leads out of"):
        read_people("coco", tmp_path / "out", "train")
    monkeypatch.setenv(ALLOWED, note.partition(f"{ALLOWED}=")[2].split()[0])
    assert read_people("coco", tmp_path / "out", "train").people


def test_links_to_several_places_name_these_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, disks = tmp_path / "source", tmp_path / "out", [tmp_path / "disk 1/a", tmp_path / "disk 2"]
    document = labelled_people()
    write_set(source, {"train": document, "val": document})
    for number, (disk, image) in enumerate(zip(disks, document["images"], strict=True)):
        disk.mkdir(parents=True)
        for split in ("train", "val"):
            path = source / "images" / split / image["file_name"]
            path.rename(disk / f"{split}{number}.jpg")
            path.symlink_to(disk / f"{split}{number}.jpg")
    monkeypatch.setenv(ALLOWED, os.pathsep.join(map(str, disks)))
    assert data_tool(["convert", str(source), "--from", "coco", "--to", "coco", "--link", "--out", str(out)]) == 0
    monkeypatch.delenv(ALLOWED)
    commands = [line.partition(" it: ")[2] for line in capsys.readouterr().out.splitlines() if " it: " in line]
    assert len(commands) == 2
    for command in commands:
        name, _, value = shlex.split(command)[0].partition("=")
        assert (name, value.split(os.pathsep)) == (ALLOWED, list(map(str, disks)))
    monkeypatch.setenv(ALLOWED, value)
    check = shlex.split(commands[0])
    assert data_tool(check[check.index("check") :]) == 0


def test_a_report_holds_pictures_of_its_run_alone(tmp_path: Path, secret: Path) -> None:
    run = tmp_path / "run"
    (run / "gallery").mkdir(parents=True)
    (run / "config.yaml").write_text("task: <script>alert(1)</script>\n")
    name = "<img src=x onerror=alert(1)>"
    picture = {"title": name, "file": "a.webp", "size": [40, 30], "figure": 0.5}
    group = {"name": name, "figure": name, "higher": True, "samples": 1, "spread": [], "parts": {}}
    for file, refused in (("a.webp", False), ("../../private/secret.jpg", True), (str(secret), True)):
        rows = [{"rank": "best", "sample": name, "pictures": [{**picture, "file": file}]}]
        (run / "gallery/gallery.json").write_text(json.dumps({"groups": [{**group, "rows": rows}]}))
        (run / "gallery/a.webp").write_bytes(b"a picture")
        if refused:
            with pytest.raises(UserError, match=r"gallery\.json: '.*' leads out of .*/gallery"):
                page(read_runs([run]))
        else:
            text = page(read_runs([run]))
            assert base64.b64encode(b"a picture").decode() in text
            assert "<script" not in text
            assert "<img src=x" not in text
            assert "&lt;img src=x onerror=alert(1)&gt;" in text
