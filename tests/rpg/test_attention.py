"""Attention with generated projections is plain attention with those weights, on every path that torch takes."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rpgmt import bake, convert, report

PACKED: dict[str, Any] = {}
SEPARATE: dict[str, Any] = {"kdim": 12, "vdim": 10}


class Attends(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, **({"batch_first": True} | options))

    def forward(self, *inputs: Tensor) -> Tensor:
        query, key, value = inputs if len(inputs) == 3 else inputs * 3
        return self.attention(query, key, value)[0]


def attends(options: dict[str, Any], **conversion: Any) -> Attends:
    torch.manual_seed(0)
    model = Attends(**options).double()
    convert(model, "25%", **conversion)
    return model


def inputs(options: dict[str, Any]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    widths = [options.get(name, 16) for name in ("qdim", "kdim", "vdim")]
    sequences = [torch.randn(2, 5, width, generator=generator, dtype=torch.float64) for width in widths]
    return sequences if options.get("kdim") else sequences[:1]


def encoder() -> nn.TransformerEncoder:
    torch.manual_seed(0)
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True), 2)


@pytest.mark.parametrize("options", [PACKED, SEPARATE, {"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}])
@pytest.mark.parametrize("regenerate", [False, True])
def test_output_and_gradient_are_those_of_plain_attention(options: dict[str, Any], regenerate: bool) -> None:
    model, x = attends(options, regenerate=regenerate), inputs(options)
    names = [name for name, _ in Attends(**options).named_parameters()]
    ours = model(*x)
    ours.square().sum().backward()
    plain = bake(copy.deepcopy(model))
    plain.zero_grad()
    assert [name for name, _ in plain.named_parameters()] == names
    assert list(plain.state_dict()) == list(Attends(**options).state_dict())
    assert type(plain.attention) is nn.MultiheadAttention
    theirs = plain(*x)
    assert torch.equal(ours, theirs)
    theirs.square().sum().backward()
    generated = [name for name in names if name not in dict(model.named_parameters())]
    assert len(generated) == (4 if "kdim" in options else 2)
    p, segments = model.bank.placement, [(segment.numel, segment.scale) for segment in model.bank.layout.segments]
    matrix = torch.from_numpy(reference.generating_matrix(p.size, segments, p.seed, p.bank, p.block))
    flat = torch.cat([plain.get_parameter(name).grad.flatten() for name in generated])
    torch.testing.assert_close(model.bank.values.grad, matrix.T @ flat, rtol=1e-10, atol=1e-10)
    for name, parameter in model.named_parameters():
        if name != "bank.values":
            assert torch.equal(parameter.grad, plain.get_parameter(name).grad)


@pytest.mark.parametrize("options", [PACKED, SEPARATE])
def test_evaluation_gives_what_training_gives_and_follows_the_bank(options: dict[str, Any]) -> None:
    model, x = attends(options), inputs(options)
    before = model(*x).detach()
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(*x), before, rtol=1e-12, atol=1e-12)  # torch's own kernel for attention
        model.bank.values.mul_(2)
        plain = bake(copy.deepcopy(model))
        torch.testing.assert_close(model(*x), plain(*x), rtol=1e-12, atol=1e-12)
        assert not torch.allclose(model(*x), before)


# torch itself says that its nested tensors, which its fast path for encoders uses, will change.
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("masked", [False, True])
def test_an_encoder_with_its_fast_path(masked: bool) -> None:
    model = encoder()
    counts = convert(model, "25%")
    kinds = ("self_attn", "self_attn.out_proj", "linear1", "linear2")
    assert counts.converted == [f"layers.{i}.{kind}" for i in range(2) for kind in kinds]
    assert counts.generated == 2 * (4 * 16 * 16 + 2 * 16 * 32)
    x = torch.randn(2, 5, 16)
    mask = torch.tensor([[False] * 3 + [True] * 2, [False] * 5]) if masked else None
    trained = model(x, src_key_padding_mask=mask).detach()
    model.eval()
    seen = torch.ones(2, 5, dtype=torch.bool) if mask is None else ~mask
    with torch.no_grad():
        ours = model(x, src_key_padding_mask=mask)
        torch.testing.assert_close(ours[seen], trained[seen], rtol=1e-5, atol=1e-5)
        assert torch.equal(bake(copy.deepcopy(model))(x, src_key_padding_mask=mask), ours)


def test_copies_checkpoints_and_pickles(tmp_path: Path) -> None:
    model, other, (x,) = attends(PACKED), attends(PACKED), inputs(PACKED)
    with torch.no_grad():
        model.bank.values.mul_(1.5)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    stream = io.BytesIO()
    torch.save(model, stream)
    read = torch.load(io.BytesIO(stream.getvalue()), weights_only=False)
    for twin in (other, read, copy.deepcopy(model)):
        assert torch.equal(twin(x), model(x))
        assert list(twin.state_dict()) == list(model.state_dict())
        assert report(twin) == report(model)
    assert not [name for name in model.state_dict() if "weight" in name]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compile_and_export() -> None:
    torch._dynamo.reset()
    model, (x,) = attends(PACKED), inputs(PACKED)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    compiled(x).square().sum().backward()
    gradient, model.bank.values.grad = model.bank.values.grad, None
    model(x).square().sum().backward()
    torch.testing.assert_close(gradient, model.bank.values.grad)
    model.eval()
    exported = torch.export.export(model, (x,))
    torch.testing.assert_close(exported.module()(x), model(x))


def test_autocast() -> None:
    model, (x,) = attends(PACKED).float(), inputs(PACKED)
    expected = model(x.float())
    for training in (True, False):
        model.train(training)
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(training):
            output = model(x.float())
        torch.testing.assert_close(output.float(), expected, rtol=0.05, atol=0.02)


def test_generated_projections_are_read_only_and_half_frozen_ones_are_left() -> None:
    model = attends(SEPARATE)
    with pytest.raises(RuntimeError, match="generated weight of `attention`, a GeneratedAttention, cannot be assigned"):
        model.attention.k_proj_weight = nn.Parameter(torch.zeros(16, 12))
    with pytest.raises(RuntimeError, match="cannot be initialised again"):
        model.attention._reset_parameters()
    assert model.attention.in_proj_weight is None
    frozen = Attends(**SEPARATE)
    frozen.attention.v_proj_weight.requires_grad_(False)
    counts = convert(frozen, "25%")
    assert counts.left == {"attention": "its weight is frozen"}
    assert counts.converted == ["attention.out_proj"]
