"""Human pose estimation: key points of each person, top-down, refined stage by stage.

A person's box is cut out of the image and scaled to the network's input; every stage predicts a heat map for each key point.
Accuracy is COCO's, for every stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from rpgmt.config import Flag, ModelConfig, TrainConfig
from rpgmt.engine.task import Batch, Outputs, Task
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from rpgmt.data.coco import CocoPeople
    from rpgmt.data.pose import PoseCrops

HEAD = "keypoints"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """People, and how they are cut out of their images."""

    name: Annotated[
        Literal["synthetic", "coco", "lsp"],
        Field(description="people that are drawn here, or files in COCO's format under the data root"),
        Flag("--data"),
    ] = "synthetic"
    root: Annotated[Path, Field(description="folder of the files; of the cache, for synthetic people"), Flag("--data-root")] = (
        Path(".data")
    )
    image_size: Annotated[int, Field(ge=32, le=1024, description="synthetic: width and height of an image")] = 96
    train_images: Annotated[int, Field(ge=1, description="synthetic: images to train on")] = 4000
    val_images: Annotated[int, Field(ge=1, description="synthetic: images to validate on")] = 400
    padding: Annotated[float, Field(gt=0, description="enlargement of a person's box")] = 1.25
    flip: Annotated[float, Field(ge=0, le=1, description="augmentation: probability of a mirror image")] = 0.5
    scale: Annotated[float, Field(ge=0, lt=1, description="augmentation: size changes by up to ± this part")] = 0.25
    rotation: Annotated[float, Field(ge=0, le=180, description="augmentation: up to ± so many degrees")] = 30.0
    shift: Annotated[float, Field(ge=0, le=1, description="augmentation: up to ± this part of the crop")] = 0.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """The pose task."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: Annotated[
        Literal["cross_entropy", "mse"], Field(description="of the heat maps: soft-max cross-entropy or squared error")
    ] = "cross_entropy"
    sigma: Annotated[float, Field(gt=0, description="standard deviation of the target's Gaussian in map cells")] = 1.0
    train: TrainConfig = field(default_factory=TrainConfig)


def build(config: Config) -> PoseTask:
    """The task that a config describes."""
    import torch

    torch.manual_seed(config.train.seed)
    return PoseTask(config)


