"""Images of people that no photograph is needed for: what a decoder has to do, and where the crops lie, is as in COCO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

IMAGES = 64
IMAGE_SIZE = (640, 480)


def make_files(folder: Path) -> tuple[dict[str, Any], Path]:
    """Images with a falling spectrum, which take as many bytes as photographs do, and people all over them."""
    import cv2

    from rpgmt.data.coco.skeletons import COCO_KEYPOINTS

    rng = np.random.default_rng(0)
    width, height = IMAGE_SIZE
    images, annotations = [], []
    for number in range(1, IMAGES + 1):
        name = f"{number}.jpg"
        cv2.imwrite(str(folder / name), photograph(rng), [cv2.IMWRITE_JPEG_QUALITY, 90])
        images.append({"id": number, "width": width, "height": height, "file_name": name})
        # Log-normal heights and aspects: the fit to the boxes of COCO's people.
        h = min(np.exp(rng.normal(4.96, 0.68)), height)
        w = min(h * np.exp(rng.normal(-0.47, 0.53)), width)
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        points = np.column_stack([rng.uniform(x, x + w, 17), rng.uniform(y, y + h, 17), np.full(17, 2)])
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": [x, y, w, h],
                "area": 0.53 * w * h,
                "keypoints": points.ravel().tolist(),
            }
        )
    category = {"id": 1, "name": "person", "keypoints": list(COCO_KEYPOINTS.names)}
    return {"images": images, "annotations": annotations, "categories": [category]}, folder


def photograph(rng: np.random.Generator) -> np.ndarray:
    width, height = IMAGE_SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1  # the mean
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((3, height, width))) / frequency**1.4, s=(height, width))
    grey, *colours = noise / noise.std((1, 2), keepdims=True)
    channels = np.stack([grey + 0.3 * colours[0], grey, grey + 0.3 * colours[1]], axis=-1)
    return np.clip(127 + 50 * channels, 0, 255).astype(np.uint8)
