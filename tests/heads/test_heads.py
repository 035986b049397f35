"""Every head on crops of a small set in memory: the truth, constants, missing labels, batches, pictures."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.people_files import write_coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rpgmt.codecs.heatmap import Heatmap
from rpgmt.data.coco.data_root import find_files
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.multitask_crops import MultiTaskCrops
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.data.regions import Entry, whole_images
from rpgmt.errors import UserError
from rpgmt.heads import Classification, Depth, Head, Normals, PartSegmentation, Segmentation, map_head
from rpgmt.heads.keypoints import Keypoints
from rpgmt.metrics.poses import PoseEvaluation
from rpgmt.prediction.meaning import at_full_size
from rpgmt.synthetic.cache import load
from rpgmt.synthetic.labels import synthetic_labels

WIDTH, HEIGHT = SIZE = 32, 24
SCALES = (1, 2, 4, 2, 4, 1)
"""How many pixels of the crop, along a side, show one of each image."""
LACKS: dict[int, set[str]] = {
    1: {"depth", "disparity"},
    2: {"segmentation", "parts"},
    3: {"normals", "scene"},
    4: {"segmentation", "parts", "depth", "disparity", "normals", "scene"},
}
MAPS = {
    "segmentation": LabelMap(kind="classes", classes=("sky", "grass", "dog", "ship")),
    "parts": LabelMap(kind="parts", classes=("nothing", "left_hand", "nose", "right_hand"), swaps=((1, 3),)),
    "depth": LabelMap(kind="depth"),
    "disparity": LabelMap(kind="depth", inverse=True),
    "normals": LabelMap(kind="normals"),
}
SCENES = ("indoor", "outdoor", "space")


def _image_size(entry: Entry) -> tuple[int, int]:
    return entry["height"], entry["width"]


def _read_image(entry: Entry, *_: int) -> np.ndarray:
    return np.random.default_rng(entry["id"]).integers(0, 256, (*_image_size(entry), 3), np.uint8)


def _read_maps(entry: Entry, names: Collection[str]) -> dict[str, np.ndarray]:
    """Labels of which a few pixels are unknown, and none where `LACKS` says so; nobody is a ship."""
    rng = np.random.default_rng(100 + entry["id"])
    size = _image_size(entry)
    normals = rng.normal(size=(*size, 3)) + np.array([0, 0, -1.5])
    maps = {
        "segmentation": rng.integers(-1, 3, size),
        "parts": rng.choice(5, size, p=[0.1, 0.5, 0.1, 0.1, 0.2]) - 1,
        "depth": rng.uniform(0.5, 5, size) * (rng.random(size) > 0.2),
        "disparity": rng.uniform(0.05, 0.5, size) * (rng.random(size) > 0.2),
        "normals": normals / np.linalg.norm(normals, axis=-1, keepdims=True) * (rng.random(size) > 0.2)[..., None],
    }
    return {name: maps[name] for name in names if name not in LACKS.get(entry["id"], ())}


def _read_classes(entry: Entry) -> dict[str, int]:
    return {} if "scene" in LACKS.get(entry["id"], ()) else {"scene": (2, 1, 1, 0, 0, 1)[entry["id"]]}


ENTRIES = [{"id": i, "width": WIDTH // s, "height": HEIGHT // s} for i, s in enumerate(SCALES)]
GARDEN = MultiTaskSet(
    regions=whole_images(ENTRIES, _read_image, "garden"),
    maps=MAPS,
    read_maps=_read_maps,
    classes={"scene": SCENES},
    read_classes=_read_classes,
)
CROPS = MultiTaskCrops(GARDEN, (*MAPS, "scene"), SIZE)


def _batch(*indices: int) -> dict[str, Any]:
    return torch.utils.data.default_collate([CROPS[0, i] for i in (indices or range(len(CROPS)))])


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> MultiTaskCrops:
    scenes = load(tmp_path_factory.mktemp("data"), count=6, split="val", processes=1, progress=False)
    return MultiTaskCrops(synthetic_labels(scenes, "people"), (), SIZE)


def _keypoints(people: MultiTaskCrops) -> Keypoints:
    codec = Heatmap(input_size=SIZE, heatmap_size=(WIDTH // 2, HEIGHT // 2))
    return Keypoints("keypoints", codec, PoseEvaluation(people.dataset.people, "coco_pck", people.crops.areas()))  # type: ignore[arg-type]


DENSE = ["segmentation", "parts", "depth", "silog", "disparity", "normals", "scene"]
NAMES = [*DENSE, "keypoints"]
Case = tuple[Head, MultiTaskCrops]


@pytest.fixture
def case(request: pytest.FixtureRequest, people: MultiTaskCrops) -> Case:
    """A head and crops with its labels."""
    name = request.param
    if name == "keypoints":
        return _keypoints(people), people
    if name == "scene":
        return Classification("scene", SCENES), CROPS
    return (map_head("depth", MAPS["depth"], depth_loss="silog") if name == "silog" else map_head(name, MAPS[name])), CROPS


def _all(crops: MultiTaskCrops) -> dict[str, Any]:
    return torch.utils.data.default_collate([crops[0, i] for i in range(len(crops))])


def _part(batch: dict[str, Any], places: list[int]) -> dict[str, Any]:
    return {key: value[places] for key, value in batch.items()}


def _perfect(head: Head, batch: dict[str, Any]) -> torch.Tensor:
    """What a network that knows the labels would say."""
    if isinstance(head, Keypoints):
        return head.codec.encode(batch["keypoints"], batch["visibility"])[0].clamp(min=1e-30).log()
    label = batch[head.name]
    if isinstance(head, Depth):
        known = torch.where(label > 0, label, 3)
        return (known + torch.log(-torch.expm1(-known)))[:, None]
    if isinstance(head, Normals):
        return 7 * label.movedim(-1, 1) + 3.0 * (label == 0).all(-1)[:, None]
    logits = 60 * F.one_hot(label.long().clamp(min=0), head.channels).movedim(-1, 1).float()
    return logits[..., None, None].expand(-1, -1, 3, 4) if isinstance(head, Classification) else logits


def _random(head: Head, batch: dict[str, Any]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(len(batch["image"]), head.channels, HEIGHT // 2, WIDTH // 2, generator=generator)


def _labelled(head: Head, batch: dict[str, Any]) -> list[bool]:
    """For each sample whether anything is known."""
    if isinstance(head, Keypoints):
        return (batch["visibility"] > 0).any(1).tolist()
    label = batch[head.name].flatten(1) if batch[head.name].dim() > 1 else batch[head.name][:, None]
    return (
        ((label > 0) if isinstance(head, Depth) else (label != 0) if isinstance(head, Normals) else label >= 0).any(1).tolist()
    )


def _same(found: dict[str, float | None], expected: dict[str, float | None]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, rel=1e-6, abs=1e-9)), name


def test_the_kind_of_the_labels_says_the_head() -> None:
    kinds = {name: type(map_head(name, label)) for name, label in MAPS.items()}
    assert kinds == {
        "segmentation": Segmentation,
        "parts": PartSegmentation,
        "depth": Depth,
        "disparity": Depth,
        "normals": Normals,
    }
    assert {name: map_head(name, label).channels for name, label in MAPS.items()} == {
        "segmentation": 4,
        "parts": 4,
        "depth": 1,
        "disparity": 1,
        "normals": 3,
    }


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_the_truth_costs_nothing_and_is_perfect(case: Case) -> None:
    head, crops = case
    batch = _all(crops)
    total, count = head.loss(_perfect(head, batch), batch)
    assert count > 0
    assert total / count == pytest.approx(0, abs=1e-5)
    metrics = head.metrics([head.measure(_perfect(head, batch), batch)])
    for name, higher in head.higher.items():
        assert metrics[name] == pytest.approx(1 if higher else 0, abs=0.01 if isinstance(head, Normals) else 1e-5), name
    assert metrics[head.score] == pytest.approx(1)


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_the_truth_is_better_than_chance_by_every_figure(case: Case) -> None:
    head, crops = case
    batch = _all(crops)
    truth, chance = (head.metrics([head.measure(make(head, batch), batch)]) for make in (_perfect, _random))
    assert {head.main, head.score, *head.higher} <= set(truth)
    assert truth.keys() == chance.keys()
    for name, higher in head.higher.items():
        assert (truth[name] > chance[name]) if higher else (truth[name] < chance[name]), name  # type: ignore[operator]
    assert 0 <= chance[head.score] < 1  # type: ignore[operator]


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_the_loss_has_a_finite_gradient_for_every_sample_with_a_label_and_none_for_others(case: Case) -> None:
    head, crops = case
    batch = _all(crops)
    output = _random(head, batch).requires_grad_()
    (gradient,) = torch.autograd.grad(head.loss(output, batch)[0], output)
    assert gradient.isfinite().all()
    known = _labelled(head, batch)
    assert (gradient.abs().sum((1, 2, 3)) > 0).tolist() == known
    assert isinstance(head, Keypoints) or known.count(False) == 2


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_samples_without_a_label_change_neither_loss_nor_metrics(case: Case) -> None:
    """And a batch in which nothing is known has the sum 0, the number 0 and metrics that are None."""
    head, crops = case
    batch = _all(crops)
    output, known = _random(head, batch), _labelled(head, batch)
    places = [i for i, labelled in enumerate(known) if labelled]
    part = _part(batch, places)
    assert [float(v) for v in head.loss(output, batch)] == pytest.approx([float(v) for v in head.loss(output[places], part)])
    if isinstance(head, Keypoints):
        return
    _same(head.metrics([head.measure(output, batch)]), head.metrics([head.measure(output[places], part)]))
    others = [i for i, labelled in enumerate(known) if not labelled]
    nothing = _part(batch, others)
    total, count = head.loss(output[others], nothing)
    assert (float(total), float(count)) == (0, 0)
    assert set(head.metrics([head.measure(output[others], nothing)]).values()) == {None}


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1, 1, 1], [4, 2], [2, 4]])
@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_metrics_do_not_depend_on_batches_or_their_order(case: Case, sizes: list[int]) -> None:
    head, crops = case
    batch = _all(crops)
    output = _random(head, batch).round()  # ties
    sizes = [*sizes, len(batch["image"]) - sum(sizes)] if len(batch["image"]) > sum(sizes) else sizes
    ends = np.cumsum(sizes).tolist()
    places = [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    measured = [head.measure(output[part], _part(batch, part)) for part in places]
    whole = head.metrics([head.measure(output, batch)])
    _same(head.metrics(measured), whole)
    _same(head.metrics(measured[::-1]), whole)


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_half_precision_is_measured_in_single(case: Case) -> None:
    head, crops = case
    batch = _all(crops)
    half = _random(head, batch).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, count = head.loss(half, batch)
    expected, number = head.loss(half.float(), batch)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)
    assert float(count) == float(number)
    _same(head.metrics([head.measure(half, batch)]), head.metrics([head.measure(half.float(), batch)]))


def _quality(head: Head, output: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    return head.quality(output, batch, head.measure(output, batch))


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_each_samples_figure_is_its_own_perfect_for_the_truth_and_none_without_labels(case: Case) -> None:
    head, crops = case
    batch = _all(crops)
    known, perfect, chance = _labelled(head, batch), _perfect(head, batch), _random(head, batch)
    truth, found = (_quality(head, output, batch) for output in (perfect, chance))
    assert truth.shape == found.shape == (len(known), len(head.parts) or 1)
    for values in (truth, found):
        assert (~values.isnan()).any(1).tolist() == known
    best = truth.nanmean(1)[known]
    # An angle that is computed in float32 is exact to some hundredths of a degree.
    assert best == pytest.approx(1 if head.figure_higher else 0, abs=0.06 if isinstance(head, Normals) else 1e-4)
    worse = found.nanmean(1)[known]
    assert bool((worse < best).all() if head.figure_higher else (worse > best).all())
    for i in range(len(known)):
        one = _quality(head, chance[i : i + 1], _part(batch, [i]))
        torch.testing.assert_close(one[0], found[i], equal_nan=True)
        if known[i] and not isinstance(head, Keypoints | PartSegmentation | Classification) and len(known) > 1:
            alone = head.metrics([head.measure(chance[i : i + 1], _part(batch, [i]))])
            assert float(one.nanmean()) == pytest.approx(alone[head.main], rel=1e-5)


def test_a_persons_figure_is_cocos_similarity(people: MultiTaskCrops) -> None:
    """As pycocotools has it for the same pose."""
    head, batch = _keypoints(people), _all(people)
    output = 0.9 * _perfect(head, batch) + 3 * _random(head, batch)
    measured = head.measure(output, batch)
    similarity = head.quality(output, batch, measured).nanmean(1)
    assert float(similarity.min()) > 0.05
    assert float(similarity.max()) < 0.99
    truth, set_ = COCO(), people.dataset.people
    truth.dataset = set_.annotations
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes(head.evaluation.results(*measured))
        evaluation = COCOeval(truth, found, "keypoints")
    evaluation.params.kpt_oks_sigmas = np.array(head.points.sigmas)
    evaluation._prepare()
    for place, index in enumerate(measured[0]):
        image = set_.people[index].image["id"]
        similarities = evaluation.computeOks(image, set_.category_id)
        others = [i for i, person in enumerate(set_.people) if person.image["id"] == image]
        scores = [measured[1][measured[0].index(i), :, 2].mean() for i in others]  # by which pycocotools orders what is found
        row = sorted(others, key=lambda i: -scores[others.index(i)]).index(index)
        column = [a["id"] for a in evaluation._gts[image, set_.category_id]].index(set_.people[index].annotation_id)
        assert float(similarity[place]) == pytest.approx(similarities[row][column], rel=1e-6)


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_pictures_have_the_crops_aspect_and_those_of_the_truth_are_the_labels(case: Case) -> None:
    head, crops = case
    batch = _all(crops)
    shown = head.shown(_perfect(head, batch), batch)
    assert len(shown) == len(crops)
    for index, found in enumerate(shown):
        sample = crops[0, index]
        truth = head.truth(sample)
        assert np.shape(found) == np.shape(truth)
        pictures = [head.draw(sample["image"], values) for values in (found, truth)]
        for picture in pictures:
            assert picture.dtype == np.uint8
            assert picture.shape[0] * WIDTH == picture.shape[1] * HEIGHT
        if isinstance(head, Segmentation | PartSegmentation):
            known = truth >= 0
            np.testing.assert_array_equal(found[known], truth[known])
        elif isinstance(head, Depth):
            np.testing.assert_allclose(found[truth > 0], truth[truth > 0], rtol=1e-5)
        elif isinstance(head, Normals):
            known = (truth != 0).any(-1)
            np.testing.assert_allclose(found[known], truth[known], atol=1e-6)
        elif isinstance(head, Keypoints):
            visible = truth[:, 2] > 0
            np.testing.assert_allclose(found[visible, :2], truth[visible, :2], atol=0.05)
        elif truth >= 0:
            np.testing.assert_array_equal(*pictures)


def test_a_cell_lies_at_the_centre_of_its_pixels() -> None:
    """A ramp is what it was at the middle of each cell, in between as a straight line, and a mirror image stays one."""
    ramp = torch.arange(4.0).expand(1, 1, 3, 4)
    full = at_full_size(ramp, (12, 16))
    assert full.shape == (1, 1, 12, 16)
    middle = full[0, 0, 5, 2:-2]
    torch.testing.assert_close(middle, (torch.arange(2.0, 14) + 0.5) / 4 - 0.5)
    torch.testing.assert_close(at_full_size(ramp.flip(-1), (12, 16)), full.flip(-1))


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_a_constant_is_the_same_whatever_the_batches_and_finite_without_labels(case: Case) -> None:
    head, crops = case
    batch = _all(crops)
    whole = head.constant([batch])
    assert whole.shape[0] == head.channels
    assert whole.dtype == torch.float32
    singles = head.constant(_part(batch, [i]) for i in range(len(batch["image"])))
    torch.testing.assert_close(singles, whole, rtol=1e-5, atol=1e-5)
    everywhere = whole.expand(head.channels, HEIGHT // 2, WIDTH // 2)[None].repeat(len(batch["image"]), 1, 1, 1)
    total, count = head.loss(everywhere, batch)
    assert total / count < float(head.loss(_random(head, batch), batch)[0] / count)
    if not isinstance(head, Keypoints):
        nothing = _part(batch, [i for i, known in enumerate(_labelled(head, batch)) if not known])
        assert head.constant([nothing]).isfinite().all()


def _constants(head: Head, constant: torch.Tensor, batch: dict[str, Any], count: int) -> list[float]:
    """The mean loss of a constant and of others near and far from it."""
    generator = torch.Generator().manual_seed(0)
    losses = []
    for i in range(count + 1):
        noise = torch.randn(constant.shape, generator=generator) * 10 ** (-i / count) if i else 0
        output = (constant + noise).expand(len(batch["image"]), *constant.shape)
        total, number = head.loss(output, batch)
        losses.append(float(total / number))
    return losses


def test_no_other_normal_is_nearer_to_all() -> None:
    head, batch = Normals("normals"), _batch()
    constant, *others = _constants(head, head.constant([batch]), batch, 30)
    assert constant < min(others)


def test_the_constant_depth_is_the_mean_of_what_is_known() -> None:
    for name in ("depth", "disparity"):
        head, batch = Depth(name, MAPS[name]), _batch()
        known = batch[name][batch[name] > 0].double()
        assert F.softplus(head.constant([batch])).item() == pytest.approx(known.mean().item(), rel=1e-5)


@pytest.mark.parametrize("head", [Segmentation("segmentation", MAPS["segmentation"]), PartSegmentation("parts", MAPS["parts"])])
def test_no_other_constant_class_is_right_more_often(head: Segmentation | PartSegmentation) -> None:
    batch = _batch()

    def accuracy(logits: torch.Tensor) -> float:
        found = head.metrics([head.measure(logits.expand(len(CROPS), *logits.shape), batch)])["accuracy"]
        assert found is not None
        return found

    each = [accuracy(torch.eye(4)[c][:, None, None]) for c in range(4)]
    assert accuracy(head.constant([batch])) == max(each) > min(each)


def test_the_most_frequent_class_of_images() -> None:
    assert Classification("scene", SCENES).constant([_batch()]).flatten().tolist() == pytest.approx([0, 3 / 4, 1 / 4])


def test_the_constant_pose_is_the_mean_of_what_is_known(people: MultiTaskCrops) -> None:
    head, batch = _keypoints(people), _all(people)
    points, _ = head.codec.decode(head.constant([batch])[None])
    for k in range(17):
        known = batch["visibility"][:, k] > 0
        if known.any():
            torch.testing.assert_close(points[0, k], batch["keypoints"][known, k].mean(0), rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ["depth", "disparity"])
def test_depth_is_measured_in_the_data_sets_unit(name: str) -> None:
    """Crops enlarge images by 1, 2 and 4, and what the network sees is changed by that; errors are those of the files."""
    head, batch = Depth(name, MAPS[name]), _batch()
    files = [GARDEN.read_maps(entry, (name,)).get(name) for entry in ENTRIES]
    pixels = [np.kron(f, np.ones((s, s))) for f, s in zip(files, SCALES, strict=True) if f is not None]
    truth = np.concatenate([f[f > 0] for f in pixels])
    seen = batch[name][batch[name] > 0].double()
    assert len(seen) == len(truth)
    assert not math.isclose(float(seen.mean()), truth.mean(), rel_tol=0.1)  # so that the unit matters
    for factor in (1.0, 1.1, 0.5):
        inner = torch.where(batch[name] > 0, batch[name], 1).double() * factor
        output = (inner + torch.log(-torch.expm1(-inner))).float()[:, None]
        metrics = head.metrics([head.measure(output, batch)])
        off = abs(factor - 1)
        assert metrics["abs"] == pytest.approx(off * truth.mean(), rel=1e-4, abs=1e-6)
        assert metrics["rmse"] == pytest.approx(off * np.sqrt(np.mean(truth**2)), rel=1e-4, abs=1e-6)
        assert metrics["rel"] == pytest.approx(off, rel=1e-4, abs=1e-6)
        assert metrics["delta1"] == (factor != 0.5)


def test_an_absolute_error_of_depth_weighs_by_magnification() -> None:
    """1 too far in the crops of image 1 and 2, which are enlarged by 1 and 4, is 1 and 4 too far in the files' unit."""
    head, batch = Depth("depth", MAPS["depth"]), _batch(0, 2)
    inner = batch["depth"].double() + 1
    output = (inner + torch.log(-torch.expm1(-inner))).float()[:, None]
    metrics = head.metrics([head.measure(output, batch)])
    counts = (batch["depth"] > 0).sum((1, 2)).tolist()
    assert metrics["abs"] == pytest.approx((counts[0] * 1 + counts[1] * 4) / sum(counts), rel=1e-5)


