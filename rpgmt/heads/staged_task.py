"""A training task made of heads: what `pose` and `multitask` are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import default_collate

from rpgmt.config import BalanceConfig
from rpgmt.data.images import normalize
from rpgmt.data.regions import WHOLE_IMAGES, Regions
from rpgmt.engine.task import SCORE, Batch, Dataset, Outputs, Task, TaskConfig
from rpgmt.engine.teacher import fingerprint_of_teacher, load_teacher
from rpgmt.errors import UserError
from rpgmt.heads.head import Head
from rpgmt.prediction.meaning import Reading
from rpgmt.rpg.bake import bake
from rpgmt.run_report import gallery
from rpgmt.visualize import contact_sheet, save_png

ONE_HEAD, SEVERAL_HEADS = 2, 1
"""Samples of each rank in the gallery, for each head."""


class Quality(NamedTuple):
    """How good the predictions of a batch's samples are, see `Head.quality`.

    Args:
        samples: (B, stages), NaN where nothing is labelled.
        sums: (P, stages), of each part over the samples in which it is labelled.
        counts: (P,), of these samples.
    """

    samples: NDArray[np.float32]
    sums: NDArray[np.float32]
    counts: NDArray[np.int64]


class Crops(Dataset, Protocol):
    """A data set that says what its samples are cut out of."""

    @property
    def regions(self) -> Regions: ...


class StagedTask(Task):
    """Crops with labels, predictions of every head from every stage, the accuracy of every head and stage.

    Metrics are `HEAD.METRIC`, e.g. `depth.rmse`, and the mean `score`, of the last stage; those of each stage k are
    `stage_k/HEAD.METRIC`. Losses are `stage_k/HEAD`.

    Args:
        name: of the task.
        config: with `evaluation.stop_after`, and with what the data decided (see `Task.resolved`).
        model: the network.
        heads: what it predicts.
        val_data: what it is measured on.
        read_train_data: reads what it is trained on, and says in a `UserError` where that does not fit `val_data`.
        single: there is one head, of people, and it is what the task is about: metrics are `METRIC`, without a score.
        stage_weights: of each stage's losses; None: 1 for all.
        flip_test: average predictions with those of the mirror image.
        balancing: of the heads' losses.
        teacher: run folder or model file of a network that teaches this one its key points; None for none.
        also: further training sets, for `data_summary`.

    Raises:
        UserError: a head has another number of channels than the network gives it.
    """

    config: Any
    val_data: Crops

    def __init__(
        self,
        name: str,
        config: TaskConfig,
        model: nn.Module,
        heads: Sequence[Head],
        val_data: Crops,
        read_train_data: Callable[[], Dataset],
        *,
        single: bool = False,
        stage_weights: Sequence[float] | None = None,
        flip_test: bool = False,
        balancing: BalanceConfig | None = None,
        teacher: Path | None = None,
        also: Sequence[str] = (),
    ) -> None:
        self.name, self.config, self.model, self.val_data = name, config, model, val_data
        self.heads = {head.name: head for head in heads}
        self.monitor = heads[0].score if single else SCORE
        self.balancing = balancing or BalanceConfig()
        self._read_train_data, self._also, self._teacher = read_train_data, also, teacher
        self._single, self._flip_test = single, flip_test
        self._stage_weights = stage_weights or (1.0,) * config.model.stages
        self._samples, self._shown = ("people", 8) if single else ("samples", 4)  # what they are called, how many are drawn
        wanted = {head.name: head.channels for head in heads}
        if wanted != config.model.heads:
            flag = ",".join(f"{head}={channels}" for head, channels in wanted.items())
            raise UserError(f"`heads` is {config.model.heads}: the labels of {val_data.regions.name} need --heads {flag}")

    @cached_property
    def train_data(self) -> Dataset:  # type: ignore[override]
        return self._read_train_data()

    @cached_property
    def teacher(self) -> nn.Module | None:
        return None if self._teacher is None else load_teacher(self._teacher, self.reading)

    @cached_property  # as the file was when it was read
    def fingerprints(self) -> Mapping[str, str]:
        return {} if self._teacher is None else {"teacher": fingerprint_of_teacher(self._teacher)}

    @property
    def details(self) -> tuple[str, ...]:
        return tuple(self._metric(name, head.main) for name, head in self.heads.items() if head.detailed)

    @property
    def metric_label(self) -> str:
        data = self.config.data
        split = "val" if data.name == "synthetic" else data.val_split
        if data.hold_out:
            split = f"{'train' if data.name == 'synthetic' else data.train_split}, held-out part"
        return f"{data.name} {split}, {self.val_data.regions.boxes}" + (", flip test" if self._flip_test else "")

    def data_summary(self) -> dict[str, Any]:
        data = self.config.data
        root = {} if data.name == "synthetic" else {"root": str(data.root)}
        also = {"also": list(self._also)} if self._also else {}
        sizes = {f"train_{self._samples}": len(self.train_data), f"val_{self._samples}": len(self.val_data)}
        counted = [count for head in self.heads.values() for count in head.counted().values()]
        pck = {"pck_people": counted[0].people, "pck_keypoints": counted[0].keypoints} if counted else {}
        return {"name": data.name, **root, **also, "boxes": self.val_data.regions.boxes, **sizes, **pck}

    @property
    def reading(self) -> Reading:
        people = self.val_data.regions.boxes != WHOLE_IMAGES
        return Reading(
            input_size=self.config.model.input_size,
            cut="people" if people else "images",
            padding=self.config.data.padding if people else 1.0,
            heads={name: head.meaning for name, head in self.heads.items()},
        )

    def images(self, batch: Batch) -> Tensor:
        return normalize(batch["image"])

    def infer(self, model: nn.Module, images: Tensor) -> Outputs:
        """Predictions of the stages that are asked for, with the flip test averaged with those of the mirror image."""
        stop = self.config.evaluation.stop_after
        outputs: Outputs = model(images, stop_after=stop)
        if not self._flip_test:
            return outputs
        mirrored: Outputs = model(images.flip(-1), stop_after=stop)
        return [
            {name: head.average_with_mirror(one[name], other[name]) for name, head in self.heads.items()}
            for one, other in zip(outputs, mirrored, strict=True)
        ]

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        of_heads = {name: head.losses([output[name] for output in outputs], batch) for name, head in self.heads.items()}
        losses = {}
        for k in range(len(outputs)):
            for name, of_stages in of_heads.items():
                total, count = of_stages[k]
                losses[f"stage_{k + 1}/{name}"] = (self._stage_weights[k] * total, count)
        return losses

    def predictions(self, outputs: Outputs, batch: Batch) -> list[dict[str, Any]]:
        """One record of the batch: what the heads' metrics need of each stage, figures of samples, and those that are drawn."""
        measured = [{name: head.measure(output[name], batch) for name, head in self.heads.items()} for output in outputs]
        quality = {name: self._quality(name, outputs, batch, measured) for name in self.heads}
        shown = self._to_show(outputs, batch)
        return [{"measured": measured, "index": batch["index"].tolist(), "quality": quality, "shown": shown}]

    def _quality(self, name: str, outputs: Outputs, batch: Batch, measured: Sequence[Mapping[str, Any]]) -> Quality:
        each = zip(outputs, measured, strict=True)
        values = torch.stack([self.heads[name].quality(output[name], batch, of[name]).float().cpu() for output, of in each])
        return Quality(values.nanmean(2).T.numpy(), values.nansum(1).T.numpy(), (~values[0].isnan()).sum(0).numpy())

    def _to_show(self, outputs: Outputs, batch: Batch) -> dict[int, list[dict[str, np.ndarray]]]:
        """For each sample that is to be drawn, by its index, what each stage found."""
        step = max(1, len(self.val_data) // self._shown)
        places = [i for i, index in enumerate(batch["index"].tolist()) if index % step == 0 and index // step < self._shown]
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
        stages = range(len(predictions[0]["measured"]))
        each = [self._metrics({name: _measured(predictions, k, name) for name in self.heads}) for k in stages]
        return each[-1] | {f"stage_{k}/{name}": value for k, of in enumerate(each, 1) for name, value in of.items()}

    def _metrics(self, measured: Mapping[str, list[Any]]) -> dict[str, float | None]:
        of_heads = {name: head.metrics(measured[name]) for name, head in self.heads.items()}
        flat = {self._metric(name, metric): value for name, found in of_heads.items() for metric, value in found.items()}
        if self._single:
            return flat
        scores = [of_heads[name][head.score] for name, head in self.heads.items()]
        known = [score for score in scores if score is not None]
        return {SCORE: sum(known) / len(known) if known else None} | flat

    def _metric(self, head: str, metric: str) -> str:
        return metric if self._single else f"{head}.{metric}"

    @property
    def remarks(self) -> list[str]:
        counted = {name: head.counted() for name, head in self.heads.items()}
        return [f"{self._metric(name, metric)} is over {count}" for name, of in counted.items() for metric, count in of.items()]

    def check_results(self, path: Path) -> None:
        if "keypoints" not in self.heads:
            raise UserError(f"`save_results` is {path}: the network has no head `keypoints`")
        self.heads["keypoints"].check_results(path)

    def save_results(self, predictions: Sequence[dict[str, Any]], path: Path) -> None:
        """Writes the key points that the last stage found in COCO's result format."""
        self.check_results(path)
        self.heads["keypoints"].save_results(_measured(predictions, -1, "keypoints"), path)

    def draw(self, predictions: Sequence[dict[str, Any]], folder: Path) -> None:
        """Writes `predictions.png`: a few validation samples, for each head the labels and what each stage predicts."""
        rows = []
        shown = {index: stages for record in predictions for index, stages in record["shown"].items()}
        for index in sorted(shown):
            sample = self.val_data[0, index]
            for name, head in self.heads.items():
                found = [head.draw(sample["image"], stage[name]) for stage in shown[index]]
                rows.append([sample["image"], head.draw(sample["image"], head.truth(sample)), *found])
        titles = ["image", "labels", *(f"stage {k + 1}" for k in range(len(rows[0]) - 2))]
        save_png(folder / "predictions.png", contact_sheet(rows, titles))

    def draw_gallery(self, predictions: Sequence[dict[str, Any]], model: nn.Module, folder: Path) -> None:
        """The samples are predicted once more, for of a large set only their figures were kept."""
        indices = np.concatenate([record["index"] for record in predictions])
        order = np.argsort(indices, kind="stable")  # equal figures are ranked by it
        indices, figures, chosen = indices[order], {}, {}
        for name, head in self.heads.items():
            figures[name] = np.concatenate([record["quality"][name].samples for record in predictions])[order]
            each = ONE_HEAD if len(self.heads) == 1 else SEVERAL_HEADS
            chosen[name] = gallery.ranked(figures[name][:, -1], each, higher=head.figure_higher)
        shown = self._predict_again(
            model, {int(indices[i]) for of in chosen.values() for places in of.values() for i in places}
        )
        groups = []
        for name, head in self.heads.items():
            rows = [
                gallery.Row(
                    rank,
                    self._title(int(indices[place])),
                    [*self._pictures(name, *shown[int(indices[place])], figures[name][place])],
                )
                for rank, places in chosen[name].items()
                for place in places
            ]
            parts = {} if head.detailed else _parts(head, [record["quality"][name] for record in predictions])
            groups.append(gallery.group(name, head.figure, head.figure_higher, figures[name], rows, parts, folder))
        gallery.write(groups, folder)

    def _predict_again(self, model: nn.Module, indices: Collection[int]) -> dict[int, tuple[Any, list[dict[str, Any]]]]:
        """Each sample, and what each stage finds of it."""
        found = {}
        still = bake(copy.deepcopy(model)).eval()
        device = next(still.parameters()).device
        for index in sorted(indices):
            sample = self.val_data[0, index]
            batch = {key: v.to(device) if isinstance(v, Tensor) else v for key, v in default_collate([sample]).items()}
            with torch.no_grad():
                outputs = self.infer(still, self.images(batch))
            stages = [{name: head.shown(output[name], batch)[0] for name, head in self.heads.items()} for output in outputs]
            found[index] = sample, stages
        return found

    def _pictures(
        self, name: str, sample: Mapping[str, Any], stages: Sequence[Mapping[str, Any]], figures: Sequence[float]
    ) -> Iterator[gallery.Picture]:
        head = self.heads[name]
        yield gallery.Picture("image", sample["image"])
        yield gallery.Picture("labels", head.draw(sample["image"], head.truth(sample)))
        for number, (stage, figure) in enumerate(zip(stages, figures, strict=True), 1):
            yield gallery.Picture(f"stage {number}", head.draw(sample["image"], stage[name]), figure)

    def _title(self, index: int) -> str:
        image = self.val_data.regions.regions[index].image
        return f"{'person' if self._single else 'sample'} {index}: {image.get('file_name') or image['id']}"


def _parts(head: Head, quality: Sequence[Quality]) -> dict[str, list[float]]:
    """The mean figure of each part, by stage."""
    sums, counts = np.sum([of.sums for of in quality], axis=0), np.sum([of.counts for of in quality], axis=0)
    means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)
    return {part: mean.tolist() for part, mean in zip(head.parts, means, strict=True)} if head.parts else {}


def _measured(predictions: Sequence[dict[str, Any]], stage: int, head: str) -> list[Any]:
    return [record["measured"][stage][head] for record in predictions]