class PoseTask(Task):
    """Crops of people, heat maps from every stage, COCO's accuracy of every stage."""

    name = "pose"

    def __init__(self, config: Config) -> None:
        import torch

        from rpgmt import models
        from rpgmt.codecs.heatmap import Heatmap
        from rpgmt.losses.keypoints import heatmap_cross_entropy, heatmap_mse

        if set(config.model.heads) != {HEAD}:
            raise UserError(f"`heads` is {config.model.heads}: the pose task trains one head, e.g. {HEAD}: 17")
        self.config = config
        self.monitor = "PCK@0.2" if config.data.name == "lsp" else "AP"
        self.model = models.build(config.model)
        width, height = config.model.input_size
        self.codec = Heatmap(
            input_size=(width, height),
            heatmap_size=(width // models.STRIDE, height // models.STRIDE),
            sigma=config.sigma,
            maps="logits" if config.loss == "cross_entropy" else "values",
        )
        self.heatmap_loss = heatmap_cross_entropy if config.loss == "cross_entropy" else heatmap_mse
        # Mean and deviation of ImageNet's colours, 0 to 255: the field's convention, which pretrained trunks expect.
        self._mean = torch.tensor([123.675, 116.28, 103.53])
        self._deviation = torch.tensor([58.395, 57.12, 57.375])

    @cached_property
    def train_data(self) -> PoseCrops:  # type: ignore[override]
        from rpgmt.data.pose import Augmentation

        data = self.config.data
        changes = Augmentation(flip=data.flip, scale=data.scale, rotation=data.rotation, shift=data.shift)
        return self._crops("train", changes)

    @cached_property
    def val_data(self) -> PoseCrops:  # type: ignore[override]
        return self._crops("val", None)

    @property
    def data_summary(self) -> dict[str, Any]:
        """What the run is trained and validated on, for `metrics.json`."""
        data = self.config.data
        root = {} if data.name == "synthetic" else {"root": str(data.root)}
        sizes = {"train_people": len(self.train_data), "val_people": len(self.val_data)}
        return {"name": data.name, **root, "boxes": self.val_data.people.boxes, **sizes}

    @property
    def metric_label(self) -> str:
        """What the accuracy is over, for tables."""
        return f"{self.config.data.name} val, {self.val_data.people.boxes}"

    def images(self, batch: Batch) -> Tensor:
        pixels = batch["image"]
        mean, deviation = self._mean.to(pixels.device), self._deviation.to(pixels.device)
        return ((pixels - mean) / deviation).permute(0, 3, 1, 2)

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        target, weights = self.codec.encode(batch["keypoints"], batch["visibility"])
        return {
            f"stage_{k}/{HEAD}": self.heatmap_loss(output[HEAD], target, weights) for k, output in enumerate(outputs, start=1)
        }

    def predictions(self, outputs: Outputs, batch: Batch) -> list[dict[str, Any]]:
        """For each person its index, and for each stage the points in image pixels and scores, as one detection."""
        from rpgmt.metrics.keypoints import keypoint_results

        people = self.val_data.people
        indices = batch["index"].tolist()
        image_ids = [people.people[index].image["id"] for index in indices]
        to_image = batch["to_image"].cpu().numpy()
        stages = []
        for output in outputs:
            points, scores = self.codec.decode(output[HEAD])
            found = keypoint_results(points.cpu().numpy(), scores.cpu().numpy(), to_image, image_ids, people.category_id)
            stages.append(found)
        return [{"index": index, "stages": list(found)} for index, *found in zip(indices, *stages, strict=True)]

    def metrics(self, predictions: Sequence[dict[str, Any]]) -> dict[str, float | None]:
        """COCO's ten numbers, of the last stage under their own names and of stage k under `stage_k/…`."""
        import numpy as np

        from rpgmt.metrics.keypoints import coco_keypoint_metrics
        from rpgmt.metrics.pck import pck_metrics, torso_sizes

        people = self.val_data.people
        # Equal scores are ranked by their order, which must not depend on how processes shared the people out.
        ordered = sorted(predictions, key=lambda record: record["index"])
        metrics: dict[str, float | None] = {}
        stages = len(ordered[0]["stages"])
        for k in range(stages):
            results = [record["stages"][k] for record in ordered]
            numbers = coco_keypoint_metrics(people.annotations, results, people.keypoints)
            if self.config.data.name == "lsp":
                names = people.keypoints.names
                chosen = [people.people[record["index"]] for record in ordered]
                truth, valid = np.stack([p.keypoints for p in chosen]), np.stack([p.visibility for p in chosen])
                found = np.array([result["keypoints"] for result in results]).reshape(len(results), -1, 3)[..., :2]
                sizes = torso_sizes(truth, valid, names)
                assert sizes is not None
                numbers = pck_metrics(found, truth, valid, sizes, names) | numbers
            metrics |= {f"stage_{k + 1}/{name}": value for name, value in numbers.items()}
        return {name: metrics[f"stage_{stages}/{name}"] for name in numbers} | metrics

    def draw(self, predictions: Sequence[dict[str, Any]], folder: Path) -> None:
        """Writes `predictions.png`: people of the validation set as annotated, and as found by each stage."""
        import numpy as np

        from rpgmt.data.transforms import invert, transform_points
        from rpgmt.visualize import contact_sheet, draw_pose, save_png

        people, crops = self.val_data.people, self.val_data
        skeleton, pairs = people.keypoints.skeleton, people.keypoints.flip_pairs
        scale = max(1, 192 // crops.input_size[1])
        rows = []
        shown = sorted(predictions, key=lambda record: record["index"])
        for record in shown[:: max(1, len(shown) // 8)][:8]:
            crop = crops[0, record["index"]]
            truth = np.concatenate([crop["keypoints"], crop["visibility"][:, None]], axis=1)
            row = [draw_pose(crop["image"], truth, skeleton, flip_pairs=pairs, scale=scale)]
            for found in record["stages"]:
                points = np.array(found["keypoints"]).reshape(-1, 3)
                points[:, :2] = transform_points(invert(crop["to_image"]), points[:, :2])
                points[crop["visibility"] == 0, 2] = 0  # no truth to compare with
                row.append(draw_pose(crop["image"], points, skeleton, flip_pairs=pairs, scale=scale))
            rows.append(row)
        titles = ["annotated", *(f"stage {k + 1}" for k in range(len(rows[0]) - 1))]
        save_png(folder / "predictions.png", contact_sheet(rows, titles))

    def _crops(self, split: Literal["train", "val"], changes: Any) -> PoseCrops:
        from rpgmt.data.pose import PoseCrops

        people = self._people(split)
        outputs = self.config.model.heads[HEAD]
        if len(people.keypoints) != outputs:
            raise UserError(
                f"`heads` is {self.config.model.heads}: the data has {len(people.keypoints)} key points, give "
                f"--heads {HEAD}={len(people.keypoints)}"
            )
        data = self.config.data
        return PoseCrops(
            people, self.config.model.input_size, augment=changes, seed=self.config.train.seed, padding=data.padding
        )

    def _people(self, split: Literal["train", "val"]) -> CocoPeople:
        from rpgmt.data import synthetic
        from rpgmt.data.coco import CocoPeople, find_files

        data = self.config.data
        if data.name != "synthetic":
            return CocoPeople.from_files(*find_files(data.root, split))
        count = data.train_images if split == "train" else data.val_images
        scenes = synthetic.load(data.root, count=count, size=data.image_size, split=split)
        return CocoPeople(scenes.document(), scenes.read_image, name=f"synthetic {split}")
