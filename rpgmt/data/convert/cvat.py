"""CVAT's XML 1.1 for images: skeletons, or loose points, of each image.

    <image id="0" name="1.jpg" width="640" height="480" subset="train">
      <skeleton label="person" z_order="0" group_id="1">
        <points label="nose" occluded="0" outside="0" points="320.0,100.0"/>
      </skeleton>
      <box label="person_box" xtl="300.0" ytl="80.0" xbr="400.0" ybr="300.0" occluded="0" group_id="1"/>
    </image>

A point that is `outside` is not labelled, one that is `occluded` is hidden. A skeleton has no box of its own: it gets the box
of its group, or else the smallest one that holds all of its points, or else the box round the points. (docs.cvat.ai, "XML
annotation format"; skeletons as CVAT 2 exports them.)
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml
from xml.sax.saxutils import quoteattr

from rpgmt.config.text_files import read_bytes
from rpgmt.data.convert.image_files import ImageFinder, Placer, near
from rpgmt.data.convert.labels import DIGITS, Part, Point, box_round, category, count_text, safe_name, split_of
from rpgmt.errors import UserError

Box = tuple[float, float, float, float]


def read(source: Path, images: Path | None, notes: list[str]) -> list[Part]:
    """The images of an XML file, or of `annotations.xml` in a folder.

    Labelled points may be skeletons, shapes of several points each (which are numbered), or single points named by their
    label, those of a group one person, or those of an image where there are no groups.

    Raises:
        UserError: the file is malformed or of a video, or an image is missing.
    """
    path = source / "annotations.xml" if source.is_dir() else source
    if not path.exists():
        raise UserError(f"{path}: no such file: give CVAT's annotations.xml or the folder with it")
    data = read_bytes(path)
    if b"<!DOCTYPE" in data:  # CVAT writes none, and what it declares may grow without end where it is used
        raise UserError(f"{path}: XML with a document type (<!DOCTYPE): export from CVAT as `CVAT for images 1.1`")
    try:
        root = Xml.fromstring(data)
    except (Xml.ParseError, ValueError, LookupError) as error:  # the latter two of encodings
        raise UserError(f"{path}: not XML: {error}") from error
    if root.tag != "annotations":
        raise UserError(f"{path}: the outermost element is {root.tag}: export from CVAT as `CVAT for images 1.1`")
    if root.find("track") is not None:
        raise UserError(f"{path}: annotations of a video, with tracks: export from CVAT as `CVAT for images 1.1`")
    categories = _categories(root, path)
    finder, parts, made = ImageFinder(near(path, images), path), dict[str, Part](), 0
    for element in root.iter("image"):
        name, where = element.get("name", ""), f"{path}: image {element.get('name')}"
        split = split_of(element.get("subset"))
        part = parts.setdefault(split, Part(split, categories))
        width, height = (int(_number(element, key, where)) for key in ("width", "height"))
        file = finder.find(name, f"{element.get('subset')}/{name}")
        if file is None:
            continue
        number = part.add_image(name.removeprefix(f"{split}/"), width, height, file)
        boxes = [(box.get("group_id"), _box(box, where)) for box in element.iter("box")]
        for entry, group, points in _people(element, categories, where):
            box = _take_box(boxes, group, points)
            if box is None and any(point[2] for point in points):
                box, made = box_round(points, width, height), made + 1
            if box is not None:
                part.add_person(number, entry["id"], points, box)
    finder.check()
    if not parts:
        raise UserError(f"{path}: holds no image")
    if made:
        notes.append(f"{count_text(made, 'person', 'people')} without a box: the box is that round the points")
    return list(parts.values())


def _categories(root: Xml.Element, path: Path) -> list[dict[str, Any]]:
    """What has key points, from the project's labels; where these are missing, from what occurs."""
    children: dict[str, list[str]] = {}
    edges: dict[str, list[list[int]] | None] = {}
    for label in root.iterfind("meta//label"):
        name, parent = label.findtext("name", ""), label.findtext("parent")
        if parent is not None:
            children.setdefault(parent, []).append(name)
        elif label.findtext("type") == "skeleton":
            children.setdefault(name, [])
            edges[name] = _edges(label.findtext("svg") or "")
    for skeleton in root.iter("skeleton"):
        known = children.setdefault(skeleton.get("label", "person"), [])
        known += [name for point in skeleton.iter("points") if (name := point.get("label", "")) not in known]
    if found := {name: points for name, points in children.items() if points}:
        return [
            category(number, name, points, skeleton=edges.get(name)) for number, (name, points) in enumerate(found.items(), 1)
        ]
    shapes = [(shape.get("label", "person"), len(_places(shape, str(path)))) for shape in root.iter("points")]
    if not shapes:
        raise UserError(f"{path}: holds neither skeletons nor points")
    if all(count == 1 for _, count in shapes):
        return [category(1, "person", list(dict.fromkeys(name for name, _ in shapes)))]
    counts = dict(shapes)
    for name, count in shapes:
        if counts[name] != count:
            raise UserError(f"{path}: points {name} have {counts[name]} and {count} places: give all as many, or use skeletons")
    return [
        category(number, name, [f"point_{i + 1}" for i in range(count)])
        for number, (name, count) in enumerate(counts.items(), 1)
    ]


