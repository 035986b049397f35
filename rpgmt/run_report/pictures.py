"""Predictions as pictures, and how alike the stages' weights are."""

from __future__ import annotations

import base64
from typing import Any

from rpgmt.data.file_names import file_inside
from rpgmt.run_report.facts import figure
from rpgmt.run_report.html import Html, details, joined, table, tag
from rpgmt.run_report.runs import Run


def gallery_section(run: Run, most_bytes: int) -> Html | None:
    """The best, the middle and the worst samples of each task, and how the figure spreads over all of them.

    Args:
        run: whose.
        most_bytes: that pictures may take together; rows that do not fit are left out, and that is said.
    """
    parts: list[object] = []
    left_out = 0
    folder = run.folder / "gallery"
    for group in run.gallery:
        better = "higher" if group["higher"] else "lower"
        about = (
            f"Ranked by {group['figure']} of the last stage, {better} is better, over {group['samples']:,} labelled samples."
        )
        parts += [tag("h3", group["name"]), tag("p", about, class_="note"), _spread(group)]
        for row in group["rows"]:
            names = [picture["file"] for picture in row["pictures"]]
            files = {name: file_inside(folder, name, str(folder / "gallery.json")) for name in names}
            data = {name: file.read_bytes() for name, file in files.items() if file.is_file()}
            size = sum(map(len, data.values()))
            if size > most_bytes or len(data) < len(files):
                left_out += 1
                continue
            most_bytes -= size
            parts.append(tag("p", tag("b", row["rank"]), f" · {row['sample']}" if row["sample"] else None, class_="sample"))
            parts.append(tag("div", *(_shot(picture, data, group, row) for picture in row["pictures"]), class_="shots"))
    if left_out:
        parts.append(tag("p", f"{left_out} more rows of pictures are in {run.folder / 'gallery'}.", class_="note"))
    return joined(parts) if parts else None


def stage_weights_section(run: Run) -> Html | None:
    """A matrix of correlations between stages, and in words where the weights come from."""
    stages, model = run.stages, run.config.get("model", {})
    if stages is None:
        return None
    mean, names = stages.mean, [f"stage {number}" for number in range(1, len(stages.mean) + 1)]
    layer, i, j, strongest = stages.strongest()
    text = (
        f"{origin(model.get('sharing', ''), model.get('rpg_scope', ''))} The matrix is Pearson's correlation between the "
        f"convolutions' weights of two stages, layer by layer, averaged over {len(stages.layers)} layers by their "
        f"{stages.weights:,} weights. 1: the same weights. Unrelated ones stay within ±{stages.by_chance:.3f} as a rule. "
        f"Of single layers {layer} is most alike: {strongest:.3f}, stages {i} and {j}."
    )
    rows = [[tag_name, *map(_cell, values)] for tag_name, values in zip(names, mean.tolist(), strict=True)]
    return joined([tag("p", text), _heat(["", *names], rows), details(f"The {len(stages.layers)} layers", _layers(run))])


def origin(sharing: str, scope: str) -> str:
    """Where the stages' weights come from, in a sentence."""
    if sharing == "tied":
        return "All stages have one copy of the convolutions' weights."
    if sharing == "none":
        return "Every stage has convolutions' weights of its own, trained apart."
    if sharing == "signed":
        return "Every stage has convolutions of its own, whose weights share magnitudes and have learned signs."
    if sharing == "tied_norms":
        return "All stages have one copy of the convolutions' weights, and of norms and biases."
    if sharing == "low_rank":
        return "All stages have one copy of the convolutions' weights, to which each adds a sum of low rank of its own."
    banks = {
        "stage": "every stage from a bank of its own",
        "global": "all stages from one bank",
        "block": "each block of all stages from one bank",
        "layer": "every layer from a bank of its own",
    }
    return f"The stages' weights are generated, {banks.get(scope, 'from banks')}: places and signs differ from stage to stage."


def _spread(group: dict[str, Any]) -> Html | None:
    if not group["spread"]:
        return None
    several = len(group["spread"]) > 1
    rows = [[f"stage {n}" if several else "all", *map(figure, values)] for n, values in enumerate(group["spread"], 1)]
    head = ["", "10 % have at most", "half have at most", "90 % have at most"]
    return table(f"How {group['figure']} spreads over the samples", head, rows, class_="figures")


def _shot(picture: dict[str, Any], data: dict[str, bytes], group: dict[str, Any], row: dict[str, Any]) -> Html:
    width, height = picture["size"]
    source = "data:image/webp;base64," + base64.b64encode(data[picture["file"]]).decode("ascii")
    value = picture["figure"]
    says = [
        group["name"],
        row["rank"],
        row["sample"],
        picture["title"],
        f"{group['figure']} {figure(value)}" if value is not None else "",
    ]
    image = tag("img", src=source, width=width, height=height, alt=", ".join(filter(None, says)))
    caption = tag("figcaption", picture["title"], *([" ", tag("b", figure(value))] if value is not None else []))
    return tag("figure", image, caption)


def _cell(value: float) -> Html:
    deep = abs(value) > 0.6
    tone = "--accent" if value >= 0 else "--against"
    style = f"--tone: var({tone}); --much: {100 * min(abs(value), 1.0):.0f}%"
    return tag("td", f"{value:.3f}", class_="deep" if deep else None, style=style)


def _heat(head: list[str], rows: list[list[Any]]) -> Html:
    names = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head)))
    body = tag("tbody", *(tag("tr", tag("th", row[0], scope="row"), *row[1:]) for row in rows))
    caption = "Correlation between the stages' weights"
    inside = tag("table", tag("caption", caption), names, body, class_="heat")
    return tag("div", inside, class_="wide", tabindex=0, role="region", aria_label=caption)


def _layers(run: Run) -> Html:
    assert run.stages is not None
    rows = []
    for name, (count, correlation) in run.stages.layers.items():
        between = [float(correlation[i, j]) for i in range(len(correlation)) for j in range(i)]
        rows.append(
            [name, f"{count:,}", *(f"{value:.3f}" for value in (min(between), sum(between) / len(between), max(between)))]
        )
    return table("Correlation between two stages, by layer", ["layer", "weights", "least", "mean", "greatest"], rows)
