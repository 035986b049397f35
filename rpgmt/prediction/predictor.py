"""From an image to people: the boxes are cut out, the network looks at them in batches, what it finds is put back."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rpgmt.data.augmentation import Changes
from rpgmt.data.crops import RegionCrops
from rpgmt.data.regions import Region, Regions
from rpgmt.data.resized_crops import centre_box, cut_and_scale, scaled_to_image
from rpgmt.errors import UserError
from rpgmt.metrics.nms import oks_nms
from rpgmt.prediction.ahead import made_ahead
from rpgmt.prediction.meaning import Crops, KeypointMaps
from rpgmt.prediction.network import Decoded, Network
from rpgmt.prediction.people import People
from rpgmt.prediction.source import ImageLike, SourceImage

if TYPE_CHECKING:
    from rpgmt.detection import Detector

Boxes = ArrayLike | None
"""(P, 4), x, y, w, h in pixels of the image, or (P, 5) with a score; None: those of the detector, or the whole image."""


class Predictor:
    """Finds in images what a model was trained to find.

        predictor = Predictor.load("runs/pose-1")
        people = predictor("photo.jpg", boxes=[[40, 10, 120, 300]])
        people.keypoints            # (1, K, 2), x and y in pixels of the photo
        people.draw("photo.jpg")    # a picture

    On the boxes of a data set the figures are those of an evaluation.

    Args:
        network: with what it is given and what its outputs mean.
        detector: finds the boxes of images that come without.
        batch_size: crops a forward pass.
        stop_after: compute so many stages only; None: all.
        flip_test: average with what is found in the mirror images; for key points alone.
        every_stage: read the outputs of all stages, which takes its time, so that `People.stages` has them.

    Raises:
        UserError: there is no such stage, or nothing to average.
    """

    def __init__(
        self,
        network: Network,
        *,
        detector: Detector | None = None,
        batch_size: int = 16,
        stop_after: int | None = None,
        flip_test: bool = False,
        every_stage: bool = True,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"`batch_size` is {batch_size}: give at least 1")
        if stop_after is not None and not 1 <= stop_after <= network.stages:
            raise UserError(f"`stop_after` is {stop_after}: give 1 to {network.stages}, the stages of the network")
        odd = [name for name, meaning in network.reading.heads.items() if not isinstance(meaning, KeypointMaps)]
        if flip_test and odd:
            raise UserError(f"`flip_test` is for key points alone: the network also predicts {', '.join(odd)}")
        self.network, self.reading, self.detector = network, network.reading, detector
        self.batch_size, self.stop_after, self.flip_test = batch_size, stop_after, flip_test
        self.every_stage = every_stage

    def __repr__(self) -> str:
        stages = self.stop_after or self.network.stages
        counted = "1 stage" if stages == 1 else f"{stages} stages"
        detector = "" if self.detector is None else f"; {type(self.detector).__name__}"
        return f"Predictor({', '.join(self.reading.heads)}; {counted}{detector})"

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        weights: Literal["last", "best"] = "last",
        device: str = "auto",
        detector: Detector | str | Path | None = None,
        batch_size: int = 16,
        stop_after: int | None = None,
        flip_test: bool = False,
        every_stage: bool = True,
    ) -> Predictor:
        """The predictor of a trained model.

        Args:
            path: run folder, model file, or an exported ONNX file.
            weights: of a run folder: those of the end of training, or of the best validation.
            device: `auto` (a GPU if there is one), `cpu`, `cuda`, …
            detector: a `Detector`, the name of one of torchvision's, or an ONNX file: see `rpgmt.detection`.
            batch_size, stop_after, flip_test, every_stage: see the class.

        Raises:
            UserError: there is no such file, or it cannot be used.
        """
        from rpgmt.prediction.load import load_network

        if isinstance(detector, str | Path):
            from rpgmt.detection import make_detector

            detector = make_detector(detector, device=device)
        network = load_network(path, weights, device)
        options: Any = {"stop_after": stop_after, "flip_test": flip_test, "every_stage": every_stage}
        return cls(network, detector=detector, batch_size=batch_size, **options)

    @overload
    def __call__(self, image: ImageLike, boxes: Boxes = None) -> People: ...
    @overload
    def __call__(self, image: list[ImageLike], boxes: Sequence[Boxes] | None = None) -> list[People]: ...
    def __call__(self, image: Any, boxes: Any = None) -> People | list[People]:
        """Find what is in an image, or in each of a list of images.

        Args:
            image: a path, an encoded file's bytes, uint8 (H, W, 3) RGB, an image of Pillow, or a list of them.
            boxes: (P, 4), x, y, w, h in pixels of the image, where x, y is the box's upper left pixel; or (P, 5), with the
                score of a detector; of a list of images a list. None: what the detector finds, else the whole image.

        Raises:
            UserError: an image cannot be read, or boxes are not boxes.
        """
        if not isinstance(image, list | tuple):
            return next(self.stream([image], [boxes]))
        if boxes is not None and len(boxes) != len(image):
            raise UserError(f"there are {len(image)} images and {len(boxes)} sets of boxes: give one for each image")
        return list(self.stream(image, boxes, ahead=self.batch_size))

    def stream(
        self, images: Iterable[ImageLike | SourceImage], boxes: Iterable[Boxes] | None = None, *, ahead: int = 0
    ) -> Iterator[People]:
        """What is found in each image, in their order; batches go across images, and images are read as they are needed.

        Args:
            images, boxes: as of a call; they may be generators without an end.
            ahead: so many images are read, and cut, in another thread before the network needs them. 0: each when its turn
                comes, so that what a camera gives is not old.
        """
        for found in self.attempts(images, boxes, ahead=ahead):
            if isinstance(found, UserError):
                raise found
            yield found

    def attempts(
        self,
        images: Iterable[ImageLike | SourceImage | UserError],
        boxes: Iterable[Boxes] | None = None,
        *,
        ahead: int = 0,
    ) -> Iterator[People | UserError]:
        """As `stream`, but where an image cannot be read or its boxes are wrong, the error is in its place.

        Args:
            images, boxes, ahead: as of `stream`. An error among the images stays one.
        """
        waiting: deque[_Image | UserError] = deque()
        crops: list[tuple[_Image, NDArray[np.uint8]]] = []  # not yet looked at
        with closing(made_ahead(self._cut_each(images, boxes), ahead)) as cut:
            for image in cut:
                waiting.append(image)
                if isinstance(image, _Image):
                    crops += [(image, pixels) for pixels, _ in image.crops]
                while len(crops) >= self.batch_size:
                    self._look_at(crops[: self.batch_size])
                    del crops[: self.batch_size]
                while waiting and (isinstance(waiting[0], UserError) or waiting[0].done):
                    yield self._people(waiting.popleft())
        if crops:
            self._look_at(crops)
        yield from map(self._people, waiting)

    def _cut_each(
        self, images: Iterable[ImageLike | SourceImage | UserError], boxes: Iterable[Boxes] | None
    ) -> Iterator[_Image | UserError]:
        given = itertools.repeat(None) if boxes is None else boxes
        for image, own in zip(images, given, strict=boxes is not None):
            try:
                yield image if isinstance(image, UserError) else self._cut(SourceImage.open(image), own)
            except UserError as error:
                yield error

    def _cut(self, source: SourceImage, given: Boxes) -> _Image:
        """An image's boxes, and what is cut out."""
        if self.reading.cut == "middle":
            return self._cut_middle(source, given)
        padding = self.reading.padding
        if given is not None:
            boxes = checked_boxes(given, source)
        elif self.detector is not None:
            found = self.detector([source.pixels])[0]
            boxes = np.column_stack([found.boxes, found.scores]).reshape(-1, 5)
        else:
            boxes = _whole(source)
            padding = 1.0  # nothing lies round a whole image
        regions = [Region(source.entry, tuple(box)) for box in boxes[:, :4].tolist()]
        of_image = Regions(name=source.name, boxes="given", regions=regions, read_image=source.read)
        cutter = RegionCrops(of_image, self.reading.input_size, padding=padding)
        crops = [cutter.cut(region, Changes()) for region in regions]
        return _Image(source, boxes, cutter.areas(), [(crop.image, crop.to_image) for crop in crops])

    def _cut_middle(self, source: SourceImage, given: Boxes) -> _Image:
        if given is not None:
            raise UserError(f"{source.name}: the network says of the middle of an image what it is: give no boxes")
        size = self.reading.input_size
        box = centre_box(source.width, source.height, size)
        pixels = cut_and_scale(partial(source.read, source.entry), source.width, box, size)
        return _Image(source, _whole(source), np.array([float(box[2] * box[3])]), [(pixels, scaled_to_image(box, size))])

    def _look_at(self, crops: Sequence[tuple[_Image, NDArray[np.uint8]]]) -> None:
        decoded = self.network(np.stack([pixels for _, pixels in crops]), self.stop_after, self.flip_test)
        for place, (image, _) in enumerate(crops):
            image.found.append((decoded, place))

    def _people(self, image: _Image | UserError) -> People | UserError:
        if isinstance(image, UserError):
            return image
        size = (image.source.width, image.source.height)
        boxes, box_scores = image.boxes[:, :4], image.boxes[:, 4]
        crops = Crops(np.array([to_image for _, to_image in image.crops]).reshape(-1, 2, 3), size, box_scores)
        last = self.stop_after or self.network.stages
        stages = []
        for k in range(0 if self.every_stage else last - 1, last):
            results = {}
            for name, meaning in self.reading.heads.items():
                decoded = image.decoded(k, name) if image.found else meaning.nothing(self.reading.input_size)
                results[name] = meaning.place(decoded, crops)
            people = People(image_size=size, boxes=boxes, box_scores=box_scores, results=results)
            stages.append(self._without_doubles(people, image.areas))
        return dataclasses.replace(stages[-1], stages=tuple(stages) if self.every_stage else ())

    def _without_doubles(self, people: People, areas: NDArray[np.float64]) -> People:
        """The people whom the suppression of people found twice leaves, where the model's evaluation has one."""
        for meaning in self.reading.heads.values():
            if isinstance(meaning, KeypointMaps) and meaning.nms != "none" and len(people):
                rule = (meaning.nms, meaning.nms_threshold)
                return people.select(np.sort(oks_nms(people.keypoints, people.scores, areas, meaning.keypoints, *rule)))
        return people


