"""What the key points of a data set are: their names, the left/right pairs, the skeleton and the OKS constants."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_SIGMA = 0.05
"""OKS sigma of a point without a published one: about the middle of COCO's (0.025 for an eye, 0.107 for a hip)."""


@dataclass(frozen=True, kw_only=True)
class KeypointSet:
    """The K key points of a data set.

    Args:
        names: K names.
        flip_pairs: pairs of indices (zero-based) that a mirror image swaps, e.g. (left_eye, right_eye).
        skeleton: edges to draw, as pairs of zero-based indices (COCO's own files count from one).
        sigmas: K constants of COCO's object key-point similarity, exp(-d² / (2 · area · (2 · sigma)²)).

    Raises:
        ValueError: an index is not one of the K points, a point has two mirror images, or there are not K sigmas.
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    skeleton: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("`names` is empty: give the name of at least one key point")
        if len(self.sigmas) != len(self.names) or min(self.sigmas) <= 0:
            raise ValueError(f"`sigmas` is {self.sigmas}: give one positive number for each of {len(self.names)} points")
        for what, pairs in (("flip_pairs", self.flip_pairs), ("skeleton", self.skeleton)):
            if any(not 0 <= index < len(self.names) for pair in pairs for index in pair):
                raise ValueError(f"`{what}` is {pairs}: indices are zero-based and below {len(self.names)}")
        mirrored = [index for pair in self.flip_pairs for index in pair]
        if len(mirrored) != len(set(mirrored)):
            raise ValueError(f"`flip_pairs` is {self.flip_pairs}: a key point has one mirror image at most")

    def __len__(self) -> int:
        """K."""
        return len(self.names)

    @property
    def flip_order(self) -> tuple[int, ...]:
        """For each point the index of its mirror image (its own where it has none): `flipped = points[flip_order]`."""
        order = list(range(len(self.names)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)


def infer_flip_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Pairs of points whose names differ only in `left` and `right`, e.g. left_eye and right_eye."""
    lower = [name.lower() for name in names]
    mirror = {name.replace("left", "right"): index for index, name in enumerate(lower) if "left" in name}
    return tuple((mirror[name], index) for index, name in enumerate(lower) if name in mirror)


# Names, edges and sigmas of the COCO key-point challenge (cocodataset.org, "Keypoint Evaluation").
_COCO_NAMES = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)

COCO_KEYPOINTS = KeypointSet(
    names=_COCO_NAMES,
    flip_pairs=infer_flip_pairs(_COCO_NAMES),
    skeleton=(
        (15, 13),
        (13, 11),
        (16, 14),
        (14, 12),
        (11, 12),
        (5, 11),
        (6, 12),
        (5, 6),
        (5, 7),
        (6, 8),
        (7, 9),
        (8, 10),
        (1, 2),
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (4, 6),
    ),
    sigmas=(
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ),
)
"""The 17 key points of a person in COCO."""
