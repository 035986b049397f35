"""Human pose estimation: key points of each person, top-down, refined stage by stage.

A person's box is cut out of the image and scaled to the network's input; every stage predicts a heat map for each key point.
Accuracy is measured for every stage, as the data set's own protocol has it.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from rpgmt.config import AugmentationConfig, ConfigError, Flag, ModelConfig, TrainConfig, check_together
from rpgmt.engine.task import Batch, Outputs, Task
from rpgmt.errors import UserError
from rpgmt.fields import config_class

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from rpgmt.codecs.codec import Codec
    from rpgmt.data.coco import CocoPeople
    from rpgmt.data.pose import Augmentation, MixedCrops, PoseCrops
    from rpgmt.metrics.poses import PoseEvaluation

HEAD = "keypoints"

Protocol = Literal["coco", "crowdpose", "pck", "pckh"]
PROTOCOLS: dict[str, Protocol] = {"synthetic": "coco", "coco": "coco", "crowdpose": "crowdpose", "lsp": "pck", "mpii": "pckh"}
"""How accuracy is measured on each data set."""
Pairs = tuple[tuple[str, str], ...]


@config_class
class DataConfig:
    """People, and how they are cut out of their images."""

    name: Annotated[
        Literal["synthetic", "coco", "crowdpose", "mpii", "lsp"],
        Field(description="people that are drawn here, or the files of a data set; coco is any set in COCO's format"),
        Flag("--data"),
    ] = "synthetic"
    root: Annotated[Path, Field(description="folder of the files; of the cache, for synthetic people"), Flag("--data-root")] = (
        Path(".data")
    )
    train_split: Annotated[str, Field(description="part of the files to train on; not of synthetic people")] = "train"
    val_split: Annotated[str, Field(description="part of the files to validate on; not of synthetic people")] = "val"
    also: Annotated[
        tuple[str, ...], Field(description="further training sets, NAME=DIR each; their key points are taken over by name")
    ] = ()
    detections: Annotated[
        Path | None, Field(description="JSON file of detected boxes to validate on, in COCO's result format; null: true boxes")
    ] = None
    detection_threshold: Annotated[float, Field(ge=0, description="detections with a lower score are left out")] = 0.0
    sigmas: Annotated[tuple[float, ...] | None, Field(description="OKS sigmas of the key points; null: the data set's")] = None
    flip_pairs: Annotated[Pairs | None, Field(description="names of left and right key points; null: the data set's")] = None
    skeleton: Annotated[Pairs | None, Field(description="names that are joined in pictures; null: the data set's")] = None
    keypoints: Annotated[
        tuple[str, ...] | None,
        Field(
            description="names of the maps' key points, which validation checks; null: the training data's, noted in the run"
        ),
    ] = None
    image_size: Annotated[int, Field(ge=32, le=1024, description="synthetic: width and height of an image")] = 96
    train_images: Annotated[int, Field(ge=1, description="synthetic: images to train on")] = 4000
    val_images: Annotated[int, Field(ge=1, description="synthetic: images to validate on")] = 400
    padding: Annotated[float, Field(gt=0, description="enlargement of a person's box")] = 1.25


@config_class
class EvaluationConfig:
    """From predictions to accuracy."""

    protocol: Annotated[Protocol | None, Field(description="what is measured; null: what is usual for the data set")] = None
    flip_test: Annotated[bool, Field(description="average the maps of the crop and of its mirror image")] = False
    flip_shift: Annotated[
        int | None, Field(ge=0, le=4, description="flip test: cells to shift the mirror image's maps by; null: the codec's own")
    ] = None
    rescoring: Annotated[
        Literal["mean", "box_mean", "box_mean_max"],
        Field(
            description="a person's score: mean of its points' scores, box score × mean of those over 0.2, or box + mean + max"
        ),
    ] = "mean"
    nms: Annotated[Literal["none", "hard", "soft"], Field(description="suppression of people found twice, by OKS")] = "none"
    nms_threshold: Annotated[float, Field(gt=0, le=1, description="OKS above which two people are one")] = 0.9
    stop_after: Annotated[int | None, Field(ge=1, description="compute so many stages only; null: all")] = None


@config_class
class Config:
    """The pose task."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    codec: Annotated[
        Literal["heatmap", "msra", "dark", "udp"],
        Field(description="key points to heat maps and back: this library's own, or as those papers have it"),
    ] = "heatmap"
    sigma: Annotated[float, Field(gt=0, description="standard deviation of the target's Gaussian in map cells")] = 1.0
    loss: Annotated[
        Literal["cross_entropy", "mse", "ohkm"],
        Field(description="of the heat maps: soft-max cross-entropy, squared error, or that of the hardest points alone"),
    ] = "cross_entropy"
    hard_keypoints: Annotated[int, Field(ge=1, description="loss ohkm: key points of each person that count")] = 8
    stage_weights: Annotated[
        tuple[Annotated[float, Field(ge=0)], ...] | None, Field(description="weight of each stage's loss; null: 1 for all")
    ] = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_together(self.model, self.train)
        if self.loss == "cross_entropy" and self.codec != "heatmap":
            raise ConfigError(f"`loss` is cross_entropy: codec {self.codec} decodes maps that are trained by mse or ohkm")
        stages, stop = self.model.stages, self.evaluation.stop_after
        if self.stage_weights is not None and (len(self.stage_weights) != stages or not any(self.stage_weights)):
            raise ConfigError(f"`stage_weights` is {self.stage_weights}: give one for each of {stages} stages, not all 0")
        if stop is not None and stop > stages:
            raise ConfigError(f"`stop_after` is {stop}: the network has {stages} stages")

    def for_another_set(self) -> Config:
        """The config without what belongs to its own data set: the files, their boxes and what is usual to measure there."""
        data = DataConfig(padding=self.data.padding, keypoints=self.data.keypoints)
        return dataclasses.replace(self, data=data, evaluation=dataclasses.replace(self.evaluation, protocol=None))

    def without_effect(self) -> list[str]:
        """What is set and has no effect, a line each."""
        default, own = EvaluationConfig(), self.evaluation
        pck = (own.protocol or PROTOCOLS[self.data.name]) in ("pck", "pckh")
        lines = {
            "`detection_threshold` without detections": self.data.detection_threshold > 0 and self.data.detections is None,
            "`flip_shift` without flip_test": own.flip_shift is not None and not own.flip_test,
            "`nms_threshold` with nms none": own.nms_threshold != default.nms_threshold and own.nms == "none",
            "`nms` and `rescoring`, which PCK does not know": pck
            and (own.nms, own.rescoring) != (default.nms, default.rescoring),
            "`hard_keypoints` without loss ohkm": self.hard_keypoints != Config.hard_keypoints and self.loss != "ohkm",
        }
        return [line for line, unused in lines.items() if unused]


