"""From outputs to figures: flip test, detections, rescoring, suppression, stages, protocols, mixed data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.people_files import write_coco, write_crowdpose, write_detections, write_lsp, write_mpii

from rpgmt.config import ConfigError, ModelConfig, TrainConfig
from rpgmt.data.augmentation import Augmentation
from rpgmt.errors import UserError
from rpgmt.heads.staged_task import StagedTask
from tasks.pose import HEAD, AugmentationConfig, Config, DataConfig, EvaluationConfig, build

MODEL = ModelConfig(stages=2, channels=16, depth=2, rpg_size="50%", input_size=(64, 64))


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small files of every data set."""
    folder = tmp_path_factory.mktemp("sets")
    for name, write in (("coco", write_coco), ("crowdpose", write_crowdpose), ("lsp", write_lsp), ("mpii", write_mpii)):
        write(folder / name, 6)
    document = json.loads((folder / "coco/annotations/person_keypoints_val.json").read_text())
    write_detections(folder / "detections.json", document)
    return {name: folder / name for name in ("coco", "crowdpose", "lsp", "mpii", "detections.json")}


def pose_task(roots: dict[str, Path], name: str = "coco", *, also: tuple[str, ...] = (), **changes: Any) -> StagedTask:
    count = {"mpii": 16, "coco": 17}.get(name, 14)
    model = dataclasses.replace(MODEL, heads={HEAD: count})
    data = DataConfig(name=name, root=roots[name], also=also, detections=changes.pop("detections", None))  # type: ignore[arg-type]
    keys = {field.name for field in dataclasses.fields(EvaluationConfig)}
    evaluation = EvaluationConfig(**{key: changes.pop(key) for key in keys & set(changes)})
    return build(Config(model=model, data=data, evaluation=evaluation, **changes))


def batch_of(task: StagedTask) -> dict[str, torch.Tensor]:
    return torch.utils.data.default_collate([task.val_data[0, i] for i in range(len(task.val_data))])


def truth(task: StagedTask, batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """What a network that knows the truth would say at every stage."""
    target, _ = task.heads[HEAD].codec.encode(batch["keypoints"], batch["visibility"])
    maps = (target + 1e-12).log() if task.config.loss == "cross_entropy" else target
    return [{HEAD: maps}] * 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("coco", {"AP", "APM", "AR"}),
        ("crowdpose", {"AP", "AP_easy", "AP_medium", "AP_hard"}),
        ("lsp", {"PCK@0.2", "PCK@0.2_joint_mean", "AUC", "EPE", "PCK@0.2:left_ankle"}),
        ("mpii", {"PCKh@0.5", "PCKh@0.1", "PCKh@0.5_joint_mean", "PCKh@0.1:right_wrist"}),
    ],
)
def test_every_data_set_has_its_protocol_and_the_truth_is_all_but_perfect(
    roots: dict[str, Path], name: str, expected: set[str]
) -> None:
    task = pose_task(roots, name)
    batch = batch_of(task)
    metrics = task.metrics(task.predictions(truth(task, batch), batch))
    assert expected <= set(metrics)
    assert {f"stage_2/{key}" for key in expected} <= set(metrics)
    assert metrics[task.monitor] is not None
    assert metrics[task.monitor] > 0.9
    if "EPE" in metrics:
        assert metrics["EPE"] is not None
        assert metrics["EPE"] < 0.5


@pytest.mark.parametrize("codec", ["heatmap", "msra", "dark", "udp"])
def test_every_codec_trains_and_finds_what_it_encoded(roots: dict[str, Path], codec: str) -> None:
    task = pose_task(roots, codec=codec, loss="mse", sigma=2.0)
    batch = batch_of(task)
    outputs = truth(task, batch)
    assert all(total == 0 and count > 0 for total, count in task.losses(outputs, batch).values())
    metrics = task.metrics(task.predictions(outputs, batch))
    assert metrics["AP"] is not None
    assert metrics["AP"] > (0.5 if codec == "msra" else 0.9)  # it rounds to 4 pixels of 64


class Asymmetric(torch.nn.Module):
    """Tells the truth of images that are not mirrored and nothing of others."""

    def __init__(self, outputs: list[dict[str, torch.Tensor]], images: torch.Tensor) -> None:
        super().__init__()
        self.outputs, self.known, self.asked = outputs, images, []

    def forward(self, images: torch.Tensor, stop_after: int | None = None) -> list[dict[str, torch.Tensor]]:
        self.asked.append(stop_after)
        straight = torch.equal(images, self.known)
        return [{HEAD: out[HEAD] if straight else torch.zeros_like(out[HEAD])} for out in self.outputs[:stop_after]]


