"""Mutated inputs of every kind are handled as documented or refused in one line that names the file.

Some 300 cases, the same in every run. `many_mutations.py` beside this file tries thousands, each in a process of its own.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")

from helpers.mutated_kind import Kind, outcome
from helpers.mutated_models import MODELS
from helpers.mutated_sets import SETS
from hypothesis import HealthCheck, Phase, given, settings

KINDS = (*SETS, *MODELS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.name}, {Path(kind.file).name}")
def test_what_is_mutated_is_handled_or_refused(kind: Kind, tmp_path: Path) -> None:
    kind.write(tmp_path)
    sound, seen = (tmp_path / kind.file).read_bytes(), Counter[str]()
    assert outcome(kind, tmp_path, sound) == "handled"

    @settings(
        max_examples=max(2, round(13 * kind.weight)),
        phases=[Phase.generate, Phase.shrink],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.mutate(sound))
    def case(data: bytes) -> None:
        seen[outcome(kind, tmp_path, data)] += 1

    case()
    assert seen.total() >= 2