def test_sides_are_joined_by_hand() -> None:
    """Six pixels: the sides confused twice, the nose right once and once lost to the right hand, nothing found once.

    truth  left left  right nose nose  nothing unknown
    found  left right left  nose right nothing nose

    left 1 of {left: 2 true, 2 found, 1 both} = 1/3, right 0 of 3, nose 1 of 2, nothing 1 of 1. Joined: hands 3 of 4.
    """
    head = PartSegmentation("parts", MAPS["parts"])
    truth = torch.tensor([[[1, 1, 3, 2, 2, 0, -1]]])
    found = F.one_hot(torch.tensor([[[1, 3, 1, 2, 3, 0, 2]]]), 4).movedim(-1, 1).float()
    batch = {"parts": truth}
    metrics = head.metrics([head.measure(found, batch)])
    assert metrics == pytest.approx(
        {
            "mIoU": (1 / 3 + 0 + 1 / 2 + 1) / 4,
            "accuracy": 3 / 6,
            "mIoU:nothing": 1,
            "mIoU:left_hand": 1 / 3,
            "mIoU:nose": 1 / 2,
            "mIoU:right_hand": 0,
            "mIoU_sides_joined": (3 / 4 + 1 / 2 + 1) / 3,
        }
    )


def test_classification_by_hand() -> None:
    """Indoor 2 of 3 found, outdoor 0 of 1, space not there; the fifth is not known."""
    head = Classification("scene", SCENES)
    batch = {"scene": torch.tensor([0, 0, 0, 1, -1])}
    output = torch.zeros(5, 3, 2, 2)
    for i, found in enumerate((0, 0, 2, 0, 1)):
        output[i, found, 1, 0] = 4  # a mean of 1, over the cells
    metrics = head.metrics([head.measure(output, batch)])
    assert metrics == {
        "accuracy": 0.5,
        "mean_accuracy": pytest.approx(1 / 3),
        "accuracy:indoor": pytest.approx(2 / 3),
        "accuracy:outdoor": 0,
        "accuracy:space": None,
    }
    total, count = head.loss(output, batch)
    right, wrong = math.log(math.e + 2) - 1, math.log(math.e + 2)
    assert (total.item(), count.item()) == (pytest.approx(2 * right + 2 * wrong), 4)


