"""Processes that do not train the same find it out before the first step, and say who has what."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.people_files import write_coco
from runs import two_processes
from toy import SAMPLES, Net, Noise, Toy, config

from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.pose_crops import PoseCrops
from rpgmt.engine import agreement
from rpgmt.engine.agreement import digest, other_weights, sizes
from rpgmt.engine.loop import fit
from rpgmt.errors import UserError
from rpgmt.rpg.convert import convert

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")

Case = Callable[[int], tuple[Toy, dict[str, Any]]]
"""Gives the task and the values of its config for process 0 or 1."""


def other_placement(rank: int) -> tuple[Toy, dict[str, Any]]:
    task = Toy(norm=False)
    convert(task.model, 200, exclude=("head",), seed=rank)
    return task, {}


def other_data(rank: int) -> tuple[Toy, dict[str, Any]]:
    task = Toy(norm=False)
    task.train_data, task.val_data = Noise(SAMPLES - rank, 1), Noise(7, 2 + rank)
    return task, {}


def other_weights_of_one_layer(rank: int) -> tuple[Toy, dict[str, Any]]:
    task = Toy(norm=False)
    if rank == 1:
        torch.nn.init.zeros_(task.model.head.bias)  # type: ignore[arg-type]
    return task, {}


CASES: dict[str, tuple[Case, list[str]]] = {
    "rate": (lambda rank: (Toy(norm=False), {"lr": [0.1, 0.2][rank]}), ["`lr` is 0.1 in process 0 and 0.2 in process 1"]),
    "seed": (lambda rank: (Toy(norm=False), {"seed": rank}), ["`seed` is 0 in process 0 and 1 in process 1"]),
    "placement": (other_placement, ["placement of bank is version 1, seed 0, ", "in process 0 and version 1, seed 1, "]),
    "data": (other_data, ["training data is 21 samples, ", "and 20 samples, ", "validation data is 7 samples, "]),
    "weights": (other_weights_of_one_layer, ["first weights of head.bias are others in process 1 than in process 0"]),
}


def test_what_differs_is_named_in_every_process(tmp_path: Path) -> None:
    """Before the first step; what stands in the run's checkpoint, and versions of packages, are compared too."""

    def start(rank: int) -> None:
        def refused(task: Toy, values: dict[str, Any], out: Path) -> str:
            with pytest.raises(UserError) as caught:
                fit(task, config(out, devices=2, **values))
            assert task.batches == 0
            return str(caught.value)

        said = {name: refused(*case(rank), tmp_path / name) for name, (case, _) in CASES.items()}
        if rank == 1:
            found = importlib.metadata.version
            importlib.metadata.version = lambda package: "0.0" if package == "torch" else found(package)
            agreement._code = lambda: "other"
        said["versions"] = refused(Toy(norm=False), {}, tmp_path / "versions")
        (tmp_path / f"{rank}.json").write_text(json.dumps(said))

    assert two_processes(start) == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    parts = {name: parts for name, (_, parts) in CASES.items()} | {"versions": ["and 0.0 in process 1", "and code other in"]}
    for name, text in first.items():
        assert text.startswith("the processes do not train the same: ")
        assert "\n" not in text
        for part in parts[name]:
            assert part in text
    assert first["rate"].count(" in process 0") == 1  # nothing else differs
    assert not list(tmp_path.rglob("*.ckpt"))


def test_another_rounding_of_the_first_weights_is_no_difference() -> None:
    model = Net(norm=True)
    own = sizes(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 1e-7)
    assert other_weights([own, sizes(model)]) == []
    assert other_weights([own, sizes(Net(norm=True))])[0].endswith("are others in process 1 than in process 0")


@pytest.mark.filterwarnings("ignore:.*taken from the names of the key points:UserWarning")
def test_the_digest_sees_labels_and_names_but_not_the_folder(tmp_path: Path) -> None:
    write_coco(tmp_path / "a", 4)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    documents = [tmp_path / name / "annotations/person_keypoints_val.json" for name in "ab"]

    def crops(number: int) -> PoseCrops:
        return PoseCrops(CocoPeople.from_files(documents[number], tmp_path / "ab"[number] / "images"), (32, 32))

    here = crops(0)
    before = digest(here)
    assert digest(crops(1)) == before
    sample = here[0, 0]
    assert isinstance(sample["image"], np.ndarray)
    assert digest(here) == before  # what was read meanwhile does not count
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda document: document["annotations"][0]["keypoints"].__setitem__(0, 1.0),
        lambda document: document["annotations"][0]["bbox"].__setitem__(2, 5.0),
        lambda document: document["annotations"].pop(),
        lambda document: document["categories"][0]["keypoints"].reverse(),
        lambda document: document["images"].reverse(),
    ]
    text = documents[1].read_text()
    for change in changes:
        document = json.loads(text)
        change(document)
        documents[1].write_text(json.dumps(document))
        assert digest(crops(1)) != before
