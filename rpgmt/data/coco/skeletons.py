"""What the key points of a data set are: their names, the left/right pairs, the skeleton and the OKS constants."""

from __future__ import annotations

from dataclasses import dataclass

from rpgmt.data.coco.keypoint_names import infer_flip_pairs, upper_body

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
        upper: zero-based indices of the upper body, for half-body augmentation; empty where there are no halves.

    Raises:
        ValueError: an index is not one of the K points, a point has two mirror images, or there are not K sigmas.
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    skeleton: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    upper: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("`names` is empty: give the name of at least one key point")
        if len(self.sigmas) != len(self.names) or min(self.sigmas) <= 0:
            raise ValueError(f"`sigmas` is {self.sigmas}: give one positive number for each of {len(self.names)} points")
        for what, pairs in (("flip_pairs", self.flip_pairs), ("skeleton", self.skeleton), ("upper", (self.upper,))):
            if any(not 0 <= index < len(self.names) for pair in pairs for index in pair):
                raise ValueError(f"`{what}` is {getattr(self, what)}: indices are zero-based and below {len(self.names)}")
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


def _people_set(names: str, skeleton: str, sigmas: dict[str, float]) -> KeypointSet:
    """A set from names in order, edges of zero-based indices, and the sigma of each part."""
    split = tuple(names.split())
    edges = (edge.split("-") for edge in skeleton.split())
    return KeypointSet(
        names=split,
        flip_pairs=infer_flip_pairs(split),
        skeleton=tuple((int(a), int(b)) for a, b in edges),
        sigmas=tuple(sigmas[name.removeprefix("left_").removeprefix("right_")] for name in split),
        upper=upper_body(split),
    )


_COCO_LIMBS = {"shoulder": 0.079, "elbow": 0.072, "wrist": 0.062, "hip": 0.107, "knee": 0.087, "ankle": 0.089}

COCO_KEYPOINTS = _people_set(
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle",
    "15-13 13-11 16-14 14-12 11-12 5-11 6-12 5-6 5-7 6-8 7-9 8-10 1-2 0-1 0-2 1-3 2-4 3-5 4-6",
    {"nose": 0.026, "eye": 0.025, "ear": 0.035, **_COCO_LIMBS},
)
"""The 17 key points of a person in COCO; names, edges and sigmas of cocodataset.org, "Keypoint Evaluation"."""

MPII_KEYPOINTS = _people_set(
    "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax upper_neck head_top "
    "right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist",
    "0-1 1-2 2-6 6-3 3-4 4-5 6-7 7-8 8-9 8-12 12-11 11-10 8-13 13-14 14-15",
    {"ankle": 0.089, "knee": 0.083, "hip": 0.107, "pelvis": 0.026, "thorax": 0.026, "upper_neck": 0.026}
    | {"head_top": 0.026, "wrist": 0.062, "elbow": 0.072, "shoulder": 0.179},
)
"""The 16 joints of MPII Human Pose (Andriluka et al., CVPR 2014) in the order of its files.

MPII is measured by PCKh and has no OKS of its own: the sigmas are those that MMPose gives it (`mpii.py` of its data set
descriptions), knees and shoulders other than COCO's included, so that an OKS here is the same as there.
"""

CROWDPOSE_KEYPOINTS = _people_set(
    "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee "
    "left_ankle right_ankle head neck",
    "10-8 8-6 11-9 9-7 6-7 0-6 1-7 0-1 0-2 1-3 2-4 3-5 12-13 1-13 0-13",
    {**_COCO_LIMBS, "head": 0.079, "neck": 0.079},
)
"""The 14 key points of CrowdPose (Li et al., CVPR 2019), with the sigmas of its evaluation code.

`head` is the top of the head. The edges are not those of its files, which are COCO's and point past the 14.
"""

LSP_KEYPOINTS = _people_set(
    "right_ankle right_knee right_hip left_hip left_knee left_ankle right_wrist right_elbow right_shoulder "
    "left_shoulder left_elbow left_wrist neck head_top",
    "0-1 1-2 2-3 3-4 4-5 6-7 7-8 8-9 9-10 10-11 8-2 9-3 12-13 8-12 9-12",
    {**_COCO_LIMBS, "neck": 0.079, "head_top": 0.079},
)
"""The 14 joints of Leeds Sports Pose (Johnson and Everingham, BMVC 2010) in the order of its files.

It is measured by PCK and has no sigmas: they are COCO's for the joints that COCO has, CrowdPose's for neck and head top.
"""

KNOWN_SETS = (COCO_KEYPOINTS, MPII_KEYPOINTS, CROWDPOSE_KEYPOINTS, LSP_KEYPOINTS)
