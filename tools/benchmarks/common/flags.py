"""Flags that several benchmarks have, and the checks of their values."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Collection

from rpgmt import cli
from rpgmt.config.validation import did_you_mean
from rpgmt.errors import UserError


def add_json(parser: ArgumentParser) -> None:
    """`--json FILE`, another place for the figures."""
    parser.add_argument("--json", type=cli.output_file, metavar="FILE", help="write the figures here, too")


def add_rounds(parser: ArgumentParser, what: str) -> None:
    """`--rounds`, how often everything is timed; `what` says what a round is."""
    parser.add_argument("--rounds", type=int, default=20, help=f"{what} (default: 20)")


def check_positive(flag: str, value: int, least: int = 1) -> None:
    """Refuses a number that leaves nothing to do.

    Raises:
        UserError: it is less than `least`.
    """
    if value < least:
        raise UserError(f"`{flag}` is {value}: give at least {least}")


def read_numbers(flag: str, text: str, what: str, *, least: int = 0, most: int | None = None) -> list[int]:
    """The numbers of a comma-separated list.

    Args:
        flag: whose value it is.
        text: the value.
        what: they must be, after "give different": the way out that the error names.
        least: the smallest that is allowed.
        most: the largest, if there is one.

    Raises:
        UserError: they are no different whole numbers in that range.
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if part.isdecimal()]
    allowed = [number for number in numbers if least <= number and (most is None or number <= most)]
    if len(set(allowed)) < len(parts):
        raise UserError(f"`{flag}` is {text!r}: give different {what}")
    return numbers


def read_names(flag: str, text: str, known: Collection[str]) -> list[str]:
    """The names of a comma-separated list, in the order of those that are known.

    Raises:
        UserError: one is not known.
    """
    chosen = [name.strip() for name in text.split(",")]
    for name in chosen:
        if name not in known:
            raise UserError(f"`{flag}` is {text!r}: {did_you_mean(name, known)}{flag.lstrip('-')}: {', '.join(known)}")
    return [name for name in known if name in chosen]
