"""People loaded for training, by step, and how many times as fast as in the plain way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rpgmt import cli
from rpgmt.errors import UserError
from tools.benchmarks import Stopwatch, check_rounds, quartiles, ratios

IMAGES = 64
IMAGE_SIZE = (640, 480)
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


def main(argv: list[str], prog: str) -> int:
    """Times the loading of people for training in one process on one thread, against the plain way in the same run.

    Without --data-root, 640×480 JPEGs with the bytes of photographs and people of the sizes of COCO's are made for it.
    Batches of the two take turns, and only the core's time for this program counts; a ratio is of neighbouring turns. The
    plain way decodes the whole image, cuts out and turns in two warps, and makes floats and each joint's map in the loader;
    ours decodes as much as the crop needs, warps once, and makes floats and maps of a whole batch, which count in the ratio.

    Another ratio, ours alone and without random changes, is that of people one image after another, as in validation, to
    the same people mixed.
    """
    parser = cli.Parser(prog=prog, description=main.__doc__)
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="people in COCO's format, of the split `train`")
    parser.add_argument("--input-size", default="192,256", metavar="W,H", help="of the crops (default: 192,256)")
    parser.add_argument("--rounds", type=int, default=20, help="batches of each way (default: 20)")
    parser.add_argument("--json", type=cli.output_file, metavar="FILE", help="write the figures here, too")
    arguments = parser.parse_args(argv)
    check_rounds(arguments.rounds)
    input_size = _size(arguments.input_size)

    from rpgmt.tables import print_table, write_json

    with tempfile.TemporaryDirectory() as temporary, _one_thread():
        document, folder = _files(arguments.data_root) if arguments.data_root else _make_files(Path(temporary))
        record = _measure(document, folder, input_size, arguments.rounds)
    origin = f"{arguments.data_root}" if arguments.data_root else f"made JPEGs of {IMAGE_SIZE[0]}×{IMAGE_SIZE[1]}"
    record = {"title": f"loader, {origin}, crops of {input_size[0]}×{input_size[1]}, batch {BATCH}, 1 thread", **record}
    print_table(_table(record))
    if arguments.json:
        write_json(arguments.json, record)
    return 0


def _measure(document: dict[str, Any], folder: Path, input_size: tuple[int, int], rounds: int) -> dict[str, Any]:
    from rich.progress import track

    from rpgmt.data.augmentation import Augmentation
    from rpgmt.data.coco.people import CocoPeople
    from rpgmt.data.pose_crops import PoseCrops
    from tools.benchmarks.plain import PlainCrops

    own, plain = Stopwatch(), Stopwatch()
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


def _own_batch(crops: Any, epoch: int, indices: np.ndarray, watch: Stopwatch) -> np.ndarray:
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


def _plain_batch(crops: Any, indices: np.ndarray, watch: Stopwatch) -> None:
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
        watch = Stopwatch()
        watch.mark()
        for index in indices:
            crops[0, int(index)]
        watch.mark("crops")
        seconds.append(watch.seconds["crops"])
    return seconds


def _pixel_seconds(images: np.ndarray) -> float:
    """Pixel changes and a box for every crop of a batch."""
    from rpgmt.data.pixels import change_pixels, hide_part

    watch = Stopwatch()
    watch.mark()
    for seed, image in enumerate(images):
        hide_part(change_pixels(image, seed), seed)
    watch.mark("pixels")
    return watch.seconds["pixels"]


def _timed_reader(folder: Path, watch: Stopwatch) -> Any:
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


def _table(record: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=record["title"], title_justify="left")
    for column in ("ms an image, median", "ours", "plain"):
        table.add_column(column, justify="left" if column.startswith("ms") else "right")
    ways = record["ways"]
    for step, what in STEPS.items():
        values = [ways[way]["ms"][step] for way in ("ours", "plain")]
        table.add_row(f"{step}: {what}", *("–" if value is None else f"{value:.3f}" for value in values))
    table.add_section()
    table.add_row("images a second", *(f"{ways[way]['images_per_second']:.0f}" for way in ("ours", "plain")))
    low, high = record["ratio_quartiles"]
    table.add_row("rate, ours / plain: median, quartiles", f"{record['ratio']:.2f}", f"{low:.2f} … {high:.2f}")
    low, high = record["in_order_ratio_quartiles"]
    label = f"rate, image after image ({record['people_an_image']:.1f} people on one) / mixed"
    table.add_row(label, f"{record['in_order_ratio']:.2f}", f"{low:.2f} … {high:.2f}")
    table.add_row("pixel augmentation and a box, not in the above", f"{record['pixels_and_occlusion_ms']:.3f}", "")
    return table


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(number) for number in text.split(","))
    except ValueError:
        raise UserError(f"`--input-size` is {text!r}: give width and height in pixels, e.g. 192,256") from None
    if min(width, height) < 4 * STRIDE or width % STRIDE or height % STRIDE:
        raise UserError(f"`--input-size` is {text!r}: give multiples of {STRIDE} from {4 * STRIDE} on, e.g. 192,256")
    return width, height


@contextmanager
def _one_thread() -> Iterator[None]:
    import cv2
    import torch

    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def _files(root: Path) -> tuple[dict[str, Any], Path]:
    from rpgmt.data.coco.data_root import find_files
    from rpgmt.data.coco.people import CocoPeople

    path, folder = find_files(root, "train")
    return CocoPeople.from_files(path, folder).annotations, folder


def _make_files(folder: Path) -> tuple[dict[str, Any], Path]:
    """Images with a falling spectrum, which take as many bytes as photographs do, and people all over them."""
    import cv2

    from rpgmt.data.coco.skeletons import COCO_KEYPOINTS

    rng = np.random.default_rng(0)
    width, height = IMAGE_SIZE
    images, annotations = [], []
    for number in range(1, IMAGES + 1):
        name = f"{number}.jpg"
        cv2.imwrite(str(folder / name), _photograph(rng), [cv2.IMWRITE_JPEG_QUALITY, 90])
        images.append({"id": number, "width": width, "height": height, "file_name": name})
        # Log-normal heights and aspects: the fit to the boxes of COCO's people.
        h = min(np.exp(rng.normal(4.96, 0.68)), height)
        w = min(h * np.exp(rng.normal(-0.47, 0.53)), width)
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        points = np.column_stack([rng.uniform(x, x + w, 17), rng.uniform(y, y + h, 17), np.full(17, 2)])
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": [x, y, w, h],
                "area": 0.53 * w * h,
                "keypoints": points.ravel().tolist(),
            }
        )
    category = {"id": 1, "name": "person", "keypoints": list(COCO_KEYPOINTS.names)}
    return {"images": images, "annotations": annotations, "categories": [category]}, folder


def _photograph(rng: np.random.Generator) -> np.ndarray:
    width, height = IMAGE_SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1  # the mean
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((3, height, width))) / frequency**1.4, s=(height, width))
    grey, *colours = noise / noise.std((1, 2), keepdims=True)
    channels = np.stack([grey + 0.3 * colours[0], grey, grey + 0.3 * colours[1]], axis=-1)
    return np.clip(127 + 50 * channels, 0, 255).astype(np.uint8)
