"""What a check says is true, is said once, and leads on: of categories, links and what is missing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.labelled_set import write_set
from PIL import Image

from rpgmt.data.check.examination import Report, examine
from rpgmt.data.images import decode_image
from tools import data

Edit = Callable[[dict[str, Any]], Any]


def sound_document(split: str) -> dict[str, Any]:
    """Six images with a person each, whose four points lie in its box."""
    random = np.random.default_rng(len(split))
    document: dict[str, Any] = {"images": [], "annotations": []}
    for number in range(6):
        box = [*random.uniform(5, 20, 2).tolist(), 40.0, 30.0]
        points = box[:2] + random.uniform(0.1, 0.9, (4, 2)) * box[2:]
        flat = [value for x, y in points.tolist() for value in (x, y, 2)]
        document["images"].append({"id": number, "file_name": f"{split}{number}.png", "width": 80, "height": 60})
        person = {"id": number + 1, "image_id": number, "category_id": 1, "bbox": box, "area": 600, "iscrowd": 0}
        document["annotations"].append({**person, "keypoints": flat})
    document["categories"] = [{"id": 1, "name": "cat", "keypoints": ["nose", "tail", "left_ear", "right_ear"]}]
    document["categories"][0] |= {"sigmas": [0.1] * 4, "flip_pairs": [["left_ear", "right_ear"]], "skeleton": []}
    return document


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    root.mkdir()
    write_set(root, {split: sound_document(split) for split in ("train", "val")})
    return root


def change(root: Path, edit: Edit, *splits: str) -> None:
    for split in splits or ("train",):
        path = root / f"annotations/person_keypoints_{split}.json"
        document = json.loads(path.read_text())
        edit(document)
        path.write_text(json.dumps(document))


def said(report: Report) -> list[str]:
    """Each finding, with its count and its first example."""
    found = [*report.findings.refused, *report.findings.notes]
    return [f"{one.count} × {one.title}: {one.examples[0]}" if one.count else one.title for one in found]


def add_birds(document: dict[str, Any]) -> None:
    document["categories"].append({"id": 2, "name": "bird", "keypoints": ["beak", "crest", "back"], "sigmas": [0.1] * 3})
    document["categories"][1]["flip_pairs"] = []
    for entry in document["annotations"][::2]:
        entry |= {"category_id": 2, "keypoints": entry["keypoints"][:9]}


def test_nothing_is_said_of_a_sound_set(root: Path) -> None:
    assert said(examine(root)) == []


def test_categories_with_other_key_points_are_chosen(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(root, add_birds, "train", "val")
    assert data.main(["check", str(root)]) == 1
    assert "choose by --categories NAME" in " ".join(capsys.readouterr().out.split())
    for name, points in (("bird", 3), ("cat", 4)):
        assert data.main(["check", str(root), "--categories", name]) == 0
        out = capsys.readouterr().out
        assert out.splitlines()[-1].endswith(f"--data-root {root} --categories {name}")
        assert examine(root, categories=[name]).heads == {"keypoints": points}
    assert data.main(["check", str(root), "--categories", "dog"]) == 1
    assert "`categories` has 'dog'" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(data.UserError, match="`--categories` is cat: training takes them of --task pose --data coco only"):
        data.main(["check", str(root), "--task", "multitask", "--categories", "cat"])


@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_page_says_which_pictures_are_turned(orientation: int) -> None:
    """A size decides only where the upright picture has another: not of 2, 3, 4, and not of a square."""
    for width in (20, 30):
        pixels = np.random.default_rng(0).integers(0, 255, (20, width, 3), np.uint8)
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x112] = orientation
        Image.fromarray(pixels).save(file, "PNG", exif=exif)
        as_stored = np.array_equal(decode_image(file.getvalue(), width, 20, name="x"), pixels)
        assert as_stored == (orientation >= 5 and width != 20)
