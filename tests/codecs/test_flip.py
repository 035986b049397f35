"""The flip test's mean of maps."""

from __future__ import annotations

import torch

from rpgmt.codecs.flip import average_with_mirror
from rpgmt.codecs.heatmap import Heatmap
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS

ORDER = COCO_KEYPOINTS.flip_order


def mirrored_points(points: torch.Tensor, width: int) -> torch.Tensor:
    """The key points of the mirror image: left and right have swapped."""
    flipped = points[:, list(ORDER)].clone()
    flipped[..., 0] = width - 1 - flipped[..., 0]
    return flipped


def test_a_network_that_does_not_care_about_mirrors_gives_the_same_maps() -> None:
    codec = Heatmap(input_size=(48, 64), heatmap_size=(12, 16), maps="values")
    points = torch.rand(3, 17, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([47.0, 63.0])
    maps, _ = codec.encode(points, torch.ones(3, 17))
    mirror, _ = codec.encode(mirrored_points(points, 48), torch.ones(3, 17))
    torch.testing.assert_close(average_with_mirror(maps, mirror, ORDER, kind="values"), maps)
    logits, other = (maps + 1e-6).log() + 3, (mirror + 1e-6).log() - 2
    averaged = average_with_mirror(logits, other, ORDER, kind="logits")
    torch.testing.assert_close(averaged.flatten(2).softmax(-1), logits.flatten(2).softmax(-1))


def test_it_is_the_mean_and_left_is_not_right() -> None:
    maps, mirror = torch.zeros(1, 17, 4, 6), torch.zeros(1, 17, 4, 6)
    left, right = 5, 6  # shoulders
    maps[0, left, 1, 2] = 1.0
    mirror[0, right, 1, 3] = 0.5  # 6 - 1 - 2
    averaged = average_with_mirror(maps, mirror, ORDER, kind="values")
    assert averaged[0, left, 1, 2] == 0.75
    assert averaged.sum() == 0.75


def test_the_shift_moves_the_mirror_images_maps_to_the_right() -> None:
    mirror = torch.arange(6.0).expand(1, 17, 4, 6)  # mirrored back 5 4 3 2 1 0, moved 5 5 4 3 2 1
    averaged = average_with_mirror(torch.zeros(1, 17, 4, 6), mirror, ORDER, shift=1, kind="values")
    assert averaged[0, 3, 2].tolist() == [2.5, 2.5, 2.0, 1.5, 1.0, 0.5]


def test_of_logits_the_probabilities_are_averaged() -> None:
    generator = torch.Generator().manual_seed(1)
    maps, mirror = (3 * torch.randn(2, 17, 5, 4, generator=generator) for _ in range(2))
    probabilities = average_with_mirror(maps, mirror, ORDER, kind="logits").exp()
    back = mirror.flatten(2).softmax(-1).view_as(mirror).flip(-1)[:, list(ORDER)]
    torch.testing.assert_close(probabilities, (maps.flatten(2).softmax(-1).view_as(maps) + back) / 2)
    torch.testing.assert_close(probabilities.sum((-2, -1)), torch.ones(2, 17))
