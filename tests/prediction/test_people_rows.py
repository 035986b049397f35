"""People as rows of results, and some of them."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.errors import UserError
from rpgmt.prediction.people import People
from rpgmt.prediction.results import ImageClass, Poses
from rpgmt.prediction.source import SourceImage


def people(count: int) -> People:
    rng = np.random.default_rng(count)
    scores = rng.random((count, 17))
    poses = Poses(keypoint_set=COCO_KEYPOINTS, points=rng.random((count, 17, 2)), scores=scores, person_scores=scores.mean(1))
    scene = ImageClass(names=("indoor", "outdoor"), probabilities=rng.dirichlet((1, 1), count))
    return People(
        image_size=(30, 20), boxes=rng.random((count, 4)), box_scores=np.ones(count), results={"points": poses, "scene": scene}
    )


def test_rows_tell_the_likeliest_class() -> None:
    found = people(3)
    for row, probabilities in zip(found.to_coco(2**60), found["scene"].probabilities, strict=True):
        best = int(probabilities.argmax())
        assert row["classes"] == {"scene": {"name": ("indoor", "outdoor")[best], "score": probabilities[best]}}
        assert row["image_id"] == 2**60
        assert "track_id" not in row


def test_stages_that_found_others_stay_when_some_are_chosen() -> None:
    """Suppression of people found twice may leave more in one stage than in another."""
    found = dataclasses.replace(people(3), stages=(people(4), people(3)))
    some = found.select([2, 0])
    assert [len(stage) for stage in some.stages] == [4, 2]
    np.testing.assert_array_equal(some.stages[1].boxes, found.boxes[[2, 0]])
    named = found.with_ids(np.array([5, 6, 7]))
    assert named.stages[0].ids is None
    assert [row["track_id"] for row in named.to_coco()] == [5, 6, 7]
    np.testing.assert_array_equal(named.stages[1].ids, [5, 6, 7])  # type: ignore[arg-type]


def test_rows_of_numpys_numbers_are_json() -> None:
    rows = people(2).to_coco(np.int64(2**60), np.int32(4))  # type: ignore[arg-type]
    assert json.loads(json.dumps(rows)) == people(2).to_coco(2**60, 4)
    assert people(1).to_coco("a")[0]["image_id"] == "a"


@pytest.mark.parametrize("index", [0, slice(1), [True, False]])
def test_people_by_number_are_selected(index: object) -> None:
    with pytest.raises(TypeError, match="select"):
        people(2)[index]  # type: ignore[index]
    with pytest.raises(KeyError, match="points, scene"):
        people(2)["nothing"]


def test_people_are_shown_in_a_few_words() -> None:
    found = people(3)
    assert repr(found) == "People(3 in 30×20: points, scene)"
    assert repr(dataclasses.replace(found, stages=(people(4), found))) == "People(3 in 30×20: points, scene; 2 stages)"


def test_images_of_pillow_and_any_bytes_are_sources() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(SourceImage.open(image).pixels, pixels)
    grey = SourceImage.open(image.convert("L")).pixels
    assert grey.shape == (20, 30, 3)
    assert (grey == grey[:, :, :1]).all()
    file = io.BytesIO()
    image.save(file, "PNG")
    for data in (bytearray(file.getvalue()), memoryview(file.getvalue())):
        np.testing.assert_array_equal(SourceImage.open(data).pixels, pixels)
    with pytest.raises(UserError, match="cannot be read"):
        SourceImage.open(Image.open(io.BytesIO(file.getvalue()[:200])))