def test_the_score_of_classes_does_not_hide_that_all_are_taken_for_the_most_frequent() -> None:
    head, batch = Classification("scene", SCENES), {"scene": torch.tensor([0] * 9 + [1])}
    output = head.constant([batch]).expand(10, 3, 2, 2)
    metrics = head.metrics([head.measure(output, batch)])
    assert metrics["accuracy"] == 0.9
    assert metrics[head.score] == 0.5


def test_key_points_of_perfect_maps_are_perfect_in_coco_and_pck(people: MultiTaskCrops) -> None:
    head, batch = _keypoints(people), _all(people)
    metrics = head.metrics([head.measure(_perfect(head, batch), batch)])
    assert metrics["AP"] == pytest.approx(1)
    assert metrics["AR"] == pytest.approx(1)
    assert metrics["PCK@0.2"] == 1
    assert {"PCK@0.2:left_ankle", "PCK@0.2:nose"} <= set(metrics)
    assert not {"AUC", "EPE"} & set(metrics)


def test_key_points_are_found_in_pixels_of_the_image(people: MultiTaskCrops) -> None:
    head, batch = _keypoints(people), _all(people)
    indices, poses = head.measure(_perfect(head, batch), batch)
    assert indices == list(range(len(people)))
    for person, pose in zip(people.dataset.people.people, poses, strict=True):
        known = person.visibility > 0
        assert np.abs(pose[known, :2] - person.keypoints[known]).max() < 0.2


