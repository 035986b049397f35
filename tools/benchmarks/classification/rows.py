"""What is compared: each network with its sharing, its size, what it starts from and how long it trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rpgmt.config import TrainConfig
from rpgmt.errors import UserError
from rpgmt.rpg.size import parse_size
from tasks.classification import Config

SIZES = "2359296,1M,250K,36864,8192"
"""The paper's, N = 2359296 and 36864 among them (arXiv 2107.07110)."""
PLAIN, PLAIN_34, NARROW, TIED = "plain-r18", "plain-r34", "narrow", "tied"
GLOBAL, BLOCK, GLOBAL_34, HALF_34 = "rpg-global-r18", "rpg-block-r18", "rpg-global-r34", "rpg-half-r34"
PROJECTED, EQUILIBRIUM = "projected", "equilibrium"
PRUNED = ("pruned-weights", "pruned-l1", "pruned-fpgm")
PRUNED_BAKED, PRUNED_BANK = "pruned-baked", "pruned-bank"
QUANTIZED = {"quantized-8": 8, "quantized-4": 4}
FINETUNED = (PROJECTED, *PRUNED, PRUNED_BAKED, PRUNED_BANK)
ROWS = (
    *(PLAIN, PLAIN_34, NARROW, TIED, GLOBAL, BLOCK, GLOBAL_34, HALF_34),
    *(PROJECTED, EQUILIBRIUM, *PRUNED, PRUNED_BAKED, PRUNED_BANK, *QUANTIZED),
)
EQUILIBRIUM_RECIPE: dict[str, Any] = {
    "optimizer": "adam",
    "lr": 1e-3,
    "weight_decay": 0.0,
    "schedule": "cosine",
    "warmup_steps": 0,
}
"""The equilibrium network's own: SGD at the rate of the ResNets is not for it."""


@dataclass(frozen=True)
class Row:
    """A network of the comparison.

    Args:
        name: of its run folders, before `-seed0`.
        family: which of `ROWS` it is.
        config: what it is trained with; `seed` and `out` are not set yet.
        size: N, of its bank or of the one that it is compared with; None where none plays a part.
        source: name of the row whose trained network it starts from.
        parameters: trained parameters that it is to have; None where its config says it all.
    """

    name: str
    family: str
    config: Config
    size: int | None = None
    source: str | None = None
    parameters: int | None = None

    @property
    def derived(self) -> bool:
        """Whether its network is none that a config describes, so that `derive` trains it."""
        return self.family in (EQUILIBRIUM, *FINETUNED, *QUANTIZED)

    @property
    def cost(self) -> float:
        """Of an epoch, roughly, against ResNet-18's."""
        if self.family in QUANTIZED:
            return 0.0
        return {EQUILIBRIUM: 40.0}.get(self.family, 2.0 if self.config.model.network == "resnet34" else 1.0)


@dataclass(frozen=True)
class Sizes:
    """N of the banks.

    Args:
        all: of ResNet-18 with one bank, as asked for.
        middle: the one at which networks without a bank have as many parameters.
        block: the one of banks by block, and of ResNet-34.
    """

    all: tuple[int, ...]
    middle: int
    block: int


def read_sizes(text: str, block: str | None, config: Config) -> Sizes:
    """The sizes of `--sizes` and `--block-size`; percentages are of ResNet-18's generated weights.

    Raises:
        UserError: one is no size, stands there twice or makes no network smaller, or the block's is none of them.
    """
    from rpgmt.models.classifier import generated_weights

    generated = generated_weights(_model(config, "resnet18", "none").model)

    def parse(part: str, flag: str) -> int:
        try:
            size = parse_size(part, generated, name=flag)
        except ValueError as error:
            raise UserError(str(error)) from error
        if size >= generated:
            raise UserError(
                f"`{flag}` is {part}: ResNet-18 has {generated:,} weights to generate at --width {config.model.width:g}; give "
                "smaller banks, e.g. 20%,10%,2%"
            )
        return size

    sizes = tuple(parse(part.strip(), "--sizes") for part in text.split(","))
    if len(set(sizes)) < len(sizes):
        raise UserError(f"`--sizes` is {text!r}: give different sizes")
    middle = sorted(sizes)[len(sizes) // 2]
    chosen = parse(block, "--block-size") if block else middle
    if chosen not in sizes:
        raise UserError(f"`--block-size` is {block}: give one of --sizes, {text}")
    return Sizes(tuple(sorted(sizes, reverse=True)), middle, chosen)


def plan(config: Config, families: Sequence[str], sizes: Sizes, finetune: TrainConfig, equilibrium: TrainConfig) -> list[Row]:
    """The rows of the families, with those that they start from.

    Args:
        config: as given; networks and sharing are the rows' own.
        families: some of `ROWS`.
        sizes: of the banks.
        finetune: how rows are trained that start from a trained network.
        equilibrium: how the equilibrium network is trained.
    """
    from rpgmt.models.classifier import generated_weights, rpg_parameters

    middle = sizes.middle
    shared = _model(config, "resnet18", "rpg", middle)
    tuned = dataclasses.replace(shared, train=finetune)
    plain = dataclasses.replace(_model(config, "resnet18", "none"), train=finetune)
    equal = rpg_parameters(shared.model)
    bank, at = f"{GLOBAL}-{short(middle)}", short(middle)
    block = short(sizes.block)
    half = generated_weights(_model(config, "resnet34", "none").model) // 2
    rows = [
        Row(PLAIN, PLAIN, _model(config, "resnet18", "none")),
        Row(PLAIN_34, PLAIN_34, _model(config, "resnet34", "none")),
        Row(f"{NARROW}-{at}", NARROW, _model(config, "resnet18", "narrow", middle), middle),
        Row(TIED, TIED, _model(config, "resnet18", "tied")),
        *(Row(f"{GLOBAL}-{short(n)}", GLOBAL, _model(config, "resnet18", "rpg", n), n) for n in sizes.all),
        Row(f"{BLOCK}-{block}", BLOCK, _model(config, "resnet18", "rpg", sizes.block, "block"), sizes.block),
        Row(f"{GLOBAL_34}-{block}", GLOBAL_34, _model(config, "resnet34", "rpg", sizes.block), sizes.block),
        Row(HALF_34, HALF_34, _model(config, "resnet34", "rpg", half), half),
        Row(f"{PROJECTED}-{at}", PROJECTED, tuned, middle, PLAIN),
        Row(f"{EQUILIBRIUM}-{at}", EQUILIBRIUM, dataclasses.replace(shared, train=equilibrium), middle, None, equal),
        *(Row(f"{family}-{at}", family, plain, middle, PLAIN, equal) for family in PRUNED),
        Row(f"{PRUNED_BAKED}-{at}", PRUNED_BAKED, plain, middle, bank),
        Row(f"{PRUNED_BANK}-{at}", PRUNED_BANK, tuned, middle, bank),
        *(Row(f"{family}-{at}", family, shared, middle, bank) for family in QUANTIZED),
    ]
    chosen = {row.name for row in rows if row.family in families}
    chosen |= {row.source for row in rows if row.name in chosen and row.source}
    return [row for row in rows if row.name in chosen]


def short(size: int) -> str:
    """250000 → 250K, 36864 → 36864."""
    for unit, factor in (("M", 10**6), ("K", 10**3)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _model(config: Config, network: str, sharing: str, size: int | None = None, scope: str = "global") -> Config:
    changes: dict[str, Any] = {"network": network, "sharing": sharing, "rpg_scope": scope}
    if size is not None:
        changes["rpg_size"] = size
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))