def _edges(svg: str) -> list[list[int]] | None:
    lines = re.findall(r"<line\b[^>]*>", svg)
    found = [[re.search(rf'data-node-{end}="(\d+)"', line) for end in ("from", "to")] for line in lines]
    return [[int(a[1]), int(b[1])] for a, b in found if a and b] or None


def _people(
    image: Xml.Element, categories: list[dict[str, Any]], where: str
) -> list[tuple[dict[str, Any], str | None, list[Point]]]:
    by_name = {entry["name"]: entry for entry in categories}
    result = []
    for skeleton in image.iterfind("skeleton"):
        entry, points = by_name[skeleton.get("label", "person")], {}
        for element in skeleton.iterfind("points"):
            points[element.get("label", "")] = _point(element, _places(element, where)[0])
        result.append((entry, skeleton.get("group_id"), [points.get(name, (0.0, 0.0, 0)) for name in entry["keypoints"]]))
    groups: dict[str | None, dict[str, Point]] = defaultdict(dict)
    for element in image.iterfind("points"):
        places, label = _places(element, where), element.get("label", "")
        if label in by_name and len(by_name[label]["keypoints"]) == len(places) > 1:
            result.append((by_name[label], element.get("group_id"), [_point(element, place) for place in places]))
        elif len(places) == 1 and label in categories[0]["keypoints"]:
            group = groups[element.get("group_id")]
            if label in group:
                raise UserError(f"{where}: two points {label} of one person: group those of each person, or use skeletons")
            group[label] = _point(element, places[0])
    for number, group in groups.items():
        result.append((categories[0], number, [group.get(name, (0.0, 0.0, 0)) for name in categories[0]["keypoints"]]))
    return result


def _point(element: Xml.Element, place: tuple[float, float]) -> Point:
    if element.get("outside") == "1":
        return 0.0, 0.0, 0
    return *place, 1 if element.get("occluded") == "1" else 2


def _places(element: Xml.Element, where: str) -> list[tuple[float, float]]:
    text = element.get("points", "")
    try:
        pairs = [[float(number) for number in pair.split(",")] for pair in text.split(";")]
        return [(round(x, DIGITS), round(y, DIGITS)) for x, y in pairs]
    except ValueError:
        raise UserError(f"{where}: points {element.get('label')} are {text[:60]!r}: give x,y;x,y in pixels") from None


def _number(element: Xml.Element, key: str, where: str) -> float:
    try:
        return float(element.get(key, ""))
    except ValueError:
        raise UserError(f"{where}: `{key}` of {element.tag} is {element.get(key)!r}: give a number of pixels") from None