def test_people_without_a_torso_have_no_pck(tmp_path: Path) -> None:
    write_coco(tmp_path, 3)
    annotations, images = find_files(tmp_path, "val")
    document = json.loads(annotations.read_text())
    for person in document["annotations"]:
        person["keypoints"] = person["keypoints"][:15]
        person["num_keypoints"] = sum(v > 0 for v in person["keypoints"][2::3])
    document["categories"][0] |= {"keypoints": document["categories"][0]["keypoints"][:5], "skeleton": []}
    annotations.write_text(json.dumps(document))
    with pytest.warns(UserWarning, match="taken from the names of the key points"):
        heads_alone = CocoPeople.from_files(annotations, images)
    dataset = MultiTaskSet(regions=heads_alone.regions, people=heads_alone, maps={}, read_maps=lambda *_: {})
    crops = MultiTaskCrops(dataset, (), SIZE)
    head, batch = _keypoints(crops), _all(crops)
    metrics = head.metrics([head.measure(_perfect(head, batch), batch)])
    assert metrics["AP"] == pytest.approx(1)
    assert not [name for name in metrics if name.startswith("PCK")]


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_the_losses_of_several_stages_are_those_of_each(case: Case) -> None:
    head, crops = case
    batch = _all(crops)
    outputs = [_random(head, batch), _perfect(head, batch), _random(head, batch) / 2]
    together = head.losses(outputs, batch)
    for (total, count), output in zip(together, outputs, strict=True):
        alone, number = head.loss(output, batch)
        assert (float(total), float(count)) == (float(alone), float(number))


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_a_head_says_whether_its_main_figure_is_known_of_each_class(case: Case) -> None:
    head, crops = case
    batch = _all(crops)
    metrics = head.metrics([head.measure(_random(head, batch), batch)])
    assert head.detailed == any(name.startswith(f"{head.main}:") for name in metrics)