def test_the_flip_test_averages_both_and_stages_stop_where_asked(roots: dict[str, Path]) -> None:
    task = pose_task(roots, loss="mse", flip_test=True, stop_after=1)
    batch = batch_of(task)
    images, outputs = task.images(batch), truth(task, batch)
    network = Asymmetric(outputs, images)
    found = task.infer(network, images)
    assert network.asked == [1, 1]
    assert len(found) == 1
    torch.testing.assert_close(found[0][HEAD], outputs[0][HEAD] / 2)
    assert list(task.metrics(task.predictions(found, batch)))[-1].startswith("stage_1/")
    assert task.metric_label == "coco val, gt boxes, flip test"


def test_a_mirror_image_changes_nothing_for_a_network_without_preference(roots: dict[str, Path]) -> None:
    """The flip test of a mirrored batch is the mirrored flip test, left and right swapped: images, maps and order agree."""
    task = pose_task(roots, flip_test=True)
    images = task.images(batch_of(task))
    model = task.model.eval()
    with torch.no_grad():
        straight, mirrored = (task.infer(model, x)[-1][HEAD] for x in (images, images.flip(-1)))
    order = list(task.val_data.people.keypoints.flip_order)
    torch.testing.assert_close(mirrored, straight.flip(-1)[:, order], rtol=1e-4, atol=1e-4)


def test_detections_are_cut_out_and_the_truth_stays(roots: dict[str, Path], tmp_path: Path) -> None:
    task = pose_task(roots, detections=roots["detections.json"], rescoring="box_mean", nms="hard")
    assert task.metric_label == "coco val, detected boxes"
    assert task.data_summary()["boxes"] == "detected boxes"
    batch = batch_of(task)
    assert (batch["visibility"] == 0).all()
    maps = [{HEAD: torch.randn(len(batch["index"]), 17, 16, 16)}] * 2
    records = task.predictions(maps, batch)
    task.save_results(records, tmp_path / "results.json")
    results = json.loads((tmp_path / "results.json").read_text())
    boxes = {person.score for person in task.val_data.people.people}
    assert len(boxes) > 1
    assert all(result["score"] <= max(boxes) for result in results)
    assert task.metrics(records)["AP"] is not None
    task.draw(records, tmp_path)
    with pytest.raises(UserError, match="pck is measured on true boxes"):
        _ = pose_task(roots, "lsp", detections=roots["detections.json"]).val_data


def test_a_person_found_twice_counts_once(roots: dict[str, Path]) -> None:
    plain, hard = (pose_task(roots, detections=roots["detections.json"], nms=nms) for nms in ("none", "hard"))
    people = plain.val_data.people
    first = people.people[0]
    poses = np.tile(np.array([[*first.box[:2], 0.5]]), (17, 1)) + np.arange(17)[:, None] * [2, 3, 0]
    twice = [0, 0], np.stack([poses, poses + np.array([0.2, 0, 0.1])])
    assert len(plain.heads[HEAD].evaluation.results(*twice)) == 2
    (kept,) = hard.heads[HEAD].evaluation.results(*twice)
    assert kept["score"] == pytest.approx(0.6)


