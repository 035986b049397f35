"""People as rows of results, and some of them."""

from __future__ import annotations

import dataclasses

import numpy as np

from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.prediction.people import People
from rpgmt.prediction.results import ImageClass, Poses


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
