"""What a model's parameters are: in a bank, generated from one, shared, or its own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from rpgmt.rpg.bank import Bank
from rpgmt.rpg.layers import GeneratedLayer, banks_of
from rpgmt.rpg.learned_signs import SignedConv2d, stored_numbers

SIGNED = "learned signs"
"""Stands in a report for the bank of layers that learn signs: their magnitudes, and a number for 32 signs."""

_REST = "biases and the like of generated layers"
_CONSEQUENCES = {
    "drawn anew": ', they are lost; init="project" keeps what it can',
    "projected": ", the generated ones are the nearest to them",
}
_LABEL = 48  # characters: the table is 80 wide


@dataclass(frozen=True)
class Row:
    """One module that has or generates parameters.

    Args:
        name: Its name in the model.
        kind: Its class.
        generated: Weights that it generates.
        fixed: Parameters of its own, trained, counted at the first module that holds them.
        shared: Parameters that an earlier module holds as well.
        source: The bank that its weight comes from, or why the module is not generated.
        frozen: Parameters of its own that are not trained, counted as `fixed`.
    """

    name: str
    kind: str
    generated: int
    fixed: int
    shared: int
    source: str
    frozen: int = 0


@dataclass(frozen=True)
class Report:
    """The counts of a model.

    Args:
        rows: Its modules with parameters.
        banks: Bank name → (N, M).
        buffers: Elements of its buffers (statistics of norms).
        start: What `convert` did to the weights that were there: "drawn anew", "projected" or "kept exactly"; several after
            several conversions, empty where there was none.
    """

    rows: tuple[Row, ...]
    banks: dict[str, tuple[int, int]]
    buffers: int
    start: str = ""

    @property
    def bank(self) -> int:
        """N, the parameters of all banks together."""
        return sum(size for size, _ in self.banks.values())

    @property
    def generated(self) -> int:
        """M, the weights that the banks make."""
        return sum(row.generated for row in self.rows)

    @property
    def fixed(self) -> int:
        """Trained parameters outside of the banks."""
        return sum(row.fixed for row in self.rows)

    @property
    def trainable(self) -> int:
        """N + fixed."""
        return self.bank + self.fixed

    @property
    def converted(self) -> list[str]:
        """Names of the generated layers."""
        return [row.name for row in self.rows if row.generated]

    @property
    def left(self) -> dict[str, str]:
        """Names of the other modules with parameters, and why they are not generated."""
        return {row.name: row.source for row in self.rows if not row.generated}

    @property
    def signed(self) -> int:
        """Of the generated weights those with learned signs: they are trained as in a plain network, and stored as N."""
        return sum(row.generated for row in self.rows if row.source == SIGNED)

    @property
    def frozen(self) -> int:
        """Parameters that are not trained."""
        return sum(row.frozen for row in self.rows)

    def __str__(self) -> str:
        """A table: what is generated, what was left and why, largest first, and what it saves."""
        plain = self.generated + self.fixed + self.frozen
        kept: dict[str, tuple[int, int]] = {}
        for row in self.rows:
            if own := row.fixed + row.frozen:
                reason = _REST if row.generated else row.source or "no bank"
                count, layers = kept.get(reason, (0, 0))
                kept[reason] = count + own, layers + 1
        lines = [("", "parameters", "%", "layers")]

        def add(label: str, count: int, layers: int | None = None) -> None:
            lines.append((_short(label), f"{count:,}", f"{count / max(1, plain):.1%}", "" if layers is None else f"{layers:,}"))

        add("generated, M", self.generated, len(self.converted))
        add("left", self.fixed + self.frozen, sum(layers for _, layers in kept.values()))
        for reason, (count, layers) in sorted(kept.items(), key=lambda item: -item[1][0]):
            add(f"  {reason}", count, layers)
        add("the plain network", plain)
        banks = "magnitudes and signs" if SIGNED in self.banks else "banks" if len(self.banks) != 1 else "bank"
        add(f"{banks}, N", self.bank)
        add("stored, N + fixed" if self.signed else "trained, N + fixed", self.trainable)
        first = max(len(label) for label, *_ in lines)
        table = [f"{label:<{first}} {count:>14} {part:>7} {layers:>7}".rstrip() for label, count, part, layers in lines]
        if self.start:
            table.append(f"weights before: {self.start}{_CONSEQUENCES.get(self.start, '')}")
        unused = sum(max(0, size - generated) for size, generated in self.banks.values())
        return "\n".join(table + [f"{unused:,} of the N make no weight: there are more than weights"] * (unused > 0))


def report(model: nn.Module) -> Report:
    """Counts a model's parameters by module and bank.

    Args:
        model: Any module, converted or not.

    Raises:
        ValueError: A generated layer draws on a bank that is not part of the model.
    """
    banks = banks_of(model)
    bank_names = {id(bank): name for name, bank in banks.items()}
    reasons: dict[str, str] = {}
    for bank in banks.values():
        reasons |= bank.left
    bank_sizes = {name: (bank.size, bank.generated) for name, bank in banks.items()}
    rows, seen = [], set()
    for name, module in model.named_modules():
        if isinstance(module, Bank):
            continue
        generated, source = 0, reasons.get(name, "")
        if isinstance(module, GeneratedLayer):
            # Counted without being made.
            generated = sum(module.bank.layout.segments[segment].numel for segment in module.segments.values())
            source = bank_names[id(module.bank)]
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, SignedConv2d):
            generated, source = module.weight.numel(), SIGNED
            own.pop("weight", None)
            size, made = bank_sizes.get(SIGNED, (0, 0))
            bank_sizes[SIGNED] = size + stored_numbers(module), made + generated
        fixed = shared = frozen = 0
        for parameter in own.values():
            if id(parameter) in seen:
                shared += parameter.numel()
            elif parameter.requires_grad:
                fixed += parameter.numel()
            else:
                frozen += parameter.numel()
            seen.add(id(parameter))
        if generated or fixed or shared or frozen:
            rows.append(Row(name, type(module).__name__, generated, fixed, shared, source, frozen))
    return Report(
        tuple(rows),
        bank_sizes,
        sum(_stored_buffers(model).values()),
        ", ".join(dict.fromkeys(bank.start for bank in banks.values() if bank.start)),
    )


def _stored_buffers(model: nn.Module) -> dict[int, int]:
    """Elements of the buffers that a file holds, by their ids: a shared one is one."""
    return {
        id(buffer): buffer.numel()
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }


def _short(label: str) -> str:
    return label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…"
