"""What a model's parameters are: in a bank, generated from one, shared, or its own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from rpgmt.rpg.bank import Bank
from rpgmt.rpg.layers import GeneratedLayer, banks_of


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
    """

    name: str
    kind: str
    generated: int
    fixed: int
    shared: int
    source: str


@dataclass(frozen=True)
class Report:
    """The counts of a model.

    Args:
        rows: Its modules with parameters.
        banks: Bank name → (N, M).
        buffers: Elements of its buffers (statistics of norms).
    """

    rows: tuple[Row, ...]
    banks: dict[str, tuple[int, int]]
    buffers: int

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
    rows, seen = [], set()
    for name, module in model.named_modules():
        if isinstance(module, Bank):
            continue
        generated, source = 0, reasons.get(name, "")
        if isinstance(module, GeneratedLayer):
            generated = module.bank.layout.segments[module.segment].numel  # counted without being made
            source = bank_names[id(module.bank)]
        fixed = shared = 0
        for parameter in module.parameters(recurse=False):
            if id(parameter) in seen:
                shared += parameter.numel()
            elif parameter.requires_grad:
                fixed += parameter.numel()
            seen.add(id(parameter))
        if generated or fixed or shared:
            rows.append(Row(name, type(module).__name__, generated, fixed, shared, source))
    return Report(
        tuple(rows),
        {name: (bank.size, bank.generated) for name, bank in banks.items()},
        sum(buffer.numel() for buffer in model.buffers()),
    )
