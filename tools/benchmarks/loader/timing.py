"""The time of loading people, by step: in our way, in the plain one, and in the order of the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tools.benchmarks.common.stopwatch import ThreadStopwatch
from tools.benchmarks.common.turns import quartiles, ratios

BATCH = 32
STRIDE = 4
"""Input pixels in a cell of the heat maps."""
STEPS = {
    "read": "the file's bytes",
    "decode": "JPEG to RGB",
    "warp": "crop, scale and turn; its points",
    "augmentation": "mirror image",
    "float": "normalised pixels",
    "targets": "heat maps",
    "collate": "samples to a batch",
}


def measure(document: dict[str, Any], folder: Path, input_size: tuple[int, int], rounds: int) -> dict[str, Any]:
    from rich.progress import track

    from rpgmt.data.augmentation import Augmentation
    from rpgmt.data.coco.people import CocoPeople
    from rpgmt.data.pose_crops import PoseCrops
    from tools.benchmarks.loader.plain_crops import PlainCrops

    own, plain = ThreadStopwatch(), ThreadStopwatch()
    people = CocoPeople(document, _timed_reader(folder, own), name=str(folder))
    crops = PoseCrops(people, input_size, augment=Augmentation())
    others = PlainCrops(people.people, folder, people.keypoints.flip_pairs, input_size, plain)
    still = PoseCrops(people, input_size)
    seconds: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
    pixels: list[float] = []
    for turn in track(range(-1, rounds), "batches", transient=True):  # what is made in the first one does not count
        indices = np.random.default_rng(turn + 1).integers(0, len(people.people), BATCH)
        for way in ("ours", "plain") if turn % 2 else ("plain", "ours"):
            if way == "ours":
                images = _own_batch(crops, turn + 1, indices, own)
            else:
                _plain_batch(others, indices, plain)
        changed = _pixel_seconds(images)
        if turn >= 0:
            seconds["ours"].append(own.seconds)
            seconds["plain"].append(plain.seconds)
            pixels.append(changed)
        own.seconds, plain.seconds = {}, {}
    orders = [_order_seconds(still, turn) for turn in range(rounds)]
    ordered_ratio = ratios([mixed for mixed, _ in orders], [following for _, following in orders])
    in_order = {
        "people_an_image": len(people.people) / len({person.image["id"] for person in people.people}),
        "in_order_ratio": ordered_ratio["ratio"],
        "in_order_ratio_quartiles": ordered_ratio["ratio_quartiles"],
    }
    return {**_record(seconds, pixels, rounds), **in_order}


def _own_batch(crops: Any, epoch: int, indices: np.ndarray, watch: ThreadStopwatch) -> np.ndarray:
    """One batch as training loads it, up to normalised floats and heat maps; its crops."""
    from torch.utils.data import default_collate

    from rpgmt.codecs.heatmap import Heatmap
    from rpgmt.data.images import normalize

    width, height = crops.input_size
    codec = Heatmap(input_size=(width, height), heatmap_size=(width // STRIDE, height // STRIDE), sigma=2.0)
    samples = []
    watch.mark()
    for index in indices:
        samples.append(crops[epoch, int(index)])
        watch.mark("warp")  # the rest: reading and decoding have marked their own
    batch = default_collate(samples)
    watch.mark("collate")
    normalize(batch["image"])
    watch.mark("float")
    codec.encode(batch["keypoints"], batch["visibility"])
    watch.mark("targets")
    return batch["image"].numpy()


def _plain_batch(crops: Any, indices: np.ndarray, watch: ThreadStopwatch) -> None:
    from torch.utils.data import default_collate

    samples = [crops[int(index)] for index in indices]
    watch.mark()
    default_collate(samples)
    watch.mark("collate")


def _order_seconds(crops: Any, turn: int) -> list[float]:
    """As many people as a batch has: mixed, and one image after another."""
    people = crops.people.people
    following = sorted(range(len(people)), key=lambda index: people[index].image["id"])
    start = turn * BATCH % len(people)
    following = (following * (BATCH // len(people) + 2))[start : start + BATCH]
    seconds = []
    for indices in (np.random.default_rng(turn).permutation(following), following):
        watch = ThreadStopwatch()
        watch.mark()
        for index in indices:
            crops[0, int(index)]
        watch.mark("crops")
        seconds.append(watch.seconds["crops"])
    return seconds


def _pixel_seconds(images: np.ndarray) -> float:
    """Pixel changes and a box for every crop of a batch."""
    from rpgmt.data.pixels import change_pixels, hide_part

    watch = ThreadStopwatch()
    watch.mark()
    for seed, image in enumerate(images):
        hide_part(change_pixels(image, seed), seed)
    watch.mark("pixels")
    return watch.seconds["pixels"]


def _timed_reader(folder: Path, watch: ThreadStopwatch) -> Any:
    """Reads and decodes as `read_image_file` does, in two steps that are timed."""
    from rpgmt.data.images import decode_image

    def read(entry: dict[str, Any], *need: int) -> np.ndarray:
        watch.mark("warp")
        with open(folder / entry["file_name"], "rb", buffering=0) as file:
            data = file.read()
        watch.mark("read")
        image = decode_image(data, entry["width"], entry["height"], *need, name=entry["file_name"])
        watch.mark("decode")
        return image

    return read


def _record(seconds: dict[str, list[dict[str, float]]], pixels: list[float], rounds: int) -> dict[str, Any]:
    totals = {way: [sum(batch.values()) for batch in batches] for way, batches in seconds.items()}
    ways = {}
    for way, batches in seconds.items():
        steps = {step: [1000 * batch[step] / BATCH for batch in batches if step in batch] for step in STEPS}
        low, median, high = quartiles([BATCH / total for total in totals[way]])
        ways[way] = {
            "images_per_second": median,
            "images_per_second_quartiles": [low, high],
            "ms": {step: quartiles(values)[1] if values else None for step, values in steps.items()},
        }
    return {
        "rounds": rounds,
        "ways": ways,
        **ratios(totals["plain"], totals["ours"]),
        "pixels_and_occlusion_ms": 1000 * quartiles(pixels)[1] / BATCH,
    }
