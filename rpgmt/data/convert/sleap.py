"""SLEAP's labels as JSON, as `sleap_io.codecs.dictionary.to_dict` has them (sleap-io, version "1.0.0" of its dictionary).

    skeletons       [{name, nodes: [names], edges: [[i, j]], symmetries: [[i, j]]}]
    videos          [{filename: a video's file, or a list of images}]
    labeled_frames  [{frame_idx, video_idx, instances: [{type, skeleton_idx, points: [{x, y, visible, complete}]}]}]

SLEAP's own `.slp` is HDF5 and is read where the package `sleap-io` is installed. A place that is not a number is not
labelled, one that is not visible is hidden. There are no boxes. Predicted instances are left out. (0, 0) is the centre of the
first pixel.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2

from rpgmt.config.json_files import read_json
from rpgmt.data.convert.image_files import Claims, ImageFinder, Placer
from rpgmt.data.convert.labels import Part, Point, box_round, category, count_text, pairs_by_name, safe_name, split_of
from rpgmt.data.convert.labels import flip_pairs as pairs_of
from rpgmt.data.image_headers import image_size
from rpgmt.errors import UserError
from rpgmt.whole_files import write_text


def read(source: Path, images: Path | None, notes: list[str]) -> list[Part]:
    """A JSON or `.slp` file, or a folder with `train.json` and `val.json`.

    Frames of a video become PNG files beside the source, in `<name>_frames/`.

    Raises:
        UserError: the file is malformed, or a video or an image is missing.
    """
    if source.is_dir():
        files = [source / f"{split}.json" for split in ("train", "val", "test", "all") if (source / f"{split}.json").is_file()]
        if not files:
            raise UserError(f"{source}: no train.json or val.json in it: give SLEAP's file itself")
        claims = Claims()
        return [_read(path, path.stem, images, notes, claims) for path in files]
    return [_read(source, split_of(source.stem if source.stem in ("train", "val", "test") else None), images, notes, {})]


def _labels(path: Path) -> Any:
    if path.suffix != ".slp":
        return read_json(path)
    try:
        import sleap_io
        from sleap_io.codecs.dictionary import to_dict
    except ImportError as error:
        raise UserError(f"{path}: SLEAP's .slp needs the package sleap-io: pip install sleap-io") from error
    return to_dict(sleap_io.load_slp(str(path), open_videos=False))


def _read(path: Path, split: str, images: Path | None, notes: list[str], claims: Claims) -> Part:
    labels = _labels(path)
    keys = ("skeletons", "videos", "labeled_frames")
    if not isinstance(labels, dict) or not all(isinstance(labels.get(key), list) for key in keys):
        raise UserError(f"{path}: not SLEAP's labels as JSON: it needs the lists {', '.join(keys)} (sleap-io's `to_dict`)")
    try:
        categories = [_category(number, entry) for number, entry in enumerate(labels["skeletons"], 1)]
        frames = [(frame["video_idx"], frame["frame_idx"], frame["instances"]) for frame in labels["labeled_frames"]]
        videos = [video["filename"] for video in labels["videos"]]
        people = [[_instance(one, categories) for one in found if one["type"] == "instance"] for *_, found in frames]
        predicted = sum(one["type"] != "instance" for *_, found in frames for one in found)
        if not all(isinstance(number, int) and number >= 0 for video, frame, _ in frames for number in (video, frame)):
            raise ValueError("a `video_idx` or `frame_idx` is no whole number from 0")
        if any(not isinstance(name, str) for video in videos for name in (video if isinstance(video, list) else [video])):
            raise ValueError("a `filename` is no text or list of texts")
        if any(not 0 <= video < len(videos) for video, *_ in frames):
            raise UserError(f"{path}: `video_idx` of a frame is beyond the {len(videos)} videos")
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{path}: not SLEAP's labels as JSON: {type(error).__name__} {error}") from error
    files = _frame_files(path, videos, [(video, frame) for video, frame, _ in frames], images, claims)
    part = Part(split, categories)
    for (video, frame, _), found in zip(frames, people, strict=True):
        name, file = files[video, frame]
        size = image_size(file)
        number = part.add_image(name, *size, file)
        for entry, points in found:
            if any(point[2] for point in points):
                part.add_person(number, entry["id"], points, box_round(points, *size))
    notes.append("SLEAP has no boxes: they are round the points")
    if predicted:
        notes.append(f"{count_text(predicted, 'predicted instance')} left out: only labels are taken over")
    return part


def _category(number: int, skeleton: dict[str, Any]) -> dict[str, Any]:
    names = [str(node) for node in skeleton["nodes"]]
    edges = [[a + 1, b + 1] for a, b in skeleton.get("edges") or []]
    pairs = skeleton.get("symmetries")
    own = None if pairs is None else pairs_by_name(names, [(a, b) for a, b in pairs])
    return category(number, skeleton.get("name") or f"animal{number}", names, skeleton=edges or None, flip_pairs=own)


def _instance(instance: dict[str, Any], categories: list[dict[str, Any]]) -> tuple[dict[str, Any], list[Point]]:
    entry = categories[instance["skeleton_idx"]]
    if len(instance["points"]) != len(entry["keypoints"]):
        raise IndexError(f"an instance has {len(instance['points'])} points and its skeleton {len(entry['keypoints'])}")
    return entry, [_point(point) for point in instance["points"]]


def _point(point: dict[str, Any]) -> Point:
    place = [math.nan if point[axis] is None else float(point[axis]) for axis in "xy"]
    if not all(map(math.isfinite, place)):
        return 0.0, 0.0, 0
    return place[0], place[1], 2 if point.get("visible", True) else 1


def _frame_files(
    path: Path, videos: list[Any], frames: list[tuple[int, int]], images: Path | None, claims: Claims
) -> dict[tuple[int, int], tuple[str, Path]]:
    """Of each frame its name and its image file."""
    finder = ImageFinder([images] if images else [path.parent, path.parent / "images"], path, claims)
    wanted: dict[int, list[int]] = defaultdict(list)
    result: dict[tuple[int, int], tuple[str, Path]] = {}
    for video, frame in frames:
        names = videos[video]
        if isinstance(names, list):
            if not 0 <= frame < len(names):
                raise UserError(f"{path}: `frame_idx` {frame} is beyond the {len(names)} images of video {video}")
            name = safe_name(names[frame])
            if file := finder.find(name):
                below = [folder for folder in finder.folders if file.is_relative_to(folder)]
                title = file.relative_to(below[0]).as_posix() if below else file.name
                result[video, frame] = title.removeprefix(f"images/{path.stem}/"), file
        else:
            wanted[video].append(frame)
    finder.check()
    for video, numbers in wanted.items():
        file = finder.find(str(videos[video]))
        if file is None:
            raise UserError(f"{path}: video {videos[video]} is missing: give its folder by --images DIR")
        folder = path.parent / f"{path.stem}_frames"
        for number, target in _extract(file, sorted(set(numbers)), folder, video).items():
            result[video, number] = target.name, target
    return result


def _extract(video: Path, numbers: list[int], folder: Path, index: int) -> dict[int, Path]:
    """Writes frames as PNG. A video is read through: seeking is not exact in all formats."""
    folder.mkdir(exist_ok=True)
    capture, found = cv2.VideoCapture(str(video)), {}
    try:
        for number in range(numbers[-1] + 1):
            if not capture.grab():
                raise UserError(f"{video}: ends before frame {numbers[-1]}, which is labelled")
            if number in numbers:
                target = folder / f"{index}_{video.stem}_{number:06d}.png"
                _, frame = capture.retrieve()
                if frame is None or not cv2.imwrite(str(target), frame):
                    raise UserError(f"{video}: frame {number} cannot be read")
                found[number] = target
    finally:
        capture.release()
    return found


def write(parts: list[Part], out: Path, placer: Placer, notes: list[str]) -> Path:
    """Writes `<split>.json` and `images/<split>/`, and returns the folder.

    `sleap_io.codecs.dictionary.from_dict` reads the file, and its `save_slp` makes SLEAP's own of it.
    """
    hidden = 0
    for part in parts:
        order = {entry["id"]: number for number, entry in enumerate(part.categories)}
        names: list[str] = []
        frames = []
        for image, people in part.people_of_images():
            name = f"images/{part.split}/{safe_name(image['file_name'])}"
            placer.place(part.files[image["id"]], out / name)
            hidden += sum(v == 1 for _, points in people for *_, v in points)
            instances = [_to_instance(order[person["category_id"]], points) for person, points in people]
            frames.append({"frame_idx": len(names), "video_idx": 0, "instances": instances})
            names.append(name)
        labels = {
            "version": "1.0.0",
            "skeletons": [_to_skeleton(entry) for entry in part.categories],
            "videos": [{"filename": names}],
            "tracks": [],
            "labeled_frames": frames,
            "suggestions": [],
            "provenance": {},
        }
        write_text(out / f"{part.split}.json", json.dumps(labels))
    notes.append("SLEAP has no boxes, areas, sigmas or segments: they are left out")
    if hidden:
        notes.append(f"{count_text(hidden, 'hidden key point')} are as good as visible ones: SLEAP's reader drops the hidden")
    return out


def _to_skeleton(entry: dict[str, Any]) -> dict[str, Any]:
    edges = [[a - 1, b - 1] for a, b in entry.get("skeleton") or [] if max(a, b) <= len(entry["keypoints"])]
    skeleton = {"name": str(entry.get("name", entry["id"])), "nodes": list(entry["keypoints"]), "edges": edges}
    return skeleton | {"symmetries": [sorted(pair) for pair in pairs_of(entry)]}


def _to_instance(skeleton: int, points: list[Point]) -> dict[str, Any]:
    # sleap-io's own reader drops the place of a point that is not visible, so hidden ones count as visible.
    found = [
        {"x": float(x) if v else math.nan, "y": float(y) if v else math.nan, "visible": v > 0, "complete": False}
        for x, y, v in points
    ]
    return {"type": "instance", "skeleton_idx": skeleton, "points": found}
