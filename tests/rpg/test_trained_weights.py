"""convert tells trained weights from fresh ones, and says what becomes of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rpgmt import convert, report
from rpgmt.rpg.trained_weights import looks_trained

INITIALISERS: dict[str, Callable[[Tensor], Tensor]] = {
    "default": lambda w: w,
    "he": nn.init.kaiming_normal_,
    "fan out": lambda w: nn.init.kaiming_normal_(w, mode="fan_out"),
    "glorot": nn.init.xavier_uniform_,
    "cut off": lambda w: nn.init.trunc_normal_(w, std=0.02),
    "cut off soon": lambda w: nn.init.trunc_normal_(w, std=1.0),
    "orthogonal": nn.init.orthogonal_,
}
LAYERS: list[Callable[[], nn.Module]] = [
    lambda: nn.Conv2d(3, 64, 7),
    lambda: nn.Conv2d(64, 64, 3),
    lambda: nn.Conv2d(256, 256, 3, groups=256),
    lambda: nn.Conv2d(512, 8, 1),
    lambda: nn.ConvTranspose2d(64, 32, 2, 2),
    lambda: nn.Linear(10, 10),
    lambda: nn.Linear(400, 500),
    lambda: nn.Linear(8, 600),
    lambda: nn.MultiheadAttention(64, 4),
]


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5)
    )


def trained(steps: int, optimizer: str) -> nn.Sequential:
    torch.manual_seed(0)
    model = network()
    labels = torch.randint(5, (64,))
    images = torch.randn(64, 3, 12, 12) + torch.randn(5, 3, 12, 12)[labels]
    parameters = model.parameters()
    updater = torch.optim.Adam(parameters, 1e-3) if optimizer == "adam" else torch.optim.SGD(parameters, 0.1, momentum=0.9)
    for _ in range(steps):
        updater.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        updater.step()
    return model


@pytest.mark.parametrize("name", INITIALISERS)
def test_fresh_weights_never_look_trained(name: str) -> None:
    torch.manual_seed(0)
    for make in LAYERS:
        for _ in range(8):
            weight = next(parameter for parameter in make().parameters() if parameter.ndim > 1)
            with torch.no_grad():
                INITIALISERS[name](weight)
            assert not looks_trained(weight), (name, weight.shape)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("steps", [30, 200])
def test_a_network_that_was_trained_is_not_lost_without_a_word(steps: int, optimizer: str) -> None:
    words = r'weights of the Sequential look trained .\d or more of 3 layers, .* are lost: .* `init="project"` generates'
    with pytest.warns(UserWarning, match=words) as notes:
        counts = convert(trained(steps, optimizer), "25%")
    assert notes[0].filename == __file__
    assert counts.start == "drawn anew"
    assert 'weights before: drawn anew, they are lost; init="project" keeps what it can' in str(counts)


def test_who_says_what_shall_become_of_the_weights_is_not_told() -> None:
    for init, start in (("fresh", "drawn anew"), ("project", "projected")):
        model = trained(100, "adam")
        counts = convert(model, "25%", init=init)  # a warning would be an error
        assert counts.start == report(model).start == start
    assert convert(trained(100, "adam"), "100%").start == "kept exactly"
    assert convert(network(), "25%").start == "drawn anew"  # fresh weights


def test_projected_weights_correlate_with_the_old_ones_and_new_ones_do_not() -> None:
    found = {}
    for init in ("fresh", "project"):
        model = trained(100, "adam")
        before = torch.cat([model[i].weight.detach().flatten() for i in (0, 2, 5)])
        convert(model, "25%", init=init)
        after = torch.cat([model[i].weight.detach().flatten() for i in (0, 2, 5)])
        found[init] = float(torch.corrcoef(torch.stack([before, after]))[0, 1])
    assert abs(found["fresh"]) < 0.05
    assert found["project"] > 0.45  # 1/√4 where layers have one scale, more where they have several
