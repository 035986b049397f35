"""The report of a conversion, printed."""

from __future__ import annotations

from torch import nn

import rpgmt
from rpgmt import convert


def test_the_table_names_what_was_left_by_reason_largest_first_within_80_columns() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 10, 3),  # 270 weights, 10 biases
        nn.BatchNorm2d(10),  # 20
        nn.LSTM(10, 20),  # 2,560
        nn.Embedding(7, 10),  # 70
        nn.Linear(10, 11, bias=False),  # 110
        nn.Linear(10, 12, bias=False).requires_grad_(False),  # 120
    )
    counts = convert(model, 95, exclude=["4"])
    lines = str(counts).splitlines()
    assert lines == [
        "                                              parameters       %  layers",
        "generated, M                                         270    8.5%       1",
        "left                                               2,890   91.5%       6",
        "  LSTM must have its weights in one piece          2,560   81.0%       1",
        "  its weight is frozen                               120    3.8%       1",
        "  excluded                                           110    3.5%       1",
        "  Embedding is not generated                          70    2.2%       1",
        "  BatchNorm2d is not generated                        20    0.6%       1",
        "  biases and the like of generated layers             10    0.3%       1",
        "the plain network                                  3,160  100.0%",
        "bank, N                                               95    3.0%",
        "trained, N + fixed                                 2,865   90.7%",
        'weights before: drawn anew, they are lost; init="project" keeps what it can',
    ]
    assert counts.frozen == 120


def test_long_reasons_are_cut() -> None:
    model = nn.Sequential(*(nn.Linear(10, 10) for _ in range(30)))
    lines = str(convert(model, "50%", include=[str(i) for i in range(29)])).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("  not in 0, 1, 2") and "…" in line for line in lines)


def test_a_model_without_a_bank_prints_too() -> None:
    lines = str(rpgmt.report(nn.Linear(3, 2))).splitlines()
    assert lines[1].split() == ["generated,", "M", "0", "0.0%", "0"]
    assert lines[3].split() == ["no", "bank", "8", "100.0%", "1"]


def test_public_names_are_listed() -> None:
    assert {"convert", "bake", "report", "load", "Bank", "parameter_groups"} <= set(dir(rpgmt))
    assert all(getattr(rpgmt, name) is not None for name in dir(rpgmt))