def build(config: Config) -> PoseTask:
    """The task that a config describes."""
    import torch

    torch.manual_seed(config.train.seed)
    return PoseTask(config)


class PoseTask(Task):
    """Crops of people, heat maps from every stage, the accuracy of every stage."""

    name = "pose"

    def __init__(self, config: Config) -> None:
        from rpgmt import models
        from rpgmt.metrics.poses import MONITORS

        if set(config.model.heads) != {HEAD}:
            raise UserError(f"`heads` is {config.model.heads}: the pose task trains one head, e.g. {HEAD}: 17")
        self.config = config
        models.check_batch_size(config.model, config.train.batch_size)
        for line in config.without_effect():
            warnings.warn(f"without effect: {line}", stacklevel=3)
        self.protocol = config.evaluation.protocol or PROTOCOLS[config.data.name]
        self.monitor = MONITORS[self.protocol]
        self.model = models.build(config.model)
        self.codec = _codec(config, models.STRIDE)
        self._names = config.data.keypoints

    @cached_property
    def train_data(self) -> PoseCrops | MixedCrops:  # type: ignore[override]
        from rpgmt.data.pose import Augmentation, MixedCrops
        from rpgmt.data.remap import remap
        from rpgmt.data.sets import read_further

        changes = Augmentation(**vars(self.config.augmentation))
        people = self._people("train")
        sets = [people, *(remap(read_further(entry), people.keypoints) for entry in self.config.data.also)]
        crops = [self._crops(part, changes, stream) for stream, part in enumerate(sets)]
        return crops[0] if len(crops) == 1 else MixedCrops(crops)

    @cached_property
    def val_data(self) -> PoseCrops:  # type: ignore[override]
        from rpgmt.metrics.poses import check_protocol

        data, people = self.config.data, self._people("val")
        if data.detections is not None:
            if self.protocol in ("pck", "pckh"):
                raise UserError(f"`detections` is {data.detections}: {self.protocol} is measured on true boxes; leave them out")
            people = people.with_detections(data.detections, data.detection_threshold)
        check_protocol(people, self.protocol)
        return self._crops(people, None)

    def resolved(self) -> Config:
        """The config with the names of the key points that are trained: what the model can be measured on later."""
        _ = self.train_data  # has them
        return dataclasses.replace(self.config, data=dataclasses.replace(self.config.data, keypoints=self._names))

    @property
    def details(self) -> tuple[str, ...]:
        """PCK is known of every key point, too."""
        return (self.monitor,) if self.protocol in ("pck", "pckh") else ()

    @property
    def data_summary(self) -> dict[str, Any]:
        """What the run is trained and validated on, for `metrics.json`."""
        data = self.config.data
        root = {} if data.name == "synthetic" else {"root": str(data.root)}
        also = {"also": list(data.also)} if data.also else {}
        sizes = {"train_people": len(self.train_data), "val_people": len(self.val_data)}
        return {"name": data.name, **root, **also, "boxes": self.val_data.people.boxes, **sizes}

    @property
    def metric_label(self) -> str:
        """What the accuracy is over, for tables."""
        data = self.config.data
        split = "val" if data.name == "synthetic" else data.val_split
        flip = ", flip test" if self.config.evaluation.flip_test else ""
        return f"{data.name} {split}, {self.val_data.people.boxes}{flip}"

    def images(self, batch: Batch) -> Tensor:
        from rpgmt.data.images import normalize

        return normalize(batch["image"])

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        target, weights = self.codec.encode(batch["keypoints"], batch["visibility"])
        stage_weights = self.config.stage_weights or (1.0,) * self.config.model.stages
        losses = {}
        for k, (output, weight) in enumerate(zip(outputs, stage_weights, strict=False), start=1):
            total, count = self._heatmap_loss(output[HEAD], target, weights)
            losses[f"stage_{k}/{HEAD}"] = (weight * total, count)
        return losses

    def infer(self, model: nn.Module, images: Tensor) -> Outputs:
        """Maps of the stages that are asked for, with the flip test averaged with those of the mirror image."""
        from rpgmt.codecs.flip import average_with_mirror

        evaluation = self.config.evaluation
        outputs: Outputs = model(images, stop_after=evaluation.stop_after)
        if not evaluation.flip_test:
            return outputs
        mirrored: Outputs = model(images.flip(-1), stop_after=evaluation.stop_after)
        order = self.val_data.people.keypoints.flip_order
        kind: Literal["logits", "values"] = "logits" if self.config.loss == "cross_entropy" else "values"
        shift = self.codec.flip_shift if evaluation.flip_shift is None else evaluation.flip_shift
        return [
            {HEAD: average_with_mirror(one[HEAD], other[HEAD], order, shift=shift, kind=kind)}
            for one, other in zip(outputs, mirrored, strict=True)
        ]

    def predictions(self, outputs: Outputs, batch: Batch) -> list[dict[str, Any]]:
        """For each person its index, and for each stage (K, 3): x and y in pixels of the image, score."""
        import numpy as np

        from rpgmt.data.transforms import transform_points

        to_image = batch["to_image"].cpu().numpy()
        stages = []
        for output in outputs:
            points, scores = (values.cpu().numpy().astype(np.float64) for values in self.codec.decode(output[HEAD]))
            stages.append(np.concatenate([transform_points(to_image, points), scores[..., None]], axis=-1))
        return [{"index": index, "stages": list(poses)} for index, *poses in zip(batch["index"].tolist(), *stages, strict=True)]

    def metrics(self, predictions: Sequence[dict[str, Any]]) -> dict[str, float | None]:
        """The protocol's numbers, of the last stage under their own names and of stage k under `stage_k/…`."""
        stages = len(predictions[0]["stages"])
        each = [self.evaluation.metrics(*_poses(predictions, k)) for k in range(stages)]
        return each[-1] | {f"stage_{k}/{name}": value for k, of in enumerate(each, 1) for name, value in of.items()}

    def save_results(self, predictions: Sequence[dict[str, Any]], path: Path) -> None:
        """Writes what the last stage found in COCO's result format."""
        from rpgmt.metrics.results import save_results

        save_results(path, self.evaluation.results(*_poses(predictions, -1)))

    @cached_property
    def evaluation(self) -> PoseEvaluation:
        """How found poses become figures."""
        from rpgmt.metrics.poses import PoseEvaluation

        own, crops = self.config.evaluation, self.val_data
        options: Any = {"rescoring": own.rescoring, "nms": own.nms, "nms_threshold": own.nms_threshold}
        return PoseEvaluation(crops.people, self.protocol, crops.areas(), **options)

    def draw(self, predictions: Sequence[dict[str, Any]], folder: Path) -> None:
        """Writes `predictions.png`: people of the validation set as annotated, and as found by each stage."""
        import numpy as np

        from rpgmt.data.transforms import invert, transform_points
        from rpgmt.visualize import contact_sheet, draw_pose, save_png

        people, crops = self.val_data.people, self.val_data
        skeleton, pairs = people.keypoints.skeleton, people.keypoints.flip_pairs
        scale = -(-192 // crops.input_size[1])
        rows = []
        shown = sorted(predictions, key=lambda record: record["index"])
        for record in shown[:: max(1, len(shown) // 8)][:8]:
            crop = crops[0, record["index"]]
            annotated = crop["visibility"] != 0
            truth = np.concatenate([crop["keypoints"], crop["visibility"][:, None]], axis=1)
            row = [draw_pose(crop["image"], truth, skeleton, flip_pairs=pairs, scale=scale)]
            for pose in record["stages"]:
                points = pose.copy()
                points[:, :2] = transform_points(invert(crop["to_image"]), points[:, :2])
                if annotated.any():  # nothing is annotated where the box is a detector's
                    points[~annotated, 2] = 0  # no truth to compare with
                row.append(draw_pose(crop["image"], points, skeleton, flip_pairs=pairs, scale=scale))
            rows.append(row)
        titles = ["annotated", *(f"stage {k + 1}" for k in range(len(rows[0]) - 1))]
        save_png(folder / "predictions.png", contact_sheet(rows, titles))

    def _heatmap_loss(self, maps: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        from rpgmt.losses.keypoints import heatmap_cross_entropy, heatmap_mse, heatmap_ohkm

        if self.config.loss == "ohkm":
            return heatmap_ohkm(maps, target, weights, self.config.hard_keypoints)
        loss = heatmap_cross_entropy if self.config.loss == "cross_entropy" else heatmap_mse
        return loss(maps, target, weights)

    def _crops(self, people: CocoPeople, changes: Augmentation | None, stream: int = 0) -> PoseCrops:
        from rpgmt.data.keypoints import side_and_part
        from rpgmt.data.pose import PoseCrops

        names, expected = people.keypoints.names, self._names or people.keypoints.names
        if len(names) != self.config.model.heads[HEAD]:
            raise UserError(
                f"`heads` is {self.config.model.heads}: the data has {len(names)} key points; train with "
                f"--heads {HEAD}={len(names)}, measure on data with as many as the network has"
            )
        if [side_and_part(name) for name in names] != [side_and_part(name) for name in expected]:
            raise UserError(
                f"{people.name}: its key points are {', '.join(names)}, those of the network {', '.join(expected)}: "
                "give data with the same ones in the same order"
            )
        self._names = names
        seed, padding = self.config.train.seed, self.config.data.padding
        size = self.config.model.input_size
        return PoseCrops(people, size, augment=changes, seed=seed, padding=padding, stream=stream)

    def _people(self, split: Literal["train", "val"]) -> CocoPeople:
        from rpgmt.data import synthetic
        from rpgmt.data.coco import CocoPeople
        from rpgmt.data.sets import read_people

        data = self.config.data
        if data.name != "synthetic":
            own = {"sigmas": data.sigmas, "flip_pairs": data.flip_pairs, "skeleton": data.skeleton}
            return read_people(data.name, data.root, data.train_split if split == "train" else data.val_split, **own)
        count = data.train_images if split == "train" else data.val_images
        scenes = synthetic.load(data.root, count=count, size=data.image_size, split=split)
        return CocoPeople(scenes.document(), scenes.read_image, name=f"synthetic {split}")


def _poses(predictions: Sequence[dict[str, Any]], stage: int) -> tuple[list[int], np.ndarray]:
    """Indices of the people and poses of a stage.

    Sorted, as equal scores are ranked by their order, which must not depend on how processes shared the people out.
    """
    import numpy as np

    ordered = sorted(predictions, key=lambda record: record["index"])
    return [record["index"] for record in ordered], np.stack([record["stages"][stage] for record in ordered])


def _codec(config: Config, stride: int) -> Codec:
    from rpgmt.codecs.heatmap import Heatmap
    from rpgmt.codecs.msra import Msra
    from rpgmt.codecs.udp import Udp

    width, height = config.model.input_size
    sizes: Any = {"input_size": (width, height), "heatmap_size": (width // stride, height // stride), "sigma": config.sigma}
    if config.codec == "heatmap":
        return Heatmap(**sizes, maps="logits" if config.loss == "cross_entropy" else "values")
    return Udp(**sizes) if config.codec == "udp" else Msra(**sizes, dark=config.codec == "dark")
