"""What the outputs of a network mean: how an image is cut for it, and how each head's output is read.

It is written into the model file, so that a model needs neither a data set nor its training config to be used.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from rpgmt.codecs import CodecName, make_codec
from rpgmt.codecs.codec import Codec
from rpgmt.codecs.flip import average_with_mirror
from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.transforms import shrink_factor, transform_points
from rpgmt.errors import UserError
from rpgmt.metrics.results import Rescoring, rescore
from rpgmt.prediction.results import DenseMap, ImageClass, Poses, Result

Size = tuple[int, int]
"""(W, H) in pixels."""

_STRICT = ConfigDict(extra="forbid")


class Crops(NamedTuple):
    """What was cut out of an image.

    Args:
        to_image: float64 (P, 2, 3), the affines from pixels of the crops to pixels of the image.
        image_size: (W, H) of the image in pixels.
        box_scores: (P,), of the detector; 1 where there was none.
    """

    to_image: NDArray[np.float64]
    image_size: Size
    box_scores: NDArray[np.float64]


class Meaning(abc.ABC):
    """How one head's output is read.

    `decode` is tensor operations alone, so that an exported network can contain it; `place` does the rest.

    Attributes:
        parts: what `decode` returns, by name.
    """

    parts: ClassVar[tuple[str, ...]]

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """What the channels stand for, in their order; nothing where they have no names."""

    @abc.abstractmethod
    def decode(self, output: Tensor, size: Size) -> tuple[Tensor, ...]:
        """What an output (B, C, h, w) says of crops of a size (W, H)."""

    @abc.abstractmethod
    def nothing(self, size: Size) -> tuple[NDArray[Any], ...]:
        """What `decode` gives of no crops."""

    @abc.abstractmethod
    def place(self, decoded: tuple[NDArray[Any], ...], crops: Crops) -> Result:
        """What `decode` gave of the crops of one image, in that image."""

    def average_with_mirror(self, output: Tensor, mirrored: Tensor) -> Tensor:
        """The flip test: the mean of an output and of the mirror image's, mirrored back.

        Raises:
            UserError: there is none for outputs of this kind; by default.
        """
        raise UserError("`flip_test` is true: of all heads only those of key points are averaged with a mirror image's")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class KeypointMaps(Meaning):
    """Heat maps of key points.

    Args:
        keypoints: their names, mirror images, skeleton and sigmas.
        codec, stride, sigma, logits: as of `rpgmt.codecs.make_codec`.
        flip_shift: flip test: cells to shift the mirror image's maps by.
        rescoring: a person's score from those of the box and the points, as of `rpgmt.metrics.results.rescore`.
        nms: suppression of people found twice, as of `rpgmt.metrics.nms.oks_nms`; "none" for none.
        nms_threshold: OKS above which two people are one.
    """

    parts: ClassVar[tuple[str, ...]] = ("points", "scores")

    kind: Literal["keypoints"] = "keypoints"
    keypoints: KeypointSet
    codec: CodecName
    stride: Annotated[int, Field(ge=1)]
    sigma: Annotated[float, Field(gt=0)]
    logits: bool
    flip_shift: Annotated[int, Field(ge=0)]
    rescoring: Rescoring = "mean"
    nms: Literal["none", "hard", "soft"] = "none"
    nms_threshold: Annotated[float, Field(gt=0, le=1)] = 0.9

    @property
    def names(self) -> tuple[str, ...]:
        return self.keypoints.names

    def decode(self, output: Tensor, size: Size) -> tuple[Tensor, ...]:
        """Points (B, K, 2), x and y in pixels of the crop, and their scores (B, K)."""
        return self._codec(size).decode(output)

    def nothing(self, size: Size) -> tuple[NDArray[Any], ...]:
        return np.zeros((0, len(self.keypoints), 2)), np.zeros((0, len(self.keypoints)))

    def place(self, decoded: tuple[NDArray[Any], ...], crops: Crops) -> Poses:
        points, scores = (values.astype(np.float64) for values in decoded)
        # The scores of people are made in the precision of the maps, as they are in an evaluation.
        return Poses(
            keypoint_set=self.keypoints,
            points=transform_points(crops.to_image, points),
            scores=scores,
            person_scores=rescore(crops.box_scores, scores.astype(np.float32), self.rescoring),
        )

    def average_with_mirror(self, output: Tensor, mirrored: Tensor) -> Tensor:
        kind: Literal["logits", "values"] = "logits" if self.logits else "values"
        return average_with_mirror(output, mirrored, self.keypoints.flip_order, shift=self.flip_shift, kind=kind)

    def _codec(self, size: Size) -> Codec:
        return make_codec(self.codec, size, self.stride, self.sigma, logits=self.logits)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PixelMap(Meaning):
    """A value for each pixel: logits of classes, depth before the soft-plus, normals of any length.

    Args:
        label: what the map holds.
    """

    parts: ClassVar[tuple[str, ...]] = ("map",)

    kind: Literal["map"] = "map"
    label: LabelMap

    @property
    def names(self) -> tuple[str, ...]:
        return self.label.classes

    def decode(self, output: Tensor, size: Size) -> tuple[Tensor]:
        """Classes (B, H, W), depth (B, H, W) as the network sees it, or unit normals (B, H, W, 3), at the crops' size."""
        full = at_full_size(output, (size[1], size[0]))
        if self.label.categorical:
            return (full.argmax(1),)
        return (depth(full),) if self.label.kind == "depth" else (normals(full).movedim(1, -1),)

    def nothing(self, size: Size) -> tuple[NDArray[Any]]:
        width, height = size
        return (np.zeros((0, height, width, 3) if self.label.kind == "normals" else (0, height, width)),)

    def place(self, decoded: tuple[NDArray[Any], ...], crops: Crops) -> DenseMap:
        (values,) = decoded
        if self.label.kind == "depth":  # the network's is divided by the crop's magnification, `warp_maps` says
            enlarged = np.array([shrink_factor(affine) for affine in crops.to_image], np.float32).reshape(-1, 1, 1)
            values = values * (1 / enlarged if self.label.inverse else enlarged)
        values = values.astype(np.int16 if self.label.categorical else np.float32)
        return DenseMap(label=self.label, values=values, to_image=crops.to_image, image_size=crops.image_size)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ImageLogits(Meaning):
    """A class of the crop: logits (B, C), or maps (B, C, h, w) whose means they are.

    Args:
        classes: names of the C classes.
    """

    parts: ClassVar[tuple[str, ...]] = ("probabilities",)

    kind: Literal["class"] = "class"
    classes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.classes

    def decode(self, output: Tensor, size: Size) -> tuple[Tensor]:
        """Probabilities (B, C)."""
        return (class_logits(output).softmax(1),)

    def nothing(self, size: Size) -> tuple[NDArray[Any]]:
        return (np.zeros((0, len(self.classes))),)

    def place(self, decoded: tuple[NDArray[Any], ...], crops: Crops) -> ImageClass:
        return ImageClass(names=self.classes, probabilities=decoded[0].astype(np.float64))


