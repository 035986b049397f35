"""From an image to people in Python: the figures of an evaluation, maps put back into the image, what the user can mend."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from helpers.image_folders import write_folders
from helpers.people_files import write_coco
from torch.utils.data import default_collate

import rpgmt
from rpgmt.config import from_dict
from rpgmt.data.dense.label_maps import IGNORE
from rpgmt.engine.model_file import load_model, read_config
from rpgmt.errors import UserError
from rpgmt.prediction.source import SourceImage
from tasks import classification, multitask
from tools import evaluate, train

SHORT = ["--batch-size", "4", "--max-steps", "2", "--precision", "32", "--workers", "0", "--device", "cpu"]
NETWORK = ["--channels", "8", "--depth", "2", "--stages", "2", "--rpg-size", "50%", "--input-size", "48,64"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People in COCO's format, with images that are not square and larger than the network's input."""
    folder = tmp_path_factory.mktemp("coco")
    write_coco(folder, 6)
    for file in (folder / "images").glob("*.jpg"):
        image = cv2.imread(str(file))
        cv2.imwrite(str(file), cv2.resize(image, None, fx=4, fy=3, interpolation=cv2.INTER_CUBIC))
    for file in (folder / "annotations").glob("*.json"):
        document = json.loads(file.read_text())
        for image in document["images"]:
            image["width"], image["height"] = 4 * image["width"], 3 * image["height"]
        for person in document["annotations"]:
            x, y, w, h = person["bbox"]
            person["bbox"], person["area"] = [4 * x, 3 * y, 4 * w, 3 * h], 12 * person["area"]
            person["keypoints"] = [v * (4, 3, 1)[i % 3] for i, v in enumerate(person["keypoints"])]
        file.write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def pose(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pose"
    assert train.main(["pose", *NETWORK, *SHORT, "--data", "coco", "--data-root", str(root), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("multi")
    sizes = ["--train-images", "4", "--val-images", "4", "--data-root", str(folder / "data")]
    heads = ["--heads", "keypoints=17,segmentation=2,depth=1,normals=3,parts=15"]
    assert train.main(["multitask", *NETWORK, *SHORT, *sizes, *heads, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def photo(root: Path) -> Path:
    return min((root / "images").glob("*.jpg"))


def annotated(root: Path) -> dict[str, tuple[int, list[list[float]]]]:
    """For each image of the validation set its id and boxes, in the order of the people."""
    document = json.loads((root / "annotations/person_keypoints_val.json").read_text())
    files = {image["id"]: image["file_name"] for image in document["images"]}
    found: dict[str, tuple[int, list[list[float]]]] = {}
    for person in document["annotations"]:
        found.setdefault(files[person["image_id"]], (person["image_id"], []))[1].append(person["bbox"])
    return found


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {}),
        (["--stop-after", "1", "--flip-test"], {"stop_after": 1, "flip_test": True}),
    ],
)
def test_the_figures_are_those_of_an_evaluation_bit_for_bit(
    flags: list[str], options: dict[str, Any], pose: Path, root: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.json"
    assert evaluate.main([str(pose), "--batch-size", "3", "--device", "cpu", "--save-results", str(results), *flags]) == 0
    predictor = rpgmt.Predictor.load(pose, batch_size=3, device="cpu", **options)
    images = annotated(root)
    people = predictor([root / "images" / name for name in images], [boxes for _, boxes in images.values()])
    rows = [row for (number, _), found in zip(images.values(), people, strict=True) for row in found.to_coco(number)]
    expected = json.loads(results.read_text())
    assert len(expected) > 3
    assert [{key: row[key] for key in expected[0]} for row in rows] == expected


def test_where_the_pixels_come_from_does_not_matter(pose: Path, photo: Path, tmp_path: Path) -> None:
    pixels = SourceImage.open(photo).pixels
    lossless = tmp_path / "photo.png"
    cv2.imwrite(str(lossless), pixels[:, :, ::-1])
    predictor = rpgmt.Predictor.load(pose, device="cpu")
    assert repr(predictor) == f"Predictor(keypoints; {predictor.network.stages} stages)"
    box = [[10, 20, 200, 150]]
    of_array = predictor(pixels, box)
    for same in (lossless, str(lossless), lossless.read_bytes(), bytearray(lossless.read_bytes()), PIL.Image.open(lossless)):
        np.testing.assert_array_equal(predictor(same, box).keypoints, of_array.keypoints)
    # A photo is decoded at a lower resolution where that is enough, as in an evaluation.
    np.testing.assert_array_equal(predictor(photo, box).keypoints, predictor(photo.read_bytes(), box).keypoints)


def test_batches_go_across_images_and_keep_their_order(pose: Path, photo: Path) -> None:
    boxes = [[[10, 20, 100 + 10 * i, 150]] * (i % 3) for i in range(7)]
    alone = [rpgmt.Predictor.load(pose, device="cpu", batch_size=1)(photo, b) for b in boxes]
    together = rpgmt.Predictor.load(pose, device="cpu", batch_size=4)([photo] * 7, boxes)
    assert [len(found) for found in together] == [i % 3 for i in range(7)]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.keypoints, other.keypoints, atol=1e-2)
        assert one.keypoints.shape == (len(one), 17, 2)


def test_a_stream_without_an_end_gives_what_is_ready(pose: Path, photo: Path) -> None:
    stream = rpgmt.Predictor.load(pose, device="cpu", batch_size=2).stream(itertools.repeat(photo))
    assert [len(people) for people in itertools.islice(stream, 5)] == [1] * 5


def test_the_detector_finds_the_boxes_of_images_that_have_none(pose: Path, photo: Path) -> None:
    from rpgmt.detection.detector import Corners, Detector

    class Fixed(Detector):
        def _detect(self, images: Any) -> list[Corners]:
            return [Corners(np.array([[10.0, 20, 210, 170]]), np.array([0.75])) for _ in images]

    found = rpgmt.Predictor.load(pose, device="cpu", detector=Fixed(0.5, None))(photo)
    given = rpgmt.Predictor.load(pose, device="cpu")(photo, [[10, 20, 200, 150]])
    np.testing.assert_array_equal(found.boxes, given.boxes)
    np.testing.assert_array_equal(found.keypoints, given.keypoints)
    assert found.box_scores.tolist() == [0.75]


def test_every_stage_is_people_of_its_own(pose: Path, photo: Path) -> None:
    people = rpgmt.Predictor.load(pose, device="cpu")(photo, [[10, 20, 200, 150], [50, 20, 100, 100]])
    assert len(people.stages) == 2
    np.testing.assert_array_equal(people.keypoints, people.stages[-1].keypoints)
    assert not np.array_equal(people.keypoints, people.stages[0].keypoints)
    stopped = rpgmt.Predictor.load(pose, device="cpu", stop_after=1)(photo, [[10, 20, 200, 150], [50, 20, 100, 100]])
    np.testing.assert_array_equal(stopped.keypoints, people.stages[0].keypoints)
    one = people.select([1])
    np.testing.assert_array_equal(one.stages[0].keypoints, people.stages[0].keypoints[1:])
    followed = people.with_ids(np.array([7, 3]))
    assert [row["track_id"] for row in followed.stages[0].to_coco()] == [7, 3]


def test_names_skeleton_and_pictures(pose: Path, photo: Path) -> None:
    people = rpgmt.Predictor.load(pose, device="cpu")(photo, [[10, 20, 200, 150]])
    assert people.names[0] == "nose"
    assert (15, 13) in people.skeleton
    pixels = SourceImage.open(photo).pixels
    drawn = people.draw(photo, min_score=0)
    assert drawn.shape == pixels.shape
    assert (drawn != pixels).any()
    np.testing.assert_array_equal(people.draw(photo, min_score=1.1), pixels)
    assert people.draw_stages(photo).shape[1] > 2 * pixels.shape[1]


def test_the_package_supervision_draws_them(pose: Path, photo: Path) -> None:
    pytest.importorskip("supervision")
    people = rpgmt.Predictor.load(pose, device="cpu")(photo, [[10, 20, 200, 150], [50, 20, 100, 100]])
    points = people.to_supervision()
    np.testing.assert_allclose(points.xy, people.keypoints, rtol=1e-6)
    assert len(points) == 2


def crops_as_an_evaluation_reads_them(run: Path) -> tuple[Any, dict[str, Any], list[dict[str, torch.Tensor]]]:
    saved = read_config(run)
    saved.pop("task")
    task = multitask.build(from_dict(multitask.Config, saved))
    batch = default_collate([task.val_data[0, index] for index in range(len(task.val_data))])
    model = rpgmt.bake(load_model(run)).eval()
    with torch.inference_mode():
        return task, batch, task.infer(model, task.images(batch).contiguous())


def test_maps_are_those_that_an_evaluation_measures(multi: Path) -> None:
    task, batch, outputs = crops_as_an_evaluation_reads_them(multi)
    regions = task.val_data.regions
    count = len(regions)
    predictor = rpgmt.Predictor.load(multi, device="cpu", batch_size=count)
    images = [regions.read_image(region.image) for region in regions.regions]
    people = predictor(images, [[region.box] for region in regions.regions])
    for stage in (0, 1):
        for name in ("segmentation", "parts", "depth", "normals"):
            shown = task.heads[name].shown(outputs[stage][name], batch)
            for index, found in enumerate(people):
                if name == "depth":  # in metres of the world, not of the enlarged crop, as it is measured
                    metres = task.heads[name]._found_and_true(outputs[stage][name], batch)[0][index]
                    np.testing.assert_allclose(found.stages[stage][name].values[0], metres, rtol=1e-6)
                else:
                    np.testing.assert_array_equal(found.stages[stage][name].values[0], shown[index])
        poses = task.heads["keypoints"].measure(outputs[stage]["keypoints"], batch)[1]
        np.testing.assert_array_equal(np.concatenate([p.stages[stage].keypoints for p in people]), poses[..., :2])


def test_maps_lie_in_the_image_where_the_crop_was(multi: Path) -> None:
    predictor = rpgmt.Predictor.load(multi, device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (120, 200, 3), np.uint8)
    people = predictor(image, [[20, 10, 60, 80], [110, 30, 60, 80]])
    depth, parts, normals = people["depth"], people["parts"], people["normals"]
    assert depth.image.shape == (120, 200)
    assert normals.image.shape == (120, 200, 3)
    assert depth.image[:, :4].max() == 0  # no crop reaches there
    assert (parts.image[:, :4] == IGNORE).all()
    assert parts.image.min() == IGNORE
    inside = depth.image > 0
    np.testing.assert_allclose(np.linalg.norm(normals.image[inside], axis=-1), 1, atol=1e-5)
    # Each pixel shows the crop in whose middle it is, with what that crop says there.
    for person, box in enumerate(people.boxes):
        x, y = round(box[0] + (box[2] - 1) / 2), round(box[1] + (box[3] - 1) / 2)
        assert depth.image[y, x] == depth.of_person(person)[y, x]
        crop = depth.values[person]
        assert crop[31:33, 23:25].min() - 1e-5 <= depth.image[y, x] <= crop[31:33, 23:25].max() + 1e-5
    assert people.pictures(image).keys() == {"people", "depth", "normals"}


def test_nobody_is_people_too(multi: Path) -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    people = rpgmt.Predictor.load(multi, device="cpu")(image, np.zeros((0, 4)))
    assert len(people) == 0
    assert people.keypoints.shape == (0, 17, 2)
    assert people["normals"].values.shape == (0, 64, 48, 3)
    assert people["depth"].image.shape == (60, 80)
    assert people.to_coco() == []
    np.testing.assert_array_equal(people.draw(image), image)


def test_a_photo_is_seen_upright(pose: Path, photo: Path, tmp_path: Path) -> None:
    from PIL import Image

    upright = Image.open(photo)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise to be seen
    turned = tmp_path / "turned.png"
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    plain = tmp_path / "plain.png"
    upright.save(plain)
    predictor = rpgmt.Predictor.load(pose, device="cpu")
    people = predictor(turned)
    assert people.image_size == upright.size
    np.testing.assert_array_equal(people.keypoints, predictor(plain).keypoints)


@pytest.mark.parametrize("kind", ["small", "files"])
def test_classes_of_images_are_those_of_an_evaluation(kind: str, tmp_path: Path) -> None:
    names = ("bird", "cat", "dog", "fish", "frog", "horse")
    flags = ["--width", "0.125", "--rpg-size", "25%", "--classes", "6", *SHORT]
    if kind == "small":
        write_folders(tmp_path / "data", {"train": 12, "test": 6}, names, size=(32, 32))
        flags += ["--data", "cifar10_jpeg"]
    else:
        write_folders(tmp_path / "data", {"train": 12, "val": 6}, names, size=(90, 70))
        flags += ["--config", "folder", "--input-size", "32,32"]
    out = tmp_path / "run"
    assert train.main(["classification", *flags, "--data-root", str(tmp_path / "data"), "--out", str(out)]) == 0
    saved = read_config(out)
    saved.pop("task")
    task = classification.build(from_dict(classification.Config, saved))
    batch = default_collate([task.val_data[0, index] for index in range(len(task.val_data))])
    with torch.inference_mode():
        logits = rpgmt.bake(load_model(out)).eval()(task.images(batch).contiguous())[-1]["class"]
    source = task._data._source.read(tmp_path / "data", "test" if kind == "small" else "val").images
    found = rpgmt.Predictor.load(out, device="cpu", batch_size=6)(list(source))
    probabilities = np.concatenate([one["class"].probabilities for one in found])
    np.testing.assert_array_equal(probabilities.astype(np.float32), logits.softmax(1).numpy())
    assert found[0]["class"].labels[0] in names
    assert found[0].draw(source[0]).shape == SourceImage.open(source[0]).pixels.shape


@pytest.mark.parametrize(
    ("image", "boxes", "words"),
    [
        (np.zeros((4, 4), np.uint8), None, r"uint8 \(4, 4\): give uint8 \(H, W, 3\)"),
        (np.zeros((4, 4, 3), np.float32), None, r"float32 \(4, 4, 3\)"),
        (3, None, "the image is a int"),
        ("nowhere.jpg", None, "nowhere.jpg: the image cannot be read"),
        (b"GIF", None, "image: not an image"),
        (np.zeros((40, 50, 3), np.uint8), [1, 2, 3, 4], r"shape \(4,\)"),
        (np.zeros((40, 50, 3), np.uint8), [["a", "b", "c", "d"]], "no numbers"),
        (np.zeros((40, 50, 3), np.uint8), [[0, 0, 10, 10], [60, 0, 10, 10]], r"the box \(60, 0, 10, 10\) .*50×40"),
        (np.zeros((40, 50, 3), np.uint8), [[0, 0, 0, 10]], "empty"),
        (np.zeros((40, 50, 3), np.uint8), [[0, 0, np.nan, 10]], "empty"),
        (np.zeros((40, 50, 3), np.uint8), [[0, 0, 1e30, 1e30]], "beyond measure"),
    ],
)
def test_what_is_no_image_and_no_box_is_said(image: Any, boxes: Any, words: str, pose: Path) -> None:
    with pytest.raises(UserError, match=words):
        rpgmt.Predictor.load(pose, device="cpu")(image, boxes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stop_after": 3}, "`stop_after` is 3: give 1 to 2"),
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"weights": "worst"}, "`weights` is 'worst'"),
        ({"device": "gpu"}, "`device` is gpu: give one of auto, cpu"),
    ],
)
def test_options_that_are_not_there_are_said(options: dict[str, Any], words: str, pose: Path) -> None:
    with pytest.raises(UserError, match=words):
        rpgmt.Predictor.load(pose, **{"device": "cpu", **options})


def test_maps_have_no_flip_test(multi: Path) -> None:
    with pytest.raises(UserError, match="also predicts segmentation"):
        rpgmt.Predictor.load(multi, device="cpu", flip_test=True)


def test_images_and_boxes_are_as_many(pose: Path, photo: Path) -> None:
    with pytest.raises(UserError, match="2 images and 1 sets of boxes"):
        rpgmt.Predictor.load(pose, device="cpu")([photo, photo], [None])


def test_what_the_network_does_not_predict(pose: Path, photo: Path) -> None:
    with pytest.raises(KeyError, match="predicts keypoints"):
        rpgmt.Predictor.load(pose, device="cpu")(photo)["depth"]


@pytest.mark.parametrize("run", ["pose", "multi"])
def test_people_are_drawn_on_their_own_image(run: str, photo: Path, request: pytest.FixtureRequest) -> None:
    people = rpgmt.Predictor.load(request.getfixturevalue(run), device="cpu")(photo)
    for draw in (people.draw, people.pictures, people.draw_stages):
        with pytest.raises(UserError, match=r"the image is 20×10: these people were found in one of \d+×\d+"):
            draw(np.zeros((10, 20, 3), np.uint8))
