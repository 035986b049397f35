"""Configs in YAML whose scalars are those of YAML 1.2. PyYAML's own are those of 1.1.

In 1.1 ``1e-3`` is text, ``no`` a boolean, ``010`` eight and ``1:30`` ninety; all four are traps in a config.
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rpgmt.config.text_files import read_text
from rpgmt.errors import ConfigError, UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


MOST_BYTES, MOST_NODES, DEEPEST = 2**20, 50_000, 32
"""Of a file, of its values with all aliases written out, and of mappings and lists within one another."""


class Loader(yaml.SafeLoader):
    """Safe and within bounds: values are those of the core schema; tags, a key given twice and what grows are errors."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own name; filled below

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._composed = 0
        self._known: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise _error(f"tags, as {event.tag}, are not read: leave it out", event)
        if self._depth >= DEEPEST:
            raise _error(f"mappings and lists lie more than {DEEPEST} deep in one another", event)
        self._composed += 1
        if self._composed > MOST_NODES:
            raise _error(f"it holds more than {MOST_NODES:,} values", event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._known[id(node)] = self._extent(node, event)
        return node

    def _extent(self, node: Any, event: Any) -> tuple[int, int]:
        """Values and levels of a node with its aliases written out, which may make of ten lines a billion values."""
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._known:
                raise _error(f"the alias *{event.anchor} stands in what it stands for", event)
            count, levels = self._known[id(node)]
        elif isinstance(node, yaml.ScalarNode):
            if not node.value.isprintable() and any("\ud800" <= character <= "\udfff" for character in node.value):
                raise _error("text holds half of a character", event)
            count, levels = 1, 1
        else:
            parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
            inner = [self._known[id(part)] for part in parts]
            count, levels = 1 + sum(count for count, _ in inner), 1 + max((levels for _, levels in inner), default=0)
        if count > MOST_NODES:
            raise _error(f"it holds more than {MOST_NODES:,} values, all aliases written out", event)
        if self._depth + levels > DEEPEST:
            raise _error(f"mappings and lists lie more than {DEEPEST} deep in one another", event)
        return count, levels

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), keys[0])
            raise yaml.constructor.ConstructorError(None, None, f"`{twice}` stands twice", node.start_mark)
        return mapping


def _error(problem: str, place: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def _whole_number(loader: Loader, node: Any) -> int:
    if len(node.value) > 40:  # Python reads some thousand
        raise _error(f"a number of {len(node.value)} digits", node)
    return int(node.value)  # 010 is ten, not octal


class Dumper(yaml.SafeDumper):
    """Safe; lists stand on one line, and what ``Loader`` would read as something else is quoted."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


# The core schema of YAML 1.2, section 10.3, without hexadecimal and octal numbers.
for _class in (Loader, Dumper):
    for _tag, _pattern, _first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("null", r"~|null|Null|NULL|", "~nN"),
        ("int", r"[-+]?[0-9]+", "-+0123456789"),
        ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", None),
    ):
        _firsts = [*(_first or "-+.0123456789")] + ([""] if _tag == "null" else [])
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), _firsts)
Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)
Dumper.add_representer(list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True))


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds one mapping (an empty file is an empty one).

    Scalars are those of YAML 1.2: ``1e-3`` is a number, ``no`` is text, and a key given twice is an error. Tags are not read,
    and a file has bounds: `MOST_BYTES`, `MOST_NODES`, `DEEPEST`.

    Raises:
        ConfigError: no such file, not YAML, not a mapping, or beyond a bound; one line with the path.
    """
    path = Path(path)
    try:
        value = parse_yaml(read_text(path, MOST_BYTES))
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{place}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except UserError as error:
        raise ConfigError(str(error)) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds {reprlib.repr(value)}: must be a mapping of keys to values")
    return value


def parse_yaml(text: str) -> Any:
    """The value of a YAML document, by `Loader`.

    Raises:
        yaml.YAMLError: it is not YAML, or beyond a bound.
    """
    loader = Loader(text)
    try:
        return loader.get_single_data()
    except ValueError as error:  # PyYAML takes the numbers of characters for legal
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


def to_yaml(config: DataclassInstance, *, task: str | None = None) -> str:
    """Return the config as YAML that ``from_dict`` takes back; ``task`` becomes a first line ``task: …``."""
    plain = to_dict(config)
    return yaml.dump({"task": task, **plain} if task else plain, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)


def to_dict(config: DataclassInstance) -> dict[str, Any]:
    """Return the nested config as plain data: dicts, lists, text, numbers, booleans, None (so also JSON)."""
    return {field.name: to_plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def to_plain(value: Any) -> Any:
    """Return ``value`` with dataclasses and mappings as dicts, tuples as lists and paths as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