@pytest.mark.parametrize("case", DENSE, indirect=True)
def test_what_a_head_cannot_do_is_one_line_that_names_it(case: Case, tmp_path: Path) -> None:
    head, crops = case
    batch = _all(crops)
    output = _random(head, batch)
    with pytest.raises(UserError, match=f"`flip_test` is true: predictions of {head.name} are not averaged"):
        head.average_with_mirror(output, output)
    with pytest.raises(UserError, match=f"`save_results` is .*: predictions of {head.name} have no format for results"):
        head.save_results([head.measure(output, batch)], tmp_path / "results.json")
    assert not any(tmp_path.iterdir())


def _of_loss(people: MultiTaskCrops, loss: Any, protocol: Any = "coco", **options: Any) -> Keypoints:
    codec = Heatmap(
        input_size=SIZE, heatmap_size=(WIDTH // 2, HEIGHT // 2), maps="logits" if loss == "cross_entropy" else "values"
    )
    evaluation = PoseEvaluation(people.dataset.people, protocol, people.crops.areas())  # type: ignore[arg-type]
    return Keypoints("keypoints", codec, evaluation, loss=loss, **options)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "ohkm"])
def test_each_loss_of_key_points_is_least_at_its_own_maps_and_its_constant_is_the_mean_pose(
    people: MultiTaskCrops, loss: str
) -> None:
    head, batch = _of_loss(people, loss, hard_keypoints=3), _all(people)
    maps = head.codec.encode(batch["keypoints"], batch["visibility"])[0]
    right = maps.clamp(min=1e-30).log() if loss == "cross_entropy" else maps
    total, count = head.loss(right, batch)
    assert total / count == pytest.approx(0, abs=1e-5)
    assert head.loss(_random(head, batch), batch)[0] > 1
    assert (count == 3 * len(people)) == (loss == "ohkm")
    known = (batch["visibility"] > 0)[..., None]
    mean = (batch["keypoints"] * known).sum(0) / known.sum(0)
    found, _ = head.codec.decode(head.constant([batch])[None])
    torch.testing.assert_close(found[0], mean, atol=0.3, rtol=0)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_flip_test_of_key_points_averages_what_mirrors_itself_to_itself(people: MultiTaskCrops, loss: str) -> None:
    """A network that sees a mirrored crop as its mirror image, left and right swapped, is not changed by the flip test."""
    head, batch = _of_loss(people, loss), _all(people)
    output = _random(head, batch)
    order = list(people.dataset.people.keypoints.flip_order)
    found = head.average_with_mirror(output, output.flip(-1)[:, order])
    expected = output.flatten(2).log_softmax(-1).view_as(output) if loss == "cross_entropy" else output
    torch.testing.assert_close(found, expected)
    shifted = _of_loss(people, loss, flip_shift=1).average_with_mirror(output, output.flip(-1)[:, order])
    assert not torch.allclose(shifted, expected)


