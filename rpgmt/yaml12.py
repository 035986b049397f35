"""YAML whose scalars are those of YAML 1.2: files, and a loader and a dumper for PyYAML, whose own are those of 1.1.

In 1.1 ``1e-3`` is text, ``no`` a boolean, ``010`` eight and ``1:30`` ninety; all four are traps in a config.
"""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Any

import yaml

from rpgmt.errors import ConfigError


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
