"""The files that a comparison of networks leaves."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rpgmt.tables import write_json
from rpgmt.whole_files import whole_file, write_text


def write(
    out: Path,
    header: Sequence[str],
    lines: Iterable[Sequence[Any]],
    paragraphs: Sequence[str],
    record: Mapping[str, Any],
    draw: Callable[[Path], None] | None,
    also: Path | None,
) -> None:
    """Writes benchmark.csv, table.md, benchmark.png and benchmark.json.

    Args:
        out: the folder.
        header: of the CSV.
        lines: of the CSV.
        paragraphs: of the Markdown.
        record: the JSON.
        draw: draws the PNG; None where there is nothing to draw.
        also: another path for the JSON.
    """
    with whole_file(out / "benchmark.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
    write_text(out / "table.md", "\n\n".join(paragraphs) + "\n")
    names = ["benchmark.csv", "table.md"]
    if draw is not None:
        draw(out / "benchmark.png")
        names.append("benchmark.png")
    print(f"written: {', '.join(str(out / name) for name in names)}")
    for path in (out / "benchmark.json", also):
        if path:
            write_json(path, record)
