"""The ways of sharing that generated stages are compared with: what is shared, what is stored, the whole life of a model."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from torch import nn

import rpgmt
from rpgmt import cli
from rpgmt.config import ModelConfig, to_dict
from rpgmt.engine.evaluate import evaluate as measure
from rpgmt.engine.model_file import save_model
from rpgmt.errors import UserError
from rpgmt.models import build
from rpgmt.models.counting import count
from rpgmt.models.shared_stages import LowRankConv2d
from rpgmt.models.width import check_parameters, generated_weights, trainable, with_channels
from tasks import pose
from tools import evaluate, export, predict, summary, train

SMALL = ModelConfig(stages=4, channels=8, depth=1, rpg_size="25%", heads={"keypoints": 17}, input_size=(32, 32))
KINDS: dict[str, dict[str, Any]] = {
    "two sets": {"sharing": "tied", "tied_sets": 2},
    "norms": {"sharing": "tied_norms"},
    "low rank": {"sharing": "low_rank", "rank": 2},
    "by layer": {"rpg_scope": "layer"},
    "signs": {"rpg_scope": "global", "rpg_block": 2**31 - 1},
    "narrow": {"sharing": "none", "parameters": 4400},
    "learned signs": {"sharing": "signed"},
}


def of(kind: str, **changes: Any) -> ModelConfig:
    return dataclasses.replace(SMALL, **KINDS[kind], **changes)


def convolutions(model: Any, stage: int) -> dict[str, nn.Conv2d]:
    return {name: layer for name, layer in model.stages[stage].named_modules() if isinstance(layer, nn.Conv2d)}


def test_stages_take_sets_in_turn() -> None:
    model = build(of("two sets"))
    for name, layer in convolutions(model, 0).items():
        weights = [convolutions(model, stage)[name].weight for stage in range(4)]
        assert weights[0] is weights[2] is layer.weight
        assert weights[1] is weights[3] is not weights[0]
        assert len({id(convolutions(model, stage)[name].bias) for stage in range(4)}) == 4


def test_norms_and_biases_are_one_copy_and_statistics_are_not() -> None:
    model = build(of("norms"))
    names = [{name: id(value) for name, value in stage.named_parameters()} for stage in model.stages]
    assert names[0] == names[1] == names[2] == names[3]
    assert len({id(buffer) for stage in model.stages for buffer in stage.buffers()}) == 4 * len([*model.stages[0].buffers()])
    one = sum(parameter.numel() for parameter in model.stages[0].parameters())
    tied = build(dataclasses.replace(SMALL, sharing="tied"))
    own = one - sum(layer.weight.numel() for layer in convolutions(tied, 0).values())
    assert count(tied, (32, 32))["parameters"]["trainable"] - count(model, (32, 32))["parameters"]["trainable"] == 3 * own


def test_a_sum_of_low_rank_is_added() -> None:
    torch.manual_seed(0)
    tied = build(dataclasses.replace(SMALL, sharing="tied")).eval()
    torch.manual_seed(0)
    model = build(of("low rank")).eval()
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LowRankConv2d)}
    assert set(layers) == {f"stages.{stage}.{name}" for stage in range(4) for name in convolutions(tied, stage)}
    added = sum(2 * (layer.out_channels + layer.weight[0].numel()) for layer in layers.values())
    assert trainable(of("low rank")) == trainable(dataclasses.replace(SMALL, sharing="tied")) + added
    for layer in layers.values():
        assert torch.equal(layer.whole_weight(), layer.weight)  # at first
        nn.init.normal_(layer.up)
        expected = layer.weight + torch.einsum("or,rihw->oihw", layer.up, layer.down)
        torch.testing.assert_close(layer.whole_weight(), expected)
        assert torch.linalg.matrix_rank((layer.whole_weight() - layer.weight).flatten(1)) == min(2, layer.out_channels)
    images = torch.randn(1, 3, 32, 32)
    baked = rpgmt.bake(copy.deepcopy(model))
    assert not any(isinstance(module, LowRankConv2d) for module in baked.modules())
    assert {name for name, _ in baked.named_parameters()} == {name for name, _ in build(of("narrow")).named_parameters()}
    for mine, other in zip(baked(images), model(images), strict=True):
        assert torch.equal(mine["keypoints"], other["keypoints"])
    assert count(model, (32, 32))["macs"] == count(tied, (32, 32))["macs"]  # the weight is made once


def test_by_layer_every_layer_has_a_bank_of_its_own() -> None:
    model = build(of("by layer"))
    banks = [layer.bank for layer in model.modules() if isinstance(layer, rpgmt.RPGConv2d)]
    assert len({id(bank) for bank in banks}) == len(banks) == 4 * len(convolutions(model, 0))
    assert all(bank.size == bank.generated // 4 for bank in banks)


def test_one_block_for_the_whole_bank_leaves_signs_alone() -> None:
    """The stages of a bank as large as a stage are copies of each other but for signs, which differ from stage to stage."""
    for block in (2**31 - 1, generated_weights(SMALL) // 4):
        model = build(dataclasses.replace(of("signs"), rpg_block=block))
        bank = model.bank
        first, *others = [
            torch.cat([layer.weight.flatten() / bank.layout.scales[layer.segments["weight"]] for layer in of_stage.values()])
            for of_stage in (convolutions(model, stage) for stage in range(4))
        ]
        torch.testing.assert_close(first.abs(), bank.values.abs())
        for other in others:
            torch.testing.assert_close(other.abs(), first.abs())
            agree = float((other * first > 0).float().mean())
            assert abs(agree - 0.5) < 4 / (2 * len(first) ** 0.5)


@pytest.mark.parametrize("sharing", ["none", "low_rank", "rpg", "signed"])
def test_the_width_whose_number_of_parameters_is_nearest(sharing: str) -> None:
    config = dataclasses.replace(SMALL, sharing=sharing, stages=2)
    counts = {width: trainable(dataclasses.replace(config, channels=width)) for width in range(4, 25, 4)}
    assert counts[8] == count(build(config), (32, 32))["parameters"]["trainable"]  # what shapes alone say is what is built
    for wanted in (1, counts[8], (counts[12] + counts[16]) // 2 + 1, counts[24] - 1):
        found = with_channels(dataclasses.replace(config, parameters=wanted))
        assert abs(counts[found.channels] - wanted) == min(abs(value - wanted) for value in counts.values())
        assert found.parameters is None


def test_a_number_of_parameters_that_no_width_comes_near_is_refused() -> None:
    config = dataclasses.replace(SMALL, sharing="rpg", rpg_size="1M")
    least = trainable(dataclasses.replace(config, channels=4))
    message = (
        f"`parameters` is 220K: the nearest network, of 4 channels, has {least:,}, as its bank alone has 1,000,000: give a "
    )
    with pytest.raises(UserError, match=re.escape(f"{message}smaller --rpg-size, or --parameters {least}")):
        check_parameters(dataclasses.replace(config, parameters="220K"))
    plain = dataclasses.replace(SMALL, sharing="none")
    narrowest, next_ = (trainable(dataclasses.replace(plain, channels=channels)) for channels in (4, 8))
    with pytest.raises(
        UserError, match=f"`parameters` is 100: the nearest network, of 4 channels, has {narrowest:,}: give fewer"
    ):
        check_parameters(dataclasses.replace(plain, parameters=100))
    for allowed in (
        None,
        narrowest,
        round(0.95 * narrowest),
        (narrowest + next_) // 2,
    ):  # between two widths the nearest is meant
        check_parameters(dataclasses.replace(plain, parameters=allowed))


def test_a_width_by_parameters_is_the_width_by_channels() -> None:
    narrow = of("narrow")
    torch.manual_seed(3)
    own = build(narrow).state_dict()
    torch.manual_seed(3)
    same = build(with_channels(narrow)).state_dict()
    assert own.keys() == same.keys()
    assert all(torch.equal(own[name], same[name]) for name in own)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--parameters", "25%"], "`--parameters` is 25%: a percentage needs"),
        (["--stages", "2", "--tied-sets", "3"], "`tied_sets` is 3: there are 2 stages to take them"),
        (["--rank", "0"], "`--rank` is 0"),
    ],
)
def test_what_cannot_be_is_one_line(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(summary.main, ["pose", *flags]) == 2
    assert message in capsys.readouterr().err


def test_train_and_summary_refuse_a_number_that_no_width_comes_near(
    people: pose.DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["pose", "--rpg-size", "1M", "--parameters", "220K", "--stages", "2", "--depth", "1"]
    data = ["--data-root", str(people.root), "--image-size", "32", "--train-images", "4", "--val-images", "2"]
    for tool, more in (
        (summary, []),
        (train, [*data, "--input-size", "32,32", "--device", "cpu", "--out", str(tmp_path / "run")]),
    ):
        assert cli.run(tool.main, [*flags, *more]) == 2
        assert "`parameters` is 220K: the nearest network, of 4 channels, has" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> pose.DataConfig:
    """The drawn people that all kinds are trained on."""
    return pose.DataConfig(root=tmp_path_factory.mktemp("data"), image_size=32, train_images=4, val_images=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_from_its_file_to_export(kind: str, people: pose.DataConfig, tmp_path: Path) -> None:
    """A network with a step behind it: what its file gives is what it was, counts and outputs, in every tool."""
    task = pose.build(pose.Config(model=of(kind, heads=None, stages=3), data=people))
    config, model = task.config, task.model
    images = torch.randn(2, 3, 32, 32)
    sum(output["keypoints"].square().mean() for output in model(images)).backward()
    torch.optim.Adam(rpgmt.parameter_groups(model, "adam", lr=0.01)).step()
    model.eval()
    file = tmp_path / "model.safetensors"
    save_model(file, model, {"task": "pose", **to_dict(config)}, task.reading)

    loaded, counts = rpgmt.load(file), count(model, (32, 32))
    assert count(loaded, (32, 32)) == counts
    assert counts["parameters"]["trainable"] == trainable(config.model)
    stored = 4 * (counts["parameters"]["trainable"] + counts["buffers"])
    tensors = len({id(tensor) for tensor in (*model.parameters(), *model.buffers())})
    assert 0 <= file.stat().st_size - stored <= 160 * tensors + 8192 + 4 * len([*model.buffers()])
    with torch.no_grad():
        expected = model(images)[-1]["keypoints"]
        for other in (loaded, rpgmt.bake(copy.deepcopy(loaded))):
            torch.testing.assert_close(other(images)[-1]["keypoints"], expected)

    assert summary.main([str(file), "--json", str(tmp_path / "summary.json")]) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["parameters"] == counts["parameters"]
    assert evaluate.main([str(file), "--device", "cpu", "--json", str(tmp_path / "val.json")]) == 0
    val = measure(task, model, device="cpu").metrics
    assert json.loads((tmp_path / "val.json").read_text())["val"] == pytest.approx(val, abs=1e-6)
    image = tmp_path / "person.png"
    cv2.imwrite(str(image), task.val_data[0, 0]["image"])
    assert predict.main([str(file), str(image), "--device", "cpu", "--out", str(tmp_path / "found")]) == 0
    plain = tmp_path / "plain.safetensors"
    assert export.main([str(file), "--format", "safetensors", "--out", str(plain)]) == 0
    with torch.no_grad():
        torch.testing.assert_close(rpgmt.load(plain)(images)[-1]["keypoints"], expected)


def test_a_sum_of_low_rank_is_trained_averaged_and_kept(people: pose.DataConfig, tmp_path: Path) -> None:
    data = ["--data-root", str(people.root), "--image-size", "32", "--train-images", "4", "--val-images", "2"]
    network = [
        "--input-size",
        "32,32",
        "--stages",
        "2",
        "--channels",
        "4",
        "--depth",
        "1",
        "--sharing",
        "low_rank",
        "--rank",
        "2",
    ]
    few = ["--max-steps", "2", "--batch-size", "2", "--workers", "0", "--precision", "32", "--device", "cpu", "--ema", "0.5"]
    assert train.main(["pose", *data, *network, *few, "--out", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    model = rpgmt.load(tmp_path / "run")
    assert record["parameters"] == count(model, (32, 32))["parameters"]
    layers = [module for module in model.modules() if isinstance(module, LowRankConv2d)]
    assert all(layer.up.any() for layer in layers)  # it began as 0
    assert layers[0].weight is layers[len(layers) // 2].weight
