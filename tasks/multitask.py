"""Several tasks at once: key points, segmentation, depth, normals, … refined stage by stage by one network.

A person (or a whole image) is cut out and scaled to the network's input. Every stage predicts every task and hands all
predictions to the next stage. Accuracy is measured for every task and stage, pooled over all pixels and images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from rpgmt.config import AugmentationConfig, BalanceConfig, ConfigError, Flag, ModelConfig, TrainConfig, check_together
from rpgmt.engine.task import Batch, Outputs, Task
from rpgmt.errors import UserError
from rpgmt.fields import config_class

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from rpgmt.data.labelled import LabelledCrops, LabelledSet
    from rpgmt.data.pose import Augmentation
    from rpgmt.heads import Head

SCORE = "score"
"""The mean over the tasks of one number each, from 0 to 1: AP, mIoU, depth within 1.25, normals within 30°, accuracy."""
SHOWN = 4
"""Samples in `predictions.png`."""


@config_class
class DataConfig:
    """Images with labels for several tasks."""

    name: Annotated[
        Literal["synthetic", "coco", "nyuv2", "cityscapes", "folders"],
        Field(description="people that are drawn here, a data set's files, or folders of your own that a YAML file describes"),
        Flag("--data"),
    ] = "synthetic"
    root: Annotated[
        Path,
        Field(description="folder of the files; of dataset.yaml, or that file, for folders; of the cache, for synthetic"),
        Flag("--data-root"),
    ] = Path(".data")
    train_split: Annotated[str, Field(description="part of the files to train on; not of synthetic people")] = "train"
    val_split: Annotated[str, Field(description="part of the files to validate on; not of synthetic people")] = "val"
    image_size: Annotated[int, Field(ge=32, le=1024, description="synthetic: width and height of an image")] = 96
    train_images: Annotated[int, Field(ge=1, description="synthetic: images to train on")] = 4000
    val_images: Annotated[int, Field(ge=1, description="synthetic: images to validate on")] = 400
    padding: Annotated[float, Field(gt=0, description="enlargement of a person's box; whole images are not enlarged")] = 1.25


@config_class
class EvaluationConfig:
    """From predictions to accuracy."""

    stop_after: Annotated[int | None, Field(ge=1, description="compute so many stages only; null: all")] = None


def _model() -> ModelConfig:
    return ModelConfig(stages=3, heads={"keypoints": 17, "segmentation": 2, "depth": 1, "normals": 3})


@config_class
class Config:
    """The multi-task task. Its tasks are the model's heads: labels of the data set by name, or `keypoints`."""

    model: ModelConfig = field(default_factory=_model)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    sigma: Annotated[float, Field(gt=0, description="key points: the target's standard deviation in map cells")] = 1.0
    depth_loss: Annotated[
        Literal["l1", "silog"], Field(description="depth: absolute error, or the scale-invariant one of logarithms")
    ] = "l1"
    balancing: BalanceConfig = field(default_factory=BalanceConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_together(self.model, self.train)
        stages, stop = self.model.stages, self.evaluation.stop_after
        if stop is not None and stop > stages:
            raise ConfigError(f"`stop_after` is {stop}: the network has {stages} stages")

    def for_another_set(self) -> Config:
        """The config without the files of its own data set."""
        return dataclasses.replace(self, data=DataConfig(padding=self.data.padding))


def build(config: Config) -> MultiTask:
    """The task that a config describes."""
    import torch

    torch.manual_seed(config.train.seed)
    return MultiTask(config)


class MultiTask(Task):
    """Crops with labels, predictions of every task from every stage, the accuracy of every task and stage.

    Metrics are `HEAD.METRIC`, e.g. `depth.rmse`, of the last stage, and `stage_1/HEAD.METRIC` of every stage.
    """

    name = "multitask"
    monitor = SCORE

    def __init__(self, config: Config) -> None:
        from rpgmt import models

        models.check_batch_size(config.model, config.train.batch_size)
        if SCORE in config.model.heads:
            raise UserError(f"`heads` is {config.model.heads}: {SCORE!r} is the name of the mean over tasks, give another")
        self.config = config
        self.balancing = config.balancing
        _ = self.heads  # says what the data lacks, before anything takes long
        self.model = models.build(config.model)

    @cached_property
    def train_data(self) -> LabelledCrops:  # type: ignore[override]
        from rpgmt.data.pose import Augmentation
        from rpgmt.heads.keypoints import Keypoints

        labelled = self._labelled("train")
        for name, head in self.heads.items():
            if isinstance(head, Keypoints):
                names = [", ".join(of.people.keypoints.names) for of in (labelled, head)]  # type: ignore[union-attr]
                if names[0] != names[1]:
                    raise UserError(f"{labelled.name}: its key points are {names[0]}, those to validate on {names[1]}")
                continue
            kinds = [of.maps.get(name) or of.classes.get(name) for of in (labelled, self.val_data.labelled)]
            if kinds[0] is None:
                known = ", ".join((*labelled.maps, *labelled.classes)) or "none"
                raise UserError(f"{labelled.name} has no labels {name!r}, which it is to be trained on, it has {known}")
            if kinds[0] != kinds[1]:
                raise UserError(f"{labelled.name}: its labels {name!r} are {kinds[0]}, those to validate on {kinds[1]}")
        return self._crops(labelled, Augmentation(**vars(self.config.augmentation)))

    @cached_property
    def val_data(self) -> LabelledCrops:  # type: ignore[override]
        return self._crops(self._labelled("val"), None)

    @cached_property
    def heads(self) -> dict[str, Head]:
        """What each of the model's heads predicts, by name: the data set's labels of that name say it."""
        heads = {name: self._head(name) for name in self.config.model.heads}
        wanted = {name: head.channels for name, head in heads.items()}
        if wanted != self.config.model.heads:
            flag = ",".join(f"{name}={channels}" for name, channels in wanted.items())
            raise UserError(
                f"`heads` is {self.config.model.heads}: the labels of {self.val_data.labelled.name} need --heads {flag}"
            )
        return heads

    def _head(self, name: str) -> Head:
        from rpgmt.codecs.heatmap import Heatmap
        from rpgmt.data.coco import CocoPeople
        from rpgmt.heads import Classification, map_head
        from rpgmt.heads.keypoints import Keypoints
        from rpgmt.models import STRIDE

        labelled = self.val_data.labelled
        if name == "keypoints" and isinstance(labelled.people, CocoPeople):
            width, height = self.config.model.input_size
            codec = Heatmap(
                input_size=(width, height), heatmap_size=(width // STRIDE, height // STRIDE), sigma=self.config.sigma
            )
            return Keypoints(name, labelled.people, codec, self.val_data.crops.areas())
        if name in labelled.maps:
            return map_head(name, labelled.maps[name], depth_loss=self.config.depth_loss)
        if name in labelled.classes:
            return Classification(name, labelled.classes[name])
        known = [*(["keypoints"] if labelled.has_keypoints else []), *labelled.maps, *labelled.classes]
        raise UserError(
            f"`heads` is {self.config.model.heads}: {labelled.name} has no labels {name!r}, it has {', '.join(known) or 'none'}"
        )

    @property
    def details(self) -> tuple[str, ...]:
        """The metrics that are known of each class or key point, too."""
        return tuple(f"{name}.{head.main}" for name, head in self.heads.items() if head.main in ("mIoU", "accuracy"))

    @property
    def data_summary(self) -> dict[str, Any]:
        """What the run is trained and validated on, for `metrics.json`."""
        data = self.config.data
        root = {} if data.name == "synthetic" else {"root": str(data.root)}
        sizes = {"train_samples": len(self.train_data), "val_samples": len(self.val_data)}
        return {"name": data.name, **root, "boxes": self.val_data.labelled.people.boxes, **sizes}

    @property
    def metric_label(self) -> str:
        """What the accuracy is over, for tables."""
        data = self.config.data
        split = "val" if data.name == "synthetic" else data.val_split
        return f"{data.name} {split}, {self.val_data.labelled.people.boxes}"

    def images(self, batch: Batch) -> Tensor:
        from rpgmt.data.images import normalize

        return normalize(batch["image"])

    def infer(self, model: nn.Module, images: Tensor) -> Outputs:
        """Predictions of the stages that are asked for."""
        outputs: Outputs = model(images, stop_after=self.config.evaluation.stop_after)
        return outputs

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        return {
            f"stage_{k}/{name}": head.loss(output[name], batch)
            for k, output in enumerate(outputs, start=1)
            for name, head in self.heads.items()
        }

    def predictions(self, outputs: Outputs, batch: Batch) -> list[dict[str, Any]]:
        """One record of the batch: what the heads' metrics need of each stage, and the samples that are drawn."""
        measured = [{name: head.measure(output[name], batch) for name, head in self.heads.items()} for output in outputs]
        return [{"measured": measured, "shown": self._shown(outputs, batch)}]

    def _shown(self, outputs: Outputs, batch: Batch) -> dict[int, list[dict[str, np.ndarray]]]:
        """For each sample that is to be drawn, by its index, what each stage found."""
        step = max(1, len(self.val_data) // SHOWN)
        places = [i for i, index in enumerate(batch["index"].tolist()) if index % step == 0 and index // step < SHOWN]
        if not places:
            return {}
        part = {key: value[places] if hasattr(value, "shape") else value for key, value in batch.items()}
        stages = [{name: head.shown(output[name][places], part) for name, head in self.heads.items()} for output in outputs]
        return {
            int(batch["index"][place]): [{name: found[name][i] for name in found} for found in stages]
            for i, place in enumerate(places)
        }

    def metrics(self, predictions: Sequence[dict[str, Any]]) -> dict[str, float | None]:
        """Each head's metrics and the score, of the last stage under their own names and of stage k under `stage_k/…`."""
        each = []
        for k in range(len(predictions[0]["measured"])):
            of_heads = {
                name: head.metrics([record["measured"][k][name] for record in predictions]) for name, head in self.heads.items()
            }
            scores = [of_heads[name][head.score] for name, head in self.heads.items()]
            known = [score for score in scores if score is not None]
            flat = {f"{name}.{metric}": value for name, found in of_heads.items() for metric, value in found.items()}
            each.append({SCORE: sum(known) / len(known) if known else None} | flat)
        return each[-1] | {f"stage_{k}/{name}": value for k, of in enumerate(each, 1) for name, value in of.items()}

    def save_results(self, predictions: Sequence[dict[str, Any]], path: Path) -> None:
        """Writes the key points that the last stage found in COCO's result format."""
        import numpy as np

        from rpgmt.heads.keypoints import Keypoints
        from rpgmt.metrics.results import save_results

        head = self.heads.get("keypoints")
        if not isinstance(head, Keypoints):
            raise UserError(f"`save_results` is {path}: the network has no head `keypoints`")
        indices, poses = zip(*(record["measured"][-1]["keypoints"] for record in predictions), strict=True)
        save_results(path, head.evaluation.results([i for part in indices for i in part], np.concatenate(poses)))

    def draw(self, predictions: Sequence[dict[str, Any]], folder: Path) -> None:
        """Writes `predictions.png`: a few validation samples, for each task the labels and what each stage predicts."""
        from rpgmt.visualize import contact_sheet, save_png

        rows = []
        shown = {index: stages for record in predictions for index, stages in record["shown"].items()}
        for index in sorted(shown):
            sample = self.val_data[0, index]
            for name, head in self.heads.items():
                found = [head.draw(sample["image"], stage[name]) for stage in shown[index]]
                rows.append([sample["image"], head.draw(sample["image"], head.truth(sample)), *found])
        titles = ["image", "labels", *(f"stage {k + 1}" for k in range(len(rows[0]) - 2))]
        save_png(folder / "predictions.png", contact_sheet(rows, titles))

    def _crops(self, labelled: LabelledSet, changes: Augmentation | None) -> LabelledCrops:
        from rpgmt.data.labelled import LabelledCrops

        model, data = self.config.model, self.config.data
        seed = self.config.train.seed
        return LabelledCrops(labelled, model.heads, model.input_size, augment=changes, seed=seed, padding=data.padding)

    def _labelled(self, split: Literal["train", "val"]) -> LabelledSet:
        from rpgmt.data import synthetic
        from rpgmt.data.labelled_sets import read_labelled
        from rpgmt.data.synthetic_labels import synthetic_labels

        data = self.config.data
        if data.name != "synthetic":
            return read_labelled(data.name, data.root, data.train_split if split == "train" else data.val_split)
        count = data.train_images if split == "train" else data.val_images
        scenes = synthetic.load(data.root, count=count, size=data.image_size, split=split, dense=True)
        return synthetic_labels(scenes, f"synthetic {split}")
