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


def test_a_missing_image_is_said_once(root: Path) -> None:
    (root / "images/train/train1.png").unlink()
    assert said(examine(root)) == [f"1 × images that are missing: {root}/images/train/train1.png"]
    for number in (0, 2, 3, 4):
        (root / f"images/train/train{number}.png").unlink()
    (root / "images/train/train5.png").unlink()
    (found,) = said(examine(root))
    assert found.startswith("1 × splits without images")


def test_images_without_anybody_are_said_where_it_is_so(root: Path) -> None:
    change(root, lambda d: d["annotations"].pop())
    path = root / "annotations/person_keypoints_train.json"
    assert said(examine(root)) == [f"{path}: 1 of 6 images have nobody to train on"]
    (root / "images/train/train5.png").unlink()
    (root / "images/train/train4.png").unlink()
    assert len(found := said(examine(root))) == 3
    assert "1 of 1 images without labelled people are missing" in found[1]
    assert "1 of 5 images have nobody" in found[2]


@pytest.mark.parametrize(
    ("edit", "title", "count"),
    [
        (lambda d: d["images"][1].pop("width"), "images without `file_name`, `width` or `height`", 1),
        (lambda d: [image.pop("width") for image in d["images"]], "images without `file_name`, `width` or `height`", 6),
        (lambda d: d["annotations"][1].pop("area"), "labelled people without an area", 1),
        (lambda d: [person.pop("area") for person in d["annotations"]], "labelled people without an area", 6),
        (lambda d: [image.update(id=None) for image in d["images"]], "`images` that are no objects with an `id`", 6),
    ],
)
def test_an_entry_that_is_refused_is_said_once(root: Path, edit: Edit, title: str, count: int) -> None:
    change(root, edit)
    (found,) = said(examine(root))
    assert found.startswith(f"{count} × {title}: {root}")


def test_masks_that_are_refused_are_not_missing(tmp_path: Path) -> None:
    write_maps(tmp_path, "masks", "kind: classes, classes: [ground, cat]", np.full((8, 10), 5, np.uint8))
    (found,) = said(examine(tmp_path))
    assert found.startswith("12 × files of the label masks: ")


def write_maps(root: Path, name: str, kind: str, values: np.ndarray) -> None:
    """Six images a split with a map of these values each."""
    (root / "dataset.yaml").write_text(f"images: 'i/{{split}}'\nmaps: {{{name}: {{folder: '{name}/{{split}}', {kind}}}}}\n")
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder in ("i", name):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(6):
            pixels = random.integers(0, 255, (*values.shape[:2], 3), np.uint8)
            Image.fromarray(pixels).save(root / f"i/{split}/{number}.png")
            np.save(root / f"{name}/{split}/{number}.npy", values)


@pytest.mark.parametrize("count", [1, 6])
def test_links_that_lead_out_are_called_so(root: Path, tmp_path: Path, count: int) -> None:
    (tmp_path / "other").mkdir()
    for number in range(count):
        file = root / f"images/train/train{number}.png"
        file.rename(tmp_path / "other" / file.name)
        file.symlink_to(tmp_path / "other" / file.name)
    (found,) = said(examine(root))
    assert found.startswith(f"{count} × images that lie elsewhere: ")
    assert "'train0.png' leads out of" in found
    assert "RPGMT_LINKED_DATA=DIR" in found


def test_numbers_of_maps_are_looked_at_in_the_unit_and_axes_of_the_page(tmp_path: Path) -> None:
    metres = np.full((8, 10), 2, np.uint16)
    metres[0] = 65535
    write_maps(tmp_path, "depth", "kind: depth, unit: 0.001", metres)
    (train, val) = said(examine(tmp_path))
    assert train.startswith("train, depth: 12% of the labelled pixels hold 65535")
    assert val.startswith("val, depth: ")
    normals = np.random.default_rng(0).normal(size=(8, 10, 3))
    normals[..., 2] = -3
    for negate, count in (("", 0), (", negate: [z]", 2)):
        write_maps(tmp_path, "normals", f"kind: normals{negate}", normals)
        assert len(found := said(examine(tmp_path))) == count
        assert all("z is above 0 in 100% of the pixels" in one for one in found)