def _box(element: Xml.Element, where: str) -> Box:
    left, top, right, bottom = (_number(element, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
    return left, top, right - left, bottom - top


def _take_box(boxes: list[tuple[str | None, Box]], group: str | None, points: Sequence[Point]) -> Box | None:
    """The box of a person, which no other gets."""
    labelled = [point for point in points if point[2]]

    def holds(box: Box) -> bool:
        return all(box[0] <= x <= box[0] + box[2] and box[1] <= y <= box[1] + box[3] for x, y, _ in labelled)

    own = [entry for entry in boxes if group not in (None, "0") and entry[0] == group]
    around = [entry for entry in boxes if entry[0] in (None, "0") and labelled and holds(entry[1])]
    if not own and not around:
        return None
    chosen = own[0] if own else min(around, key=lambda entry: entry[1][2] * entry[1][3])
    boxes.remove(chosen)
    return chosen[1]


def write(parts: list[Part], out: Path, placer: Placer, notes: list[str]) -> Path:
    """Writes `annotations.xml` and `images/`, and returns the file.

    CVAT's task needs the labels that the file's `meta` names: a skeleton with these points, and a rectangle for the boxes.
    """
    root = Xml.Element("annotations")
    Xml.SubElement(root, "version").text = "1.1"
    labels = Xml.SubElement(Xml.SubElement(Xml.SubElement(root, "meta"), "task"), "labels")
    for entry in parts[0].categories:
        _write_label(labels, entry)
    names = {entry["id"]: str(entry.get("name", entry["id"])) for entry in parts[0].categories}
    number = 0
    for part in parts:
        for image, people in part.people_of_images():
            name = f"{part.split}/{safe_name(image['file_name'])}"
            placer.place(part.files[image["id"]], out / "images" / name)
            size: Any = {"width": str(image["width"]), "height": str(image["height"])}
            element = Xml.SubElement(root, "image", id=str(number), name=name, subset=part.split, **size)
            number += 1
            for group, (person, points) in enumerate(people, 1):
                common: Any = {"source": "manual", "z_order": "0", "group_id": str(group)}
                skeleton = Xml.SubElement(element, "skeleton", label=names[person["category_id"]], **common)
                keypoints = next(e["keypoints"] for e in part.categories if e["id"] == person["category_id"])
                for point, (x, y, v) in zip(keypoints, points, strict=True):
                    place = f"{float(x)!r},{float(y)!r}"
                    state: Any = {"outside": str(int(v == 0)), "occluded": str(int(v == 1))}
                    Xml.SubElement(skeleton, "points", label=point, source="manual", **state, points=place)
                x, y, w, h = map(float, person["bbox"])
                corners: Any = {"xtl": repr(x), "ytl": repr(y), "xbr": repr(x + w), "ybr": repr(y + h)}
                Xml.SubElement(element, "box", label=f"{names[person['category_id']]}_box", occluded="0", **corners, **common)
    Xml.indent(root)
    Xml.ElementTree(root).write(out / "annotations.xml", encoding="utf-8", xml_declaration=True)
    notes.append("CVAT has no areas, pairs, sigmas, segments or crowds of key points: they are left out")
    return out / "annotations.xml"


def _write_label(labels: Xml.Element, entry: dict[str, Any]) -> None:
    name, points = str(entry.get("name", entry["id"])), entry["keypoints"]
    label = Xml.SubElement(labels, "label")
    for key, text in (("name", name), ("type", "skeleton"), ("attributes", "")):
        Xml.SubElement(label, key).text = text
    side = max(1, round(len(points) ** 0.5))  # the template that CVAT shows: points on a grid
    places = [(10 + 80 * (i % side) / side, 10 + 80 * (i // side) / side) for i in range(len(points))]
    svg = ""
    for a, b in entry.get("skeleton") or []:
        if max(a, b) <= len(points):
            (x1, y1), (x2, y2) = places[a - 1], places[b - 1]
            svg += f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" data-type="edge" '
            svg += f'data-node-from="{a}" data-node-to="{b}"/>'
    for number, (point, (x, y)) in enumerate(zip(points, places, strict=True), 1):
        svg += f'<circle r="1.5" cx="{x:.1f}" cy="{y:.1f}" data-type="element node" data-element-id="{number}" '
        svg += f'data-node-id="{number}" data-label-name={quoteattr(point)}/>'
    Xml.SubElement(label, "svg").text = svg
    for point in points:
        child = Xml.SubElement(labels, "label")
        for key, text in (("name", point), ("type", "points"), ("attributes", ""), ("parent", name)):
            Xml.SubElement(child, key).text = text
    box = Xml.SubElement(labels, "label")
    for key, text in (("name", f"{name}_box"), ("type", "rectangle"), ("attributes", "")):
        Xml.SubElement(box, key).text = text
