"""Label Studio's JSON export: a list of tasks, an image each, whose rectangles and key points are regions.

Places are percent of the image's width and height. A key point belongs to the rectangle that its `parentID` names (the
region that it was put under), or that a relation joins it with, or else to the only rectangle around it; without rectangles,
all points of a task are one person. A choice `hidden` (or `occluded`) of a point's own, a `perRegion` label, is COCO's v = 1.
(labelstud.io: "Label Studio JSON format of annotated tasks", tags `KeyPointLabels` and `RectangleLabels`.)
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlparse
from xml.sax.saxutils import quoteattr

from rpgmt.config.json_files import read_json
from rpgmt.config.text_files import read_text
from rpgmt.data.coco.annotations import are_numbers
from rpgmt.data.convert.image_files import ImageFinder, Placer, near
from rpgmt.data.convert.labels import (
    DIGITS,
    Part,
    Point,
    box_round,
    category,
    count_text,
    safe_name,
    split_of,
    the_category,
)
from rpgmt.data.image_headers import image_size
from rpgmt.errors import UserError
from rpgmt.whole_files import write_text

_HIDDEN = ("hidden", "occluded")
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the names of files that were uploaded."""


def read(source: Path, images: Path | None, notes: list[str]) -> list[Part]:
    """The tasks of an export, or of `tasks.json` in a folder.

    The order of the key points is that in which they first occur, or that of `label_config.xml` beside the file.

    Raises:
        UserError: a task or a region is malformed, or an image is missing.
    """
    path = source / "tasks.json" if source.is_dir() else source
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{path}: not a list of tasks: export from Label Studio as JSON")
    results = [(task, _result(task, path, notes)) for task in tasks]
    names, person = _names([region for _, result in results for region in result], path)
    finder, parts = ImageFinder(near(path, images), path), dict[str, Part]()
    boxes = 0
    for task, result in results:
        split = split_of(str(task["data"].get("split") or ""))
        part = parts.setdefault(split, Part(split, [category(1, person, names)]))
        title, known = _image_names(task, path)
        file = finder.find(*known)
        if file is None:
            continue
        sized = next((region for region in result if "original_width" in region), None)
        width, height = (int(sized["original_width"]), int(sized["original_height"])) if sized else image_size(file)
        number = part.add_image(title, width, height, file)
        for box, points in _people(result, names, (width, height), f"{path}: task {task.get('id')}"):
            if box is None and any(point[2] for point in points):
                box, boxes = list(box_round(points, width, height)), boxes + 1
            if box is not None:
                part.add_person(number, 1, points, box)
    finder.check()
    if boxes:
        notes.append(f"{count_text(boxes, 'person', 'people')} without a rectangle: the box is that round the points")
    return list(parts.values())


