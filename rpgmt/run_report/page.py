"""The page: what of a run, or of several side by side, is shown in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rpgmt.run_report.compare import comparison
from rpgmt.run_report.curves import chart, legend, stage_colours
from rpgmt.run_report.facts import counts_section, run_section, tiles, title
from rpgmt.run_report.html import Html, details, joined, tag
from rpgmt.run_report.metrics import metrics_section
from rpgmt.run_report.pictures import gallery_section, stage_weights_section
from rpgmt.run_report.runs import Run, read_runs
from rpgmt.whole_files import write_text

STYLE = Path(__file__).with_name("style.css")
PICTURE_BYTES = 2_000_000
"""Of all pictures of a page, before they are written as text."""
# No script, nothing from elsewhere: a browser holds the page to it, whatever a name in it may contain.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def write_report(folders: Sequence[Path], file: Path) -> None:
    """Write one page, which needs no other file, from the folders of one run or of several.

    Args:
        folders: of the runs; at least one.
        file: to write.

    Raises:
        UserError: a folder is none of a run, or a file in it cannot be read.
    """
    text = page(read_runs(folders))
    write_text(file, text, folders=True)


def page(runs: Sequence[Run]) -> Html:
    """The page of one run, or of several: they are compared, and each follows on its own."""
    heading = title(runs[0]) if len(runs) == 1 else f"{len(runs)} runs"
    parts = _one(runs[0], "", PICTURE_BYTES) if len(runs) == 1 else _several(runs)
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", f"{heading} · rpgmt"),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(STYLE.read_text(encoding="utf-8"))),
    ]
    footer = tag("footer", "Made by rpgmt from the files of the run; this page needs no other file and no network.")
    body = tag("body", *parts, footer)
    return Html("<!DOCTYPE html>\n" + tag("html", tag("head", *head), body, lang="en") + "\n")


def _one(run: Run, prefix: str, picture_bytes: int) -> Iterator[Html]:
    """A run's heading, and its sections.

    Args:
        run: what is shown.
        prefix: of the sections' ids, so that they differ from those of other runs.
        picture_bytes: that its pictures may take.
    """
    sections = {
        "run": ("Run", run_section(run)),
        "metrics": ("Metrics", metrics_section(run)),
        "curves": ("Curves", _curves(run)),
        "parameters": ("Parameters", counts_section(run)),
        "predictions": ("Predictions", gallery_section(run, picture_bytes)),
        "stages": ("What the stages have in common", stage_weights_section(run)),
    }
    there = {name: (heading, content) for name, (heading, content) in sections.items() if content}
    links = [tag("a", heading, href=f"#{prefix}{name}") for name, (heading, _) in there.items()]
    yield tag(
        "header",
        tag("h1", title(run)) if not prefix else tag("h2", title(run)),
        tag("p", str(run.folder), class_="lead"),
        tag("nav", *links, aria_label=f"Sections of {run.name}"),
        tiles(run),
    )
    level = "h3" if prefix else "h2"
    blocks = [tag("section", tag(level, heading), content, id=prefix + name) for name, (heading, content) in there.items()]
    yield tag("main" if not prefix else "div", *blocks)


def _several(runs: Sequence[Run]) -> Iterator[Html]:
    yield tag(
        "header", tag("h1", f"{len(runs)} runs side by side"), tag("p", ", ".join(run.name for run in runs), class_="lead")
    )
    each = [
        tag("section", details(f"{run.name}: the whole report", *_one(run, f"run-{n}-", PICTURE_BYTES // len(runs))))
        for n, run in enumerate(runs, 1)
    ]
    yield tag("main", *comparison(runs), *each)


def _curves(run: Run) -> Html | None:
    """The losses and each task's first metric; the rest folded away."""
    if not run.curves:
        return None
    names = list(dict.fromkeys(line for lines in run.curves.values() for line in lines))
    colours = stage_colours(sorted(names))
    firsts = {f"val/{names[0]}" for names in run.by_task.values()}
    shown = {"train/loss", "val/loss", *firsts} & run.curves.keys()
    drawn = {panel: chart(panel, run.axis, lines, colours) for panel, lines in run.curves.items()}
    rest = [drawing for panel, drawing in drawn.items() if panel not in shown]
    return joined(
        [
            legend(colours),
            tag("div", *(drawing for panel, drawing in drawn.items() if panel in shown), class_="charts"),
            details(f"{len(rest)} more curves", tag("div", *rest, class_="charts")) if rest else None,
        ]
    )
