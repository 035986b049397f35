"""Colours of the benchmarks' pictures, and how they are saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLACK, BLUE, VERMILION, GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY_BLUE = "#CC79A7", "#E69F00", "#56B4E9"
"""Okabe and Ito's: the colour-blind tell them apart, too."""
STYLES = ((BLACK, "X"), (BLUE, "o"), (VERMILION, "s"), (GREEN, "D"), (PURPLE, "^"), (ORANGE, "v"), (SKY_BLUE, "P"))
"""Colours with markers, told apart by shape as well."""


def save(figure: Figure, path: Path) -> None:
    """Draws a figure to a PNG of at most 300 KB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from rpgmt.visualize import save_png

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    save_png(path, np.asarray(canvas.buffer_rgba())[:, :, :3], max_bytes=300_000)