def _result(task: dict[str, Any], path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The regions of a task's first annotation that was not cancelled."""
    where = f"{path}: task {task.get('id')}"
    if not isinstance(task.get("data"), dict):
        raise UserError(f"{where} has no `data`: export from Label Studio as JSON, not as JSON-MIN")
    given = task.get("annotations", task.get("completions"))
    if not isinstance(given, list):
        raise UserError(f"{where} has no list `annotations`")
    done = [entry for entry in given if isinstance(entry, dict) and not entry.get("was_cancelled")]
    if len(done) > 1:
        notes.append(f"task {task.get('id')} was annotated {len(done)} times: the first one is taken")
    result = done[0].get("result", []) if done else []
    if not isinstance(result, list) or not all(isinstance(region, dict) for region in result):
        raise UserError(f"{where}: `result` is to be a list of regions")
    for region in result:
        _check_region(region, where)
    return result


def _check_region(region: dict[str, Any], where: str) -> None:
    for key in ("id", "type", "parentID", "from_id", "to_id"):
        if not isinstance(region.get(key), str | int | None):
            raise UserError(f"{where}: `{key}` of a region is {region[key]!r}: give text")
    if not isinstance(region.get("value", {}), dict):
        raise UserError(f"{where}: region {region.get('id')}: `value` is {region['value']!r}: give an object")
    size = [region[key] for key in ("original_width", "original_height") if key in region]
    if size and (len(size) < 2 or not are_numbers(size) or min(size) < 1):
        raise UserError(f"{where}: region {region.get('id')}: `original_width`, `original_height` are {size}: give pixels")


def _value(region: dict[str, Any], keys: tuple[str, ...], where: str) -> list[float]:
    values = [region.get("value", {}).get(key) for key in keys]
    if not are_numbers(values) or not region.get("id"):
        raise UserError(f"{where}: region {region.get('id')}: {', '.join(keys)} are {values}: give percent of the image")
    return [float(value) for value in values]


def _label(region: dict[str, Any]) -> str | None:
    labels = region.get("value", {}).get(region.get("type"))
    return str(labels[0]) if isinstance(labels, list) and labels else None


def _names(regions: list[dict[str, Any]], path: Path) -> tuple[list[str], str]:
    """The names of the key points in order, and of what has them."""
    found = [_label(region) for region in regions if region.get("type") == "keypointlabels"]
    people = [_label(region) for region in regions if region.get("type") == "rectanglelabels"]
    names = list(dict.fromkeys(name for name in found if name))
    config = path.parent / "label_config.xml"
    if config.is_file():
        text = read_text(config).partition("<KeyPointLabels")[2].partition("</KeyPointLabels")[0]
        listed = [_unquote(value) for value in re.findall(r"<Label\b[^>]*?\bvalue=(\"[^\"]*\"|'[^']*')", text)]
        names = [*listed, *(name for name in names if name not in listed)]
    if not names:
        raise UserError(f"{path}: no task has a region of the type `keypointlabels`")
    kinds = list(dict.fromkeys(name for name in people if name))
    if len(kinds) > 1:
        raise UserError(f"{path}: rectangles are called {', '.join(kinds)}: one kind is read; export them apart")
    return names, kinds[0] if kinds else "person"


def _unquote(text: str) -> str:
    from html import unescape

    return unescape(text[1:-1])


def _image_names(task: dict[str, Any], path: Path) -> tuple[str, list[str]]:
    """The name of a task's image, and all names that its file may have."""
    value = task["data"].get("image") or next((v for v in task["data"].values() if isinstance(v, str) and "." in v), None)
    if not isinstance(value, str):
        raise UserError(f"{path}: task {task.get('id')}: `data` has no `image`")
    url = urlparse(value)
    local = parse_qs(url.query).get("d")  # of files on the server: /data/local-files/?d=folder/1.jpg
    name = local[0] if local else unquote(url.path)
    name = safe_name(name)
    short = name.rpartition("/")[2]
    plain = _UPLOAD.sub("", short)
    title = name.partition("images/")[2] or short if local else plain
    if split := task["data"].get("split"):
        title = title.removeprefix(f"{split}/")
    return title, list(dict.fromkeys([name, short, plain]))


def _people(
    result: list[dict[str, Any]], names: list[str], size: tuple[int, int], where: str
) -> list[tuple[list[float] | None, list[Point]]]:
    boxes = {region.get("id"): _box(region, size, where) for region in result if region.get("type") == "rectanglelabels"}
    hidden = {
        region.get("id") for region in result if region.get("type") == "choices" and str(_label(region)).lower() in _HIDDEN
    }
    joined = defaultdict(set)
    for region in result:
        if region.get("type") == "relation":
            joined[region.get("from_id")].add(region.get("to_id"))
            joined[region.get("to_id")].add(region.get("from_id"))
    found: dict[Any, dict[str, Point]] = {key: {} for key in boxes or [None]}
    for region in result:
        name = _label(region)
        if region.get("type") != "keypointlabels" or name is None:
            continue
        percent = _value(region, ("x", "y"), where)
        x, y = (round(value * side / 100, DIGITS) for value, side in zip(percent, size, strict=True))
        owner = _owner(region, boxes, joined, (x, y), f"{where}: key point {name} ({region.get('id')})")
        if name in found[owner]:
            whose = "of one rectangle" if boxes else "and no rectangles that say whose they are"
            raise UserError(f"{where}: two key points {name} {whose}: put each under the rectangle of its person")
        found[owner][name] = x, y, 1 if region.get("id") in hidden else 2
    return [(boxes.get(key), [points.get(name, (0.0, 0.0, 0)) for name in names]) for key, points in found.items()]


def _owner(region: dict[str, Any], boxes: dict[Any, list[float]], joined: Any, point: tuple[float, float], where: str) -> Any:
    if not boxes:
        return None
    if region.get("parentID") in boxes:
        return region["parentID"]
    related = [key for key in joined[region.get("id")] if key in boxes]
    if len(related) == 1:
        return related[0]
    around = [k for k, (x, y, w, h) in boxes.items() if x <= point[0] <= x + w and y <= point[1] <= y + h]
    if len(around) == 1:
        return around[0]
    lies = "in several rectangles" if around else "in no rectangle"
    raise UserError(f"{where} lies {lies}: put it under the rectangle of its person, or join them by a relation")


def _box(region: dict[str, Any], size: tuple[int, int], where: str) -> list[float]:
    """x, y, w, h in pixels; of a turned rectangle the box that holds it (it turns round its corner)."""
    percent = _value(region, ("x", "y", "width", "height"), where)
    x, y, w, h = (value * side / 100 for value, side in zip(percent, size * 2, strict=True))
    angle = math.radians(region["value"].get("rotation") or 0)
    if angle:
        c, s = math.cos(angle), math.sin(angle)
        xs, ys = (0, w * c, -h * s, w * c - h * s), (0, w * s, h * c, w * s + h * c)
        x, y, w, h = x + min(xs), y + min(ys), max(xs) - min(xs), max(ys) - min(ys)
    return [round(value, DIGITS) for value in (x, y, w, h)]


def write(parts: list[Part], out: Path, placer: Placer, notes: list[str]) -> Path:
    """Writes `tasks.json`, `label_config.xml` for the project's labelling interface, and `images/`; returns the first.

    Images are named as local files (`/data/local-files/?d=…`): Label Studio finds them with OUT as its document root.
    """
    entry = the_category(parts[0].categories, "Label Studio")
    tasks: list[dict[str, Any]] = []
    for part in parts:
        for image, people in part.people_of_images():
            place = f"images/{part.split}/{safe_name(image['file_name'])}"
            placer.place(part.files[image["id"]], out / place)
            data = {"image": f"/data/local-files/?d={quote(place)}", "split": part.split}
            result = [region for person, points in people for region in _regions(person, points, entry, image)]
            tasks.append({"id": len(tasks) + 1, "data": data, "annotations": [{"result": result}]})
    write_text(out / "tasks.json", json.dumps(tasks, allow_nan=False, ensure_ascii=False))
    write_text(out / "label_config.xml", _config(entry))
    notes.append("Label Studio has no areas, skeletons, pairs, sigmas, segments or crowds: they are left out")
    return out / "tasks.json"


def _regions(person: dict[str, Any], points: list[Point], entry: dict[str, Any], image: dict[str, Any]) -> list[dict[str, Any]]:
    size = image["width"], image["height"]
    own = f"person{person['id']}"
    common = {"original_width": size[0], "original_height": size[1], "image_rotation": 0, "to_name": "image"}
    box = [100 * value / side for value, side in zip(person["bbox"], size * 2, strict=True)]
    value = {**dict(zip(("x", "y", "width", "height"), box, strict=True)), "rotation": 0}
    rectangle = {**value, "rectanglelabels": [str(entry.get("name", "person"))]}
    result = [{**common, "id": own, "from_name": "box", "type": "rectanglelabels", "value": rectangle}]
    for number, (name, (x, y, v)) in enumerate(zip(entry["keypoints"], points, strict=True)):
        if not v:
            continue
        place = {"x": 100 * x / size[0], "y": 100 * y / size[1], "width": 0.5}
        region = {**common, "id": f"{own}_{number}", "parentID": own}
        result.append({**region, "from_name": "point", "type": "keypointlabels", "value": {**place, "keypointlabels": [name]}})
        if v == 1:
            result.append({**region, "from_name": "visibility", "type": "choices", "value": {**place, "choices": ["hidden"]}})
    return result


def _config(entry: dict[str, Any]) -> str:
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in entry["keypoints"])
    return f"""<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="box" toName="image">
    <Label value={quoteattr(str(entry.get("name", "person")))}/>
  </RectangleLabels>
  <KeyPointLabels name="point" toName="image" strokeWidth="3">
{labels}
  </KeyPointLabels>
  <Choices name="visibility" toName="image" perRegion="true" whenTagName="point">
    <Choice value="hidden"/>
  </Choices>
</View>
"""