def test_saved_results_can_be_evaluated_by_pycocotools(roots: dict[str, Path], tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    task = pose_task(roots)
    batch = batch_of(task)
    records = task.predictions(truth(task, batch), batch)
    task.save_results(records, tmp_path / "results.json")
    gt = COCO(str(roots["coco"] / "annotations/person_keypoints_val.json"))
    evaluation = COCOeval(gt, gt.loadRes(str(tmp_path / "results.json")), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(task.metrics(records)["AP"], abs=1e-12)


def test_stage_weights_weigh_and_hard_key_points_are_fewer(roots: dict[str, Path]) -> None:
    plain = pose_task(roots, loss="mse")
    batch = batch_of(plain)
    outputs = [{HEAD: torch.rand(len(batch["index"]), 17, 16, 16, generator=torch.Generator().manual_seed(0))}] * 2
    (one, count), _ = plain.losses(outputs, batch).values()
    weighed = pose_task(roots, loss="mse", stage_weights=(0.25, 2.0)).losses(outputs, batch)
    assert [float(total / one) for total, _ in weighed.values()] == pytest.approx([0.25, 2.0])
    (hardest, fewer), _ = pose_task(roots, loss="ohkm", hard_keypoints=3).losses(outputs, batch).values()
    assert fewer == 3 * len(batch["index"])
    assert hardest / fewer > one / count
    first = pose_task(roots, loss="mse", stage_weights=(0.25, 2.0), stop_after=1).losses(outputs[:1], batch)
    assert [float(total / one) for total, _ in first.values()] == pytest.approx([0.25])


@pytest.mark.filterwarnings("ignore:.* key points match")  # asserted in tests/data/coco/test_remap.py
def test_further_sets_are_trained_on_with_the_first_sets_key_points(roots: dict[str, Path]) -> None:
    task = pose_task(roots, also=(f"lsp={roots['lsp']}", f"mpii={roots['mpii']}"))
    data = task.train_data
    alone = [len(pose_task(roots, name).train_data) for name in ("coco", "lsp", "mpii")]
    assert len(data) == sum(alone)
    last = data[0, len(data) - 1]
    assert last["keypoints"].shape == (17, 2)
    names = task.val_data.people.keypoints.names
    assert last["visibility"][names.index("nose")] == 0  # MPII has none
    assert (last["visibility"] > 0).sum() >= 6
    with pytest.raises(UserError, match="`also` is 'ship=x': give NAME=DIR with a name of coco, crowdpose"):
        _ = pose_task(roots, also=("ship=x",)).train_data


def test_combinations_that_make_no_sense_are_one_line() -> None:
    with pytest.raises(ConfigError, match="`loss` is cross_entropy: codec udp decodes maps that are trained by mse or ohkm"):
        Config(codec="udp")
    with pytest.raises(ConfigError, match=r"`stage_weights` is \(1.0,\): give one for each of 4 stages"):
        Config(stage_weights=(1.0,))
    with pytest.raises(ConfigError, match="`stop_after` is 5: the network has 4 stages"):
        Config(evaluation=EvaluationConfig(stop_after=5))
    with pytest.raises(UserError, match=r"`sigmas` is \(0.1,\): mpii has its own"):
        _ = build(Config(model=MODEL, data=DataConfig(name="mpii", sigmas=(0.1,)))).val_data


@pytest.mark.filterwarnings("ignore:.* taken from the names of the key points")  # asserted in tests/data
def test_a_network_is_not_measured_on_other_key_points_that_are_as_many(roots: dict[str, Path], tmp_path: Path) -> None:
    trained = pose_task(roots, "crowdpose").resolved()
    assert trained.data.keypoints is not None
    assert trained.data.keypoints[0] == "left_shoulder"
    other = trained.for_another_set()
    assert (other.data.padding, other.data.root) == (trained.data.padding, DataConfig().root)
    lsp = dataclasses.replace(other, data=dataclasses.replace(other.data, name="lsp", root=roots["lsp"]))
    with pytest.raises(UserError, match=r"its key points are right_ankle, .*, those of the network left_shoulder, "):
        _ = build(lsp).val_data
    write_coco(tmp_path, 4)
    val = tmp_path / "annotations/person_keypoints_val.json"
    document = json.loads(val.read_text())
    names = document["categories"][0]["keypoints"]
    names[5], names[6] = names[6], names[5]
    val.write_text(json.dumps(document))
    swapped = pose_task({"coco": tmp_path})
    assert len(swapped.val_data) > 0
    with pytest.raises(UserError, match="give data with the same ones in the same order"):
        _ = swapped.train_data


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"data": {"detection_threshold": 0.5}}, "`detection_threshold` without detections"),
        ({"evaluation": EvaluationConfig(flip_shift=1)}, "`flip_shift` without flip_test"),
        ({"evaluation": EvaluationConfig(nms_threshold=0.5)}, "`nms_threshold` with nms none"),
        ({"evaluation": EvaluationConfig(protocol="pck", nms="hard")}, "`nms` and `rescoring`, which PCK does not know"),
        ({"hard_keypoints": 4}, "`hard_keypoints` without loss ohkm"),
    ],
)
def test_what_is_set_for_nothing_is_said(changes: dict[str, Any], line: str, roots: dict[str, Path]) -> None:
    data = DataConfig(name="coco", root=roots["coco"], **changes.get("data", {}))
    with pytest.warns(UserWarning, match=f"without effect: {line}"):
        build(Config(**{"model": MODEL, **changes, "data": data}))


def test_augmentation_of_config_and_library_are_the_same() -> None:
    assert vars(AugmentationConfig()) == vars(Augmentation())


@pytest.mark.parametrize(("given", "used"), [(None, 1), (0, 0), (2, 2)])
def test_the_flip_tests_shift_is_the_codecs_unless_given(roots: dict[str, Path], given: int | None, used: int) -> None:
    task = pose_task(roots, codec="msra", loss="mse", flip_test=True, flip_shift=given)
    images = task.images(batch_of(task))
    ramp = torch.arange(16.0).expand(len(images), 17, 16, 16)
    found = task.infer(Asymmetric([{HEAD: 0 * ramp}], torch.zeros(1)), images)[0][HEAD]
    assert (found == 0).all()  # nothing is found in either

    class Ramp(torch.nn.Module):
        def forward(self, seen: torch.Tensor, stop_after: int | None = None) -> list[dict[str, torch.Tensor]]:
            return [{HEAD: 0 * ramp if torch.equal(seen, images) else ramp}]

    row = task.infer(Ramp(), images)[0][HEAD][0, 0, 0]
    back = list(range(15, -1, -1))
    assert row.tolist() == [value / 2 for value in (back[:used] + back[: 16 - used])]


