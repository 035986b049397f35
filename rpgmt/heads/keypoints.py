"""Key points of a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rpgmt.codecs.codec import Codec
from rpgmt.data.coco import CocoPeople
from rpgmt.data.transforms import transform_points
from rpgmt.heads.head import Batch, Head
from rpgmt.losses.keypoints import heatmap_cross_entropy
from rpgmt.metrics.pck import torso_pck
from rpgmt.visualize import draw_pose

if TYPE_CHECKING:
    from rpgmt.metrics.poses import PoseEvaluation

TORSO = {"left_shoulder", "right_hip"}
"""Key points that PCK measures by."""


class Keypoints(Head):
    """Logits of each key point's place; soft-max cross-entropy; COCO's numbers, and PCK@0.2 where there is a torso.

    Args:
        name: of the head; a batch has `keypoints` and `visibility`.
        people: who is cut out, for the names and the skeleton, and whom `metrics` measures on.
        codec: key points to maps and back.
        areas: for each of `people.people` the square pixels of the image that its crop shows.
    """

    higher: ClassVar[Mapping[str, bool]] = {"AP": True, "PCK@0.2": True}
    main = score = "AP"

    def __init__(self, name: str, people: CocoPeople, codec: Codec, areas: NDArray[np.float64]) -> None:
        super().__init__(name)
        self.people, self.codec, self._areas = people, codec, areas
        self.channels = len(people.keypoints)
        self._evaluation: PoseEvaluation | None = None

    def loss(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        target, weights = self.codec.encode(batch["keypoints"], batch["visibility"])
        return heatmap_cross_entropy(output, target, weights)

    def measure(self, output: Tensor, batch: Batch) -> tuple[list[int], NDArray[np.float64]]:
        """Indices of the people, and poses (B, K, 3): x and y in pixels of the image, score."""
        points, scores = (values.cpu().numpy().astype(np.float64) for values in self.codec.decode(output))
        points = transform_points(batch["to_image"].cpu().numpy(), points)
        return batch["index"].tolist(), np.concatenate([points, scores[..., None]], axis=-1)

    def metrics(self, measured: Sequence[tuple[list[int], NDArray[np.float64]]]) -> dict[str, float | None]:
        indices = np.concatenate([part for part, _ in measured])
        order = np.argsort(indices)  # equal scores are ranked by their order, which is not to depend on the batches
        poses = np.concatenate([part for _, part in measured])[order]
        of_whom = indices[order].tolist()
        figures = self.evaluation.metrics(of_whom, poses)
        if set(self.people.keypoints.names) >= TORSO:
            pck = torso_pck(self.people, of_whom, poses)
            figures |= {name: value for name, value in pck.items() if name.partition(":")[0] == "PCK@0.2"}
        return figures

    @property
    def evaluation(self) -> PoseEvaluation:
        """How found poses become figures; made at first use, as COCO's tools take seconds to import."""
        from rpgmt.metrics.poses import PoseEvaluation

        if self._evaluation is None:
            self._evaluation = PoseEvaluation(self.people, "coco", self._areas)
        return self._evaluation

    def constant(self, batches: Iterable[Batch]) -> Tensor:
        """The mean pose: maps with their peak at each key point's mean place in the crop."""
        total, count = torch.zeros(self.channels, 2), torch.zeros(self.channels)
        for batch in batches:
            known = (batch["visibility"] > 0).float()
            total += (batch["keypoints"] * known[..., None]).sum(0)
            count += known.sum(0)
        mean = (total / count.clamp(min=1)[:, None])[None]
        maps, _ = self.codec.encode(mean, torch.ones(1, self.channels))
        return maps[0].clamp(min=1e-30).log()

    def shown(self, output: Tensor, batch: Batch) -> list[NDArray[Any]]:
        points, scores = self.codec.decode(output)
        return list(torch.cat([points, scores[..., None]], dim=-1).cpu().numpy())

    def truth(self, sample: Mapping[str, Any]) -> NDArray[Any]:
        return np.concatenate([sample["keypoints"], sample["visibility"][:, None]], axis=1)

    def draw(self, image: NDArray[np.uint8], shown: NDArray[Any]) -> NDArray[np.uint8]:
        points = self.people.keypoints
        return draw_pose(image, shown, points.skeleton, flip_pairs=points.flip_pairs, scale=-(-192 // image.shape[0]))
