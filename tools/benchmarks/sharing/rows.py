"""What is compared: each kind of sharing at each number of stages and each size, as a config."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rpgmt.config import ModelConfig
from rpgmt.errors import UserError
from rpgmt.rpg.size import parse_size

TIED, STAGE, LAYER, SIGNED, NARROW, NONE = "tied", "rpg-stage", "rpg-layer", "signed", "narrow", "none"
RULER = "ruler"
SIZED: dict[str, dict[str, Any]] = {
    TIED: {"sharing": "tied"},
    STAGE: {"sharing": "rpg", "rpg_scope": "stage"},
    LAYER: {"sharing": "rpg", "rpg_scope": "layer"},
    SIGNED: {"sharing": "signed"},
    NARROW: {"sharing": "none"},
    "rpg-global": {"sharing": "rpg", "rpg_scope": "global"},
    "rpg-block": {"sharing": "rpg", "rpg_scope": "block"},
    "signs": {"sharing": "rpg", "rpg_scope": "global"},
    "tied-norms": {"sharing": "tied_norms"},
    "low-rank": {"sharing": "low_rank"},
    "wide": {"sharing": "none", "stages": 1},
}
"""Kinds that have as many parameters as the size says, and what makes them in the network's config."""
BY_SETS = (TIED, "signs", "tied-norms")
"""Of these, those whose size is a whole number of stages."""
BY_WIDTH = (NARROW, "low-rank", "wide")
"""Those whose width follows from the number of parameters of the generated network."""
BITS = {"8bit": 8, "4bit": 4}
QUANTIZED = (TIED, STAGE, SIGNED, NONE)
"""What is rounded: the bank, the magnitudes, or the weights of the stages' convolutions."""
FIRST = (TIED, STAGE, LAYER, SIGNED, NARROW)
ROWS = (*FIRST, NONE, RULER, *[kind for kind in SIZED if kind not in FIRST], *BITS)
"""As `--rows` knows them, the decisive ones first: that is the order in which they are trained."""


@dataclass(frozen=True)
class Row:
    """A network of the comparison.

    Args:
        name: of its run folders, before the learning rate and the seed.
        kind: `none`, or one of `SIZED`.
        stages: T of the comparison that it belongs to; of the ruler, its own.
        size: of the bank that it is compared at, `25%` of the generated weights; None where size plays no part.
        model: its network's config.
        channels: of its features.
        parameters: trainable ones: bank + fixed.
        bits: of its bank or weights; None where they are not rounded.
        source: name of the row whose trained networks are rounded.
    """

    name: str
    kind: str
    stages: int
    size: str | None
    model: ModelConfig
    channels: int
    parameters: int
    bits: int | None = None
    source: str | None = None


def plan(base: ModelConfig, kinds: Sequence[str], stages: Sequence[int], sizes: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows of the kinds, with those that others are made of, in the order in which they are to be trained.

    Args:
        base: the network, with its heads; sharing and stages are the rows' own.
        kinds: some of `ROWS`.
        stages: T of each comparison.
        sizes: of the banks, for each of them.

    Returns:
        The rows, and for what cannot be a line that says why.

    Raises:
        UserError: no row is left.
    """
    rows: dict[str, Row] = {}
    notes: list[str] = []

    def add(kind: str, count: int, size: str | None) -> Row | None:
        row = _row(base, kind, count, size)
        if isinstance(row, str):
            notes.append(row)
            return None
        return rows.setdefault(row.name, row)

    def networks(kind: str, count: int) -> list[Row]:
        """Of a kind, one at each size; of the ruler, those of fewer stages."""
        if kind == RULER:
            found = [add(NONE, fewer, None) for fewer in range(1, count)]
        else:
            found = [add(kind, count, size) for size in ((None,) if kind == NONE else sizes)]
        return [row for row in found if row]

    for kind in [kind for kind in ROWS if kind in kinds]:
        for count in stages:
            if kind not in BITS:
                networks(kind, count)
                continue
            named = [of for of in (*QUANTIZED, RULER) if of in kinds] or QUANTIZED
            for source in [row for of in named for row in networks(of, count)]:
                name = f"{source.name}-{kind}"
                rows[name] = dataclasses.replace(source, name=name, bits=BITS[kind], source=source.name)
    if not rows:
        raise UserError(f"`--rows` is {','.join(kinds)}: {notes[0] if notes else 'nothing is left to compare'}")
    return list(rows.values()), list(dict.fromkeys(notes))


def size_label(size: str) -> str:
    """`25%` as a part of a name: `25pc`."""
    return size.replace("%", "pc").replace(".", "_").replace(" ", "")


def _row(base: ModelConfig, kind: str, stages: int, size: str | None) -> Row | str:
    """The row, or why it cannot be."""
    from rpgmt.models.width import check_parameters, generated_weights, trainable, with_channels

    plain = dataclasses.replace(base, stages=stages, sharing="none", parameters=None, tied_sets=1, rpg_block=1)
    if kind == NONE:
        return Row(f"{NONE}-t{stages}", NONE, stages, None, plain, plain.channels, trainable(plain))
    assert size is not None
    name = f"{kind}-{size_label(size)}-t{stages}"
    generated = generated_weights(plain)
    bank = parse_size(size, generated, name="--sizes")
    changes = {"rpg_size": size, **SIZED[kind]}
    if kind in BY_SETS:
        sets = Fraction(bank * stages, generated)
        if sets.denominator != 1:
            return f"{name} is left out: {size} of the weights are no whole number of {stages} stages"
        # A block as large as the bank leaves each entry in its place: what differs from set to set are signs.
        changes |= {"rpg_block": bank} if kind == "signs" else {"tied_sets": int(sets)}
    if kind in BY_WIDTH:
        changes["parameters"] = trainable(dataclasses.replace(plain, sharing="rpg", rpg_size=size))
    model = dataclasses.replace(plain, **changes)
    try:
        check_parameters(model)
    except UserError as error:
        return f"{name} is left out: {error}"
    built = with_channels(model)
    if kind == NARROW and built.channels >= base.channels:
        return f"{name} is left out: {size} saves too little for a network that is narrower"
    return Row(name, kind, stages, size, model, built.channels, trainable(built))