def test_soft_suppression_keeps_twenty_people_an_image(roots: dict[str, Path]) -> None:
    task = pose_task(roots, detections=roots["detections.json"], nms="soft")
    pose = np.column_stack([np.arange(17.0) * 2, np.arange(17.0) * 3, np.full(17, 0.5)])
    many = np.stack([pose + np.array([i, 0, 0.01 * i]) for i in range(25)])
    assert len(task.heads[HEAD].evaluation.results([0] * 25, many)) == 20


@pytest.mark.parametrize(
    ("name", "protocol", "line"),
    [
        ("coco", "pckh", "lacks a `head_size` of the annotations; give another, e.g. coco"),
        ("coco", "crowdpose", "lacks a `crowdIndex` of every image"),
    ],
)
def test_a_protocol_that_the_data_cannot_serve_is_known_before_training(
    roots: dict[str, Path], name: str, protocol: str, line: str
) -> None:
    with pytest.raises(UserError, match=f"`protocol` is {protocol}: .*{line}"):
        _ = pose_task(roots, name, protocol=protocol).val_data


def test_one_person_and_one_cell_teach_batch_norm_nothing(roots: dict[str, Path]) -> None:
    model, data = dataclasses.replace(MODEL, depth=4), DataConfig(name="coco", root=roots["coco"])
    with pytest.raises(UserError, match="`batch_size` is 1: one cell is left"):
        build(Config(model=model, data=data, train=TrainConfig(batch_size=1)))
    build(Config(model=model, data=data, train=TrainConfig(batch_size=2)))


def test_whom_pck_is_over_is_told_and_noted(roots: dict[str, Path]) -> None:
    task = pose_task(roots, "lsp")
    people = task.val_data.people.people
    labelled = sum(int((person.visibility > 0).sum()) for person in people)
    count = len(people)
    assert task.remarks == [f"PCK@0.2 is over {count} of {count} people, {labelled:,} of {labelled:,} key points"]
    summary = task.data_summary()
    assert (summary["pck_people"], summary["pck_keypoints"]) == (count, labelled)
    assert pose_task(roots, "coco").remarks == []
    assert not {"pck_people", "pck_keypoints"} & set(pose_task(roots, "coco").data_summary())


@pytest.mark.parametrize("library", ["hotcoco", "pycocotools"])
def test_either_library_measures(roots: dict[str, Path], library: str) -> None:
    task = pose_task(roots, evaluator=library)
    batch = batch_of(task)
    assert task.heads[HEAD].evaluation._evaluator._matcher.evaluator == library
    assert task.metrics(task.predictions(truth(task, batch), batch))["AP"] == pytest.approx(1, abs=0.1)


@pytest.mark.filterwarnings("ignore:.* taken from the names of the key points")  # asserted in tests/data
def test_answers_do_not_depend_on_what_is_asked_first(roots: dict[str, Path], tmp_path: Path) -> None:
    """The training data spell two of the names in another way."""
    write_coco(tmp_path, 4)
    train = tmp_path / "annotations/person_keypoints_train.json"
    document = json.loads(train.read_text())
    names = document["categories"][0]["keypoints"]
    document["categories"][0]["keypoints"] = ["LeftEye" if name == "left_eye" else name for name in names]
    train.write_text(json.dumps(document))
    early, late = (pose_task({"coco": tmp_path}) for _ in range(2))
    before = early.resolved(), early.metric_label, early.details
    assert min(len(late.train_data), len(late.val_data)) > 0
    summary = late.data_summary()
    assert (late.resolved(), late.metric_label, late.details) == before
    assert early.data_summary() == summary
    assert before[0].data.keypoints == tuple(names)


def test_a_model_is_measured_without_the_data_that_it_was_trained_on(roots: dict[str, Path], tmp_path: Path) -> None:
    write_coco(tmp_path, 4)
    (tmp_path / "annotations/person_keypoints_train.json").unlink()
    task = pose_task({"coco": tmp_path})
    batch = batch_of(task)
    assert task.metrics(task.predictions(truth(task, batch), batch))["AP"] == pytest.approx(1, abs=0.1)
    task.save_results(task.predictions(truth(task, batch), batch), tmp_path / "results.json")
    assert (task.metric_label, len(task.resolved().data.keypoints)) == ("coco val, gt boxes", 17)
    with pytest.raises(UserError, match="no annotation file of split 'train'"):
        task.data_summary()
