"""Checks of the numbers in maps of depth and of normals, which training takes as they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rpgmt.data.check.findings import Findings

FARTHEST = 100.0
"""Metres that the median depth of a set may be without a word; in millimetres, 0.1 m are as much."""
_LARGEST = 65535
"""Of 16 bits: many programs write it where they know no depth."""
_SOME, _NEARLY_ALL = 0.01, 0.9
"""Parts of the labelled pixels that are no accident, and that are beyond doubt."""


class DepthValues:
    """Looks at the depth of a set, an image after the other.

    Args:
        unit: metres of one step of the files.
        inverse: the numbers are disparities, whose unit nobody knows.
    """

    def __init__(self, unit: float = 1.0, inverse: bool = False) -> None:
        self.inverse = inverse
        self.largest = float(np.float32(_LARGEST) * np.float32(unit))
        self.maps = self.empty = self.pixels = self.at_largest = 0
        self.medians: list[float] = []

    def add(self, values: NDArray) -> None:
        known = values[values > 0]
        self.maps += 1
        if not known.size:
            self.empty += 1
            return
        self.pixels += known.size
        self.at_largest += int((np.abs(known / self.largest - 1) < 1e-6).sum())
        self.medians.append(float(np.median(known)))

    def report(self, what: str, findings: Findings) -> None:
        """Notes; `what` begins each."""
        if self.empty:
            findings.fact(f"{what}: {self.empty} of {self.maps} maps hold no number above 0: 0 and below is no label")
        if self.inverse or not self.medians:
            return
        if (median := float(np.median(self.medians))) > FARTHEST:
            findings.fact(f"{what}: half of it is beyond {median:,.0f} m: give metres, or `unit: 0.001` of millimetres")
        if (share := self.at_largest / self.pixels) >= _SOME:
            findings.fact(
                f"{what}: {share:.0%} of the labelled pixels hold {_LARGEST}, the largest number of 16 bits: "
                "perhaps no label, which is 0"
            )


class NormalValues:
    """Looks at the normals of a set, an image after the other.

    Args:
        facing: they are meant to be in the camera's frame, x right, y down, z forward.
    """

    def __init__(self, facing: bool = True) -> None:
        self.facing = facing
        self.maps = self.empty = self.pixels = 0
        self.negative, self.positive = np.zeros(3, np.int64), np.zeros(3, np.int64)

    def add(self, values: NDArray) -> None:
        known = values[values.any(axis=2)]
        self.maps += 1
        self.empty += not len(known)
        self.pixels += len(known)
        self.negative += (known < 0).sum(axis=0)
        self.positive += (known > 0).sum(axis=0)

    def report(self, what: str, findings: Findings) -> None:
        """Notes; `what` begins each."""
        if self.empty:
            findings.fact(f"{what}: {self.empty} of {self.maps} maps hold (0, 0, 0) alone, which is no label")
        if not self.pixels:
            return
        one_sign = (self.negative == 0) | (self.positive == 0)  # `negate` may have changed it
        sideways = (self.negative + self.positive)[:2] / self.pixels  # a wall in front has 0 there
        away = self.positive[2] / self.pixels
        if one_sign.all() and (sideways >= _NEARLY_ALL).all():
            findings.fact(
                f"{what}: none of x, y and z has both signs in {self.pixels:,} pixels: perhaps (n + 1) / 2 was stored: "
                "give n itself, or a .png of colours"
            )
        elif self.facing and away >= _NEARLY_ALL:
            findings.fact(
                f"{what}: z is above 0 in {away:.0%} of the pixels, and what a camera sees faces it, with z below 0 "
                "(x right, y down, z forward): see `negate`, e.g. [z], or [y, z] where y runs up"
            )