@dataclass(frozen=True, eq=False)
class _Image:
    """An image that is being looked at.

    Attributes:
        boxes: (P, 5), x, y, w, h, score.
        areas: (P,), square pixels of the image that each crop shows.
        crops: pixels and affine to the image of each.
        found: for each crop the outputs of its batch, and its place in the batch.
    """

    source: SourceImage
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crops: list[tuple[NDArray[np.uint8], NDArray[np.float64]]]
    found: list[tuple[Decoded, int]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return len(self.found) == len(self.crops)

    def decoded(self, stage: int, head: str) -> tuple[NDArray[Any], ...]:
        rows = [tuple(part[place] for part in decoded[stage][head]) for decoded, place in self.found]
        return tuple(np.stack(parts) for parts in zip(*rows, strict=True))


_FARTHEST = 1e6
"""Pixels: no box begins farther from its image, or is larger."""


def _whole(source: SourceImage) -> NDArray[np.float64]:
    return np.array([[0.0, 0.0, source.width, source.height, 1.0]])


def checked_boxes(boxes: ArrayLike, source: SourceImage) -> NDArray[np.float64]:
    """Boxes (P, 5): x, y, w, h, and the score, 1 where none is given.

    Raises:
        UserError: they are not boxes, or one does not overlap the image; the line names it.
    """
    try:
        array = np.asarray(boxes, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{source.name}: the boxes are no numbers: give (P, 4), x, y, w, h in pixels") from None
    array = array.reshape(0, 4) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] not in (4, 5):
        raise UserError(f"{source.name}: the boxes are an array of shape {array.shape}: give (P, 4), x, y, w, h in pixels")
    x, y, w, h = array[:, :4].T
    inside = (w > 0) & (h > 0) & (x < source.width) & (y < source.height) & (x + w > 0) & (y + h > 0)
    inside &= np.isfinite(array).all(1) & (np.abs(array[:, :4]) <= _FARTHEST).all(1)
    if not inside.all():
        box = ", ".join(f"{value:g}" for value in array[~inside][0, :4])
        raise UserError(
            f"{source.name}: the box ({box}) is empty, beyond measure or outside the image of {source.width}×{source.height}: "
            "give x, y, w, h in pixels"
        )
    return array if array.shape[1] == 5 else np.column_stack([array, np.ones(len(array))])
