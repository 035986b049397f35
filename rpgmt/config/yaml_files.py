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

from rpgmt.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Loader(yaml.SafeLoader):
    """Safe; a key that stands twice in a mapping is an error."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own name; filled below

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), keys[0])
            raise yaml.constructor.ConstructorError(None, None, f"`{twice}` stands twice", node.start_mark)
        return mapping


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
Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))  # 010 is ten, not octal
Dumper.add_representer(list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True))


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds one mapping (an empty file is an empty one).

    Scalars are those of YAML 1.2: ``1e-3`` is a number, ``no`` is text, and a key given twice is an error.

    Raises:
        ConfigError: no such file, not YAML, or not a mapping; one line with the path.
    """
    path = Path(path)
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not YAML: not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{place}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds {reprlib.repr(value)}: must be a mapping of keys to values")
    return value


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
