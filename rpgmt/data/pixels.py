"""Random changes of a crop's pixels that move no key point: colours, sharpness, noise, and boxes that hide a part.

The changes are albumentations' (Buslaev et al., Albumentations: Fast and Flexible Image Augmentations, Information 2020).
Nothing else imports it, and nothing does before the first change: the import takes seconds.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from rpgmt.data.random_numbers import library_generators


def change_pixels(image: np.ndarray, seed: int) -> np.ndarray:
    """Change brightness, contrast, hue, saturation and sharpness a little, each at random; some images turn grey.

    Args:
        image: uint8 (H, W, 3), RGB; it stays as it is.
        seed: of everything that is drawn: the result is a function of the image and of it alone.
    """
    return _apply(_pipelines()["pixels"], image, seed)


def hide_part(image: np.ndarray, seed: int) -> np.ndarray:
    """Put a grey box, or one of noise, over a part of the image: a fifth to two fifths of its width and of its height.

    Key points under the box are still to be found, so their labels stay. Sizes as in the recipe of RTMPose (Jiang et al.,
    arXiv 2303.07399). Arguments as for `change_pixels`.
    """
    return _apply(_pipelines()["occlusion"], image, seed)


def _apply(pipeline: Any, image: np.ndarray, seed: int) -> np.ndarray:
    # The state is set anew for each image, so that it does not matter what was drawn before, in which process.
    pipeline.set_random_state(*library_generators(seed))
    return pipeline(image=image)["image"]


@functools.cache
def _pipelines() -> dict[str, Any]:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version of itself
    import albumentations as A

    blur, compression = A.GaussianBlur(blur_limit=(3, 5), p=1), A.ImageCompression(quality_range=(40, 90), p=1)
    noise = A.GaussNoise(std_range=(0.02, 0.06), p=0.5)  # half as often as the other two: it takes longest
    box = functools.partial(A.CoarseDropout, hole_height_range=(0.2, 0.4), hole_width_range=(0.2, 0.4), p=1)
    return {
        "pixels": A.Compose(
            [
                A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.8),
                A.HueSaturationValue(hue_shift_limit=10, sat_shift_limit=30, val_shift_limit=0, p=0.4),
                A.ToGray(p=0.05),
                A.OneOf([blur, compression, noise], p=0.3),
            ]
        ),
        "occlusion": A.OneOf([box(num_holes_range=(1, 1), fill=fill) for fill in (127, "random")], p=1),
    }