AnyMeaning = Annotated[KeypointMaps | PixelMap | ImageLogits, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Reading:
    """All that is needed to use a network: what it is given and what its outputs mean.

    Args:
        input_size: (W, H) of its input in pixels.
        cut: what it was trained on: boxes of people, whole images, or the middle of images.
        padding: enlargement of boxes.
        heads: the outputs of each stage, by the names of the heads.
    """

    input_size: tuple[Annotated[int, Field(ge=8, le=4096)], Annotated[int, Field(ge=8, le=4096)]]
    cut: Literal["people", "images", "middle"]
    padding: Annotated[float, Field(gt=0)] = 1.25
    heads: Mapping[str, AnyMeaning]

    def to_json(self) -> str:
        return json.dumps(_READING.dump_python(self, mode="json"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> Reading:
        """Reads what `to_json` wrote.

        Raises:
            UserError: it is something else; `source` is where it comes from.
        """
        try:
            return _READING.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise UserError(
                f"{source}: what its outputs mean cannot be read ({place}: {first['msg']}): train it again"
            ) from None


_READING: TypeAdapter[Reading] = TypeAdapter(Reading)


def at_full_size(output: Tensor, size: tuple[int, int]) -> Tensor:
    """An output (B, C, h, w) at the size (H, W) of its labels, float32.

    Bilinear; the edges of both coincide, so that a cell's value lies at the centre of its pixels.
    """
    return F.interpolate(output.float(), size=size, mode="bilinear", align_corners=False)


def depth(full: Tensor) -> Tensor:
    """Depth (B, H, W) of an output (B, 1, H, W): its soft-plus, so that it is positive."""
    return F.softplus(full[:, 0])


def normals(full: Tensor) -> Tensor:
    """Unit normals (B, 3, H, W) of an output of that shape."""
    return F.normalize(full, dim=1)


def class_logits(output: Tensor) -> Tensor:
    """Logits (B, C) of an output (B, C) or, their means over the cells, (B, C, h, w)."""
    return output.float().flatten(2).mean(2) if output.ndim > 2 else output.float()