def test_results_of_key_points_do_not_depend_on_batches_and_are_those_of_the_metrics(
    people: MultiTaskCrops, tmp_path: Path
) -> None:
    head, batch = _keypoints(people), _all(people)
    output = _random(head, batch)
    whole = [head.measure(output, batch)]
    parts = [head.measure(output[i : i + 1], _part(batch, [i])) for i in reversed(range(len(output)))]
    for name, measured in (("whole", whole), ("parts", parts)):
        head.save_results(measured, tmp_path / name)
    results = json.loads((tmp_path / "whole").read_text())
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()
    assert [result["image_id"] for result in results] == [person.image["id"] for person in people.dataset.people.people]
    _same(head.evaluation._evaluator.metrics(results), {k: v for k, v in head.metrics(whole).items() if k.startswith("A")})


@pytest.mark.parametrize(
    ("protocol", "higher", "detailed"),
    [("coco", ["AP"], False), ("coco_pck", ["AP", "PCK@0.2"], False), ("pck", ["PCK@0.2"], True)],
)
def test_the_protocol_says_what_key_points_are_compared_by(
    people: MultiTaskCrops, protocol: str, higher: list[str], detailed: bool
) -> None:
    head, batch = _of_loss(people, "cross_entropy", protocol), _all(people)
    assert (list(head.higher), head.main, head.score, head.detailed) == (higher, higher[0], higher[0], detailed)
    metrics = head.metrics([head.measure(_random(head, batch), batch)])
    assert set(higher) <= set(metrics)
    assert ("PCK@0.2" in metrics) == ("pck" in protocol)
    with pytest.raises(UserError, match="`protocol` is pckh: people lacks a `head_size`"):
        _of_loss(people, "cross_entropy", "pckh")


def test_key_points_without_truth_are_not_drawn_unless_there_is_none_at_all(people: MultiTaskCrops) -> None:
    head, batch = _keypoints(people), _all(people)
    output = _perfect(head, batch)
    batch["visibility"][0, 3:5], batch["visibility"][1] = 0, 0
    first, second, third = (values[:, 2] for values in head.shown(output, batch)[:3])
    assert (first[3:5] == 0).all()
    assert (first[batch["visibility"][0].numpy() > 0] > 0).all()
    assert (second > 0).sum() > 10
    assert ((third > 0) >= (batch["visibility"][2].numpy() > 0)).all()
