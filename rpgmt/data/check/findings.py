"""What a check found, counted by kind."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rpgmt.errors import one_line

EXAMPLES = 3
"""How many of a kind are shown."""


@dataclass
class Finding:
    """One kind of thing.

    Args:
        title: what it is, in the plural.
        refused: training would refuse the data set for it.
        count: of its cases; 0 of what is no case but a fact.
        examples: the first of them, a line each.
    """

    title: str
    refused: bool
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Findings:
    """Collects what is found."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, bool], Finding] = {}

    def refuse(self, title: str, example: str) -> None:
        """A case for which training would refuse the set."""
        self._add(title, True, example)

    def note(self, title: str, example: str) -> None:
        """A case that training takes as it is."""
        self._add(title, False, example)

    def fact(self, text: str) -> None:
        """A note that is no case of something."""
        text = one_line(text)
        self._found.setdefault((text, False), Finding(text, False))

    def _add(self, title: str, refused: bool, example: str) -> None:
        finding = self._found.setdefault((title, refused), Finding(title, refused))
        finding.count += 1
        text = one_line(example)
        if len(finding.examples) < EXAMPLES and text not in finding.examples:
            finding.examples.append(text)

    @property
    def refused(self) -> list[Finding]:
        return [finding for finding in self._found.values() if finding.refused]

    @property
    def notes(self) -> list[Finding]:
        return [finding for finding in self._found.values() if not finding.refused]

    def as_data(self) -> dict[str, Any]:
        """For JSON."""

        def rows(found: list[Finding]) -> list[dict[str, Any]]:
            return [{"title": one.title, "count": one.count, "examples": one.examples} for one in found]

        return {"refused": rows(self.refused), "notes": rows(self.notes)}

    @contextmanager
    def warnings_as_facts(self) -> Iterator[None]:
        """What the readers warn of becomes facts."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for warning in caught:
            self.fact(str(warning.message))
