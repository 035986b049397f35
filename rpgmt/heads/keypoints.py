"""Key points of a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rpgmt.codecs import codec_name
from rpgmt.codecs.codec import Codec
from rpgmt.data.transforms import transform_points
from rpgmt.engine.task import Outputs
from rpgmt.engine.teacher import TAUGHT
from rpgmt.heads.head import Batch, Head
from rpgmt.losses.keypoints import heatmap_cross_entropy, heatmap_mse, heatmap_ohkm
from rpgmt.metrics.pck import PckCount
from rpgmt.metrics.poses import FIGURES, PoseEvaluation
from rpgmt.metrics.results import save_results
from rpgmt.prediction.meaning import KeypointMaps
from rpgmt.visualize import draw_pose

Measured = tuple[list[int], NDArray[np.float64]]
"""Indices of B people, and their poses (B, K, 3): x and y in pixels of the image, score."""


class Keypoints(Head):
    """Heat maps of each key point's place; the loss, the codec and the protocol of evaluation are a choice.

    Args:
        name: of the head; a batch has `keypoints` and `visibility`.
        codec: key points to maps and back.
        evaluation: how poses are measured, and on whom, which says the names, the mirror image and the skeleton, too.
        loss: of the maps: cross_entropy takes them as logits, mse and ohkm as the values that the codec makes.
        hard_keypoints: loss ohkm: how many key points of each person count.
        flip_shift: flip test: cells to shift the mirror image's maps by; None: the codec's own.
        teacher_weight: part of the target maps that a teacher's are, where a batch has some.
    """

    figure = "OKS"

    def __init__(
        self,
        name: str,
        codec: Codec,
        evaluation: PoseEvaluation,
        *,
        loss: Literal["cross_entropy", "mse", "ohkm"] = "cross_entropy",
        hard_keypoints: int = 8,
        flip_shift: int | None = None,
        teacher_weight: float = 0.5,
    ) -> None:
        super().__init__(name)
        self.codec, self.evaluation = codec, evaluation
        self.points = evaluation.people.keypoints
        self.channels, self.parts = len(self.points), self.points.names
        figures = FIGURES[evaluation.protocol]
        self.higher = dict.fromkeys(figures, True)
        self.main = self.score = figures[0]
        self.detailed = self.main.startswith("PCK")
        self._loss, self._hard_keypoints, self._teacher_weight = loss, hard_keypoints, teacher_weight
        self._flip_shift = codec.flip_shift if flip_shift is None else flip_shift

    @cached_property
    def meaning(self) -> KeypointMaps:
        evaluation = self.evaluation
        return KeypointMaps(
            keypoints=self.points,
            codec=codec_name(self.codec),
            stride=self.codec.input_size[0] // self.codec.heatmap_size[0],
            sigma=self.codec.sigma,
            logits=self._loss == "cross_entropy",
            flip_shift=self._flip_shift,
            rescoring=evaluation.rescoring,
            nms=evaluation.nms,
            nms_threshold=evaluation.nms_threshold,
        )

    def loss(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.losses([output], batch)[0]

    def losses(self, outputs: Sequence[Tensor], batch: Batch) -> list[tuple[Tensor, Tensor]]:
        target, weights = self.codec.encode(batch["keypoints"], batch["visibility"])
        targets = [target] * len(outputs) if TAUGHT not in batch else self._taught(target, batch[TAUGHT], len(outputs))
        pairs = zip(outputs, targets, strict=True)
        if self._loss == "ohkm":
            return [heatmap_ohkm(output, target, weights, self._hard_keypoints) for output, target in pairs]
        loss = heatmap_cross_entropy if self._loss == "cross_entropy" else heatmap_mse
        return [loss(output, target, weights) for output, target in pairs]

    def _taught(self, target: Tensor, taught: Outputs, stages: int) -> list[Tensor]:
        """For each stage the mean of the labels' maps and of those of the teacher's same stage, or of its last one."""
        maps = [output[self.name].float() for output in taught]
        if self._loss == "cross_entropy":  # of distributions over the cells
            target = target / target.sum((2, 3), keepdim=True).clamp(min=torch.finfo(target.dtype).tiny)
            maps = [logits.flatten(2).softmax(-1).view(target.shape) for logits in maps]
        mixed = [target.lerp(of_stage, self._teacher_weight) for of_stage in maps[:stages]]
        return mixed + mixed[-1:] * (stages - len(mixed))

    def average_with_mirror(self, output: Tensor, mirrored: Tensor) -> Tensor:
        return self.meaning.average_with_mirror(output, mirrored)

    def measure(self, output: Tensor, batch: Batch) -> Measured:
        points, scores = (values.cpu().numpy().astype(np.float64) for values in self.codec.decode(output))
        points = transform_points(batch["to_image"].cpu().numpy(), points)
        return batch["index"].tolist(), np.concatenate([points, scores[..., None]], axis=-1)

    def quality(self, output: Tensor, batch: Batch, measured: Measured) -> Tensor:
        """COCO's similarity of each labelled key point, exp(-d² / (2 · area · (2 · sigma)²)): its mean is the person's OKS."""
        people = [self.evaluation.people.people[index] for index in measured[0]]
        truth, known = (np.stack([getattr(person, name) for person in people]) for name in ("keypoints", "visibility"))
        area = np.array([person.area for person in people])[:, None]
        squared = np.square(measured[1][..., :2] - truth).sum(-1)
        size = 2 * np.maximum(area, 1e-9) * (2 * np.array(self.points.sigmas)) ** 2
        return torch.from_numpy(np.where((known > 0) & (area > 0), np.exp(-squared / size), np.nan))

    def metrics(self, measured: Sequence[Measured]) -> dict[str, float | None]:
        """The protocol's figures."""
        return self.evaluation.metrics(*_in_order(measured))

    def counted(self) -> Mapping[str, PckCount]:
        return self.evaluation.counted()

    def check_results(self, path: Path) -> None:
        """COCO's result format serves."""

    def save_results(self, measured: Sequence[Measured], path: Path) -> None:
        """Writes the poses in COCO's result format."""
        save_results(path, self.evaluation.results(*_in_order(measured)))

    def constant(self, batches: Iterable[Batch]) -> Tensor:
        """The mean pose: maps with their peak at each key point's mean place in the crop."""
        total, count = torch.zeros(self.channels, 2), torch.zeros(self.channels)
        for batch in batches:
            known = (batch["visibility"] > 0).float()
            total += (batch["keypoints"] * known[..., None]).sum(0)
            count += known.sum(0)
        mean = (total / count.clamp(min=1)[:, None])[None]
        maps, _ = self.codec.encode(mean, torch.ones(1, self.channels))
        return maps[0].clamp(min=1e-30).log() if self._loss == "cross_entropy" else maps[0]

    def shown(self, output: Tensor, batch: Batch) -> list[NDArray[Any]]:
        """Points and scores; 0 where a person's point is not annotated and so cannot be compared.

        Where nothing is annotated, as in a detector's box, all is shown.
        """
        points, scores = self.codec.decode(output)
        known = batch["visibility"] != 0
        scores = scores * (known | ~known.any(1, keepdim=True))
        return list(torch.cat([points, scores[..., None]], dim=-1).cpu().numpy())

    def truth(self, sample: Mapping[str, Any]) -> NDArray[Any]:
        return np.concatenate([sample["keypoints"], sample["visibility"][:, None]], axis=1)

    def draw(self, image: NDArray[np.uint8], shown: NDArray[Any]) -> NDArray[np.uint8]:
        skeleton, pairs = self.points.skeleton, self.points.flip_pairs
        return draw_pose(image, shown, skeleton, flip_pairs=pairs, scale=-(-192 // image.shape[0]))


def _in_order(measured: Sequence[Measured]) -> Measured:
    """All people by their indices: equal scores are ranked by their order, which is not to depend on batches or processes."""
    indices = np.concatenate([part for part, _ in measured])
    order = np.argsort(indices, kind="stable")
    return indices[order].tolist(), np.concatenate([poses for _, poses in measured])[order]
