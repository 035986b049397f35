"""People loaded for training, by step, and how many times as fast as in the plain way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rpgmt import cli
from rpgmt.errors import UserError
from tools.benchmarks.common.flags import add_json, add_rounds, check_positive
from tools.benchmarks.common.made_images import IMAGE_SIZE, make_files
from tools.benchmarks.loader.timing import BATCH, STEPS, STRIDE, measure


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
    add_rounds(parser, "batches of each way")
    add_json(parser)
    arguments = parser.parse_args(argv)
    check_positive("--rounds", arguments.rounds)
    input_size = _size(arguments.input_size)

    from rpgmt.tables import print_table, write_json

    with tempfile.TemporaryDirectory() as temporary, _one_thread():
        document, folder = _files(arguments.data_root) if arguments.data_root else make_files(Path(temporary))
        record = measure(document, folder, input_size, arguments.rounds)
    origin = f"{arguments.data_root}" if arguments.data_root else f"made JPEGs of {IMAGE_SIZE[0]}×{IMAGE_SIZE[1]}"
    record = {"title": f"loader, {origin}, crops of {input_size[0]}×{input_size[1]}, batch {BATCH}, 1 thread", **record}
    print_table(_table(record))
    if arguments.json:
        write_json(arguments.json, record)
    return 0


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
