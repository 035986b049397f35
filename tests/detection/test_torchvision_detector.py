"""Torchvision's detectors: what comes out is torchvision's; weights come from the file or are asked for."""

from __future__ import annotations

import pickle
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import models

from rpgmt.detection import make_detector
from rpgmt.detection.torchvision_detector import SHORT_NAMES, TorchvisionDetector
from rpgmt.errors import UserError

IMAGES = [
    np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8) for i, size in enumerate([(60, 80), (90, 70), (50, 50)])
]
DOG = 18
SSDLITE = "ssdlite320_mobilenet_v3_large"


def ssdlite() -> torch.nn.Module:
    """With random weights, by which it sees persons and dogs in any noise."""
    torch.manual_seed(0)
    network = models.get_model(SSDLITE, weights=None, weights_backbone=None).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():  # statistics of noise: without them all activations are next to nothing, whatever the image
        network.head(list(network.backbone(torch.randn(4, 3, 320, 320)).values()))
    network.eval()
    for layer in network.head.classification_head.module_list:
        layer[-1].bias.data.view(-1, 91)[:, [1, DOG]] += 1
    return network


def random_detector(**options: Any) -> TorchvisionDetector:
    detector = TorchvisionDetector("ssdlite", published=False, device="cpu", threshold=0, **options)
    detector._network.load_state_dict(ssdlite().state_dict())
    return detector


def expected(network: torch.nn.Module, image: np.ndarray, label: int = 1) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        (found,) = network([torch.tensor(image).permute(2, 0, 1) / 255])
    persons = (found["labels"] == label) & (found["boxes"][:, 2:] > found["boxes"][:, :2]).all(1)
    corners = found["boxes"][persons].double().numpy()
    boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
    return boxes, found["scores"][persons].double().numpy()


def test_boxes_of_persons_are_torchvisions() -> None:
    network, detector = ssdlite(), random_detector()
    for image, detections in zip(IMAGES, detector(IMAGES), strict=True):
        boxes, scores = expected(network, image)
        assert len(np.unique(scores.round(4))) > 10  # the image decides
        assert np.allclose(detections.boxes, boxes, rtol=0, atol=1e-3)
        assert np.allclose(detections.scores, scores, rtol=0, atol=1e-6)
        assert detections.labels is not None
        assert set(detections.labels.tolist()) == {1}


def test_other_classes_are_found_if_asked_for() -> None:
    boxes, _ = expected(ssdlite(), IMAGES[0], DOG)
    (detections,) = random_detector(classes=[DOG])(IMAGES[:1])
    assert len(boxes) > 1
    assert np.allclose(detections.boxes, boxes, rtol=0, atol=1e-3)


def test_batches_of_any_size_find_the_same() -> None:
    alone, together = random_detector(batch_size=1)(IMAGES), random_detector(batch_size=2)(IMAGES)
    for one, other in zip(alone, together, strict=True):
        assert np.allclose(one.boxes, other.boxes, rtol=0, atol=1e-3)
    assert random_detector()([]) == []


def test_functions_of_torchvision_are_names_too() -> None:
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    (detections,) = TorchvisionDetector(name, published=False, device="cpu", threshold=0)(IMAGES[:1])
    assert detections.boxes.shape[1] == 4


def test_the_short_names_stand_for_detectors_with_published_persons() -> None:
    for function in SHORT_NAMES.values():
        weights = models.get_model_weights(function).DEFAULT
        assert weights.meta["categories"][1] == "person"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where torch keeps weights, empty; and no way to the network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.delenv("no_proxy", raising=False)
    urllib.request.install_opener(urllib.request.build_opener())
    yield tmp_path / "hub" / "checkpoints"
    urllib.request.install_opener(None)  # type: ignore[arg-type]


WEIGHTS = models.get_model_weights(SSDLITE).DEFAULT.url


def test_without_a_network_one_line_says_which_file_belongs_where(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError) as error:
        make_detector("ssdlite", device="cpu")
    message, file = str(error.value), WEIGHTS.rpartition("/")[2]
    assert message.startswith(f"`detector` is ssdlite: its weights {file} are not in {folder} and cannot be downloaded (")
    assert message.endswith(f"): fetch {WEIGHTS} and put the file there")
    assert "\n" not in message
    assert capsys.readouterr().out == ""
    assert not list(folder.iterdir())


def test_weights_put_there_by_hand_are_used(folder: Path) -> None:
    network = ssdlite()
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / WEIGHTS.rpartition("/")[2])
    (detections,) = make_detector("ssdlite", device="cpu", threshold=0)(IMAGES[:1])
    boxes, _ = expected(network, IMAGES[0])
    assert np.allclose(detections.boxes, boxes, rtol=0, atol=1e-3)


class Harmful:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", ["harmful", "empty", "text", "others"])
def test_a_file_that_is_not_the_weights_is_named_and_not_run(content: str, folder: Path, tmp_path: Path) -> None:
    folder.mkdir(parents=True)
    file = folder / WEIGHTS.rpartition("/")[2]
    if content == "harmful":
        torch.save({"x": Harmful(tmp_path / "harm")}, file)
        torch.load(file, weights_only=False)
        (tmp_path / "harm").unlink()  # it would have
    elif content == "others":
        torch.save({"x": torch.zeros(3)}, file)
    else:
        file.write_bytes(b"" if content == "empty" else pickle.dumps("text")[:-1] + b"<html>")
    with pytest.raises(UserError) as error:
        make_detector("ssdlite", device="cpu")
    assert str(error.value) == f"{file}: not the weights of `detector` ssdlite: put {WEIGHTS} there, or delete the file"
    assert not (tmp_path / "harm").exists()


def test_a_device_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(UserError, match="`device` is cuda: this machine has no CUDA device"):
        TorchvisionDetector("ssdlite", published=False, device="cuda")
