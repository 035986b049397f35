"""Configs: nested dataclasses whose fields say all that there is to know of a value.

A field is ``stages: Annotated[int, Field(ge=1, description="stages of refinement")] = 4``. From this one line come the
check of its value (by pydantic), the words that say what is legal, and its flag on the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

import yaml
from pydantic import BeforeValidator, ConfigDict, Strict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from rpgmt.config.yaml_files import parse_yaml, to_plain
from rpgmt.errors import ConfigError

C = TypeVar("C")


@dataclass(frozen=True)
class Flag:
    """A field on the command line: ``Annotated[str, Field(...), Flag("--data", everyday=True)]``.

    Args:
        name: of its flag; empty: the field's own.
        everyday: the flag is in the short help.
    """

    name: str = ""
    everyday: bool = False


EVERYDAY = Flag(everyday=True)


# --------------------------------------------------------------------------------------------------------- checked


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
def config_class(cls: type[C]) -> type[C]:
    """Make ``cls`` a frozen, keyword-only dataclass that checks its values whenever one is made, by ``replace`` too.

    What is not legal is a ConfigError, as is a ValueError of its ``__post_init__``. A field whose type is another config
    class is a section; it takes a config or a mapping of keys to values.
    """
    made: Any = dataclass(frozen=True, kw_only=True, init=False)(cls)
    made.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    def __init__(self: Any, **values: Any) -> None:  # noqa: N807
        vars(self).update(vars(_validate(made, values)))

    def read_types(cls: Any, source: Any, handler: Callable[[Any], Any]) -> Any:
        _types(source)
        return handler(source)

    made.__init__ = __init__
    made.__get_pydantic_core_schema__ = classmethod(read_types)  # pydantic calls it before it looks at the fields
    return made


@functools.cache
def _types(cls: Any) -> dict[str, Any]:
    """Give the fields their exact types, and return them. Only when they are needed: each class takes some milliseconds."""
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        field.type = _exact(hints[field.name])
    return {field.name: field.type for field in dataclasses.fields(cls)}


def _exact(annotation: Any) -> Any:
    """The type without pydantic's conversions: "3" is no number and 1 no boolean.

    What stays are those between Python and YAML: tuples and lists are one, text becomes a path, and int serves as float.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in (bool, int, float, str):
        return Annotated[annotation, Strict()]
    if origin is Annotated:
        return Annotated[(_exact(args[0]), *args[1:])]
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_exact, args))]  # noqa: UP007 - made at run time
    if origin is dict:
        return dict[tuple(map(_exact, args))]  # type: ignore[misc]
    if origin in (tuple, list):
        convert = BeforeValidator(lambda value: origin(value) if isinstance(value, tuple | list) else value)
        return Annotated[origin[tuple(map(_exact, args))], Strict(), convert]
    return annotation


def from_dict(cls: type[C], mapping: Mapping[str, Any], base: C | None = None, *, flags: bool = False) -> C:
    """Return a config of class ``cls``.

    Args:
        cls: a config class.
        mapping: nested mapping, as YAML gives it, with only the keys to set; a value replaces the whole of a field.
        base: the config whose values hold where ``mapping`` has none (default: the defaults of ``cls``).
        flags: the values come from the command line: errors call a field by its flag.

    Raises:
        ConfigError: an unknown key, a wrong type or an illegal value; one line with key, value and what is legal.
    """
    return _validate(cls, _merge(base, mapping), flags)


def _merge(old: Any, new: Any) -> Any:
    """``new``; where both are sections, with the values of ``old`` for the keys that ``new`` has not."""
    if not dataclasses.is_dataclass(old) or not isinstance(new, Mapping):
        return new
    values = {field.name: getattr(old, field.name) for field in dataclasses.fields(old)}
    return values | {key: _merge(values.get(key), value) for key, value in new.items()}


def _validate(cls: Any, values: Any, flags: bool = False) -> Any:
    try:
        return _adapter(cls).validate_python(values)
    except ValidationError as error:
        raise ConfigError(_line(cls, values, error, flags)) from None


@functools.cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _line(cls: Any, values: Any, error: ValidationError, flags: bool) -> str:
    """The first of pydantic's errors in our words. A misspelt key comes before the one that it leaves missing."""
    order = {"unexpected_keyword_argument": 0, "invalid_key": 0, "missing": 2}
    first = min(error.errors(include_url=False), key=lambda each: order.get(each["type"], 1))
    kind, place = first["type"], first["loc"]
    if order.get(kind) == 0:
        return _unknown_key(cls, *place)
    leaf = next((leaf for leaf in leaves(cls) if leaf.path == place[: len(leaf.path)]), None)
    path = leaf.path if leaf else place  # without a leaf it is a section's; a place within a value is longer
    name = f"`{leaf.flag if leaf and flags else path[-1]}`" if path else "the config"
    if kind == "assertion_error":  # a bug of ours
        raise first["ctx"]["error"]
    if kind == "value_error":  # from a check of ours: the whole line
        line = str(first["ctx"]["error"])
        return line.replace(f"`{leaf.name}`", name, 1) if leaf else line
    legal = leaf.kind.one if leaf else _SECTION.one
    if kind == "missing" and place == path:
        return f"{name} is missing{f' in {path[-2]}' if path[1:] else ''}: must be {legal}"
    if leaf and place == path and kind.startswith(("greater_than", "less_than", "multiple_of")):
        legal = leaf.kind.bounds
    value = functools.reduce(lambda section, key: section[key], path, values)
    return f"{name} is {show(value)}: must be {legal}"


def _unknown_key(cls: Any, *place: Any) -> str:
    *sections, key = place
    line = f"`{key}` is not a key of {sections[-1] if sections else 'the config'}: "
    for leaf in leaves(cls):
        if leaf.name == key:
            return line + ("it belongs " + (f"under `{leaf.path[-2]}`" if leaf.path[1:] else "at the top"))
    for section in sections:
        cls = _types(cls)[section]
    legal = list(_types(cls))
    return f"{line}{did_you_mean(str(key), legal)}legal: {', '.join(legal)}"


def did_you_mean(word: str, legal: Iterable[str]) -> str:
    """Return "did you mean `stages`? ", or nothing where no legal word is near."""
    near = difflib.get_close_matches(word, list(legal), n=1)
    return f"did you mean `{near[0]}`? " if near else ""


def show(value: Any) -> str:
    """A value on one line, and not a long one."""
    text = repr(value if dataclasses.is_dataclass(value) else to_plain(value))
    return text if len(text) <= 60 else text[:57] + "..."


# ------------------------------------------------------------------------------------------- words and the command line


@dataclass(frozen=True)
class Kind:
    """A type, as people write and call its values."""

    one: str
    """"a whole number, at least 1"."""
    many: str
    """"whole numbers, each at least 1"."""
    metavar: str
    """What stands for a value in the help: N, X, PATH, ``rpg|tied|none``, ``N,N``, ``NAME=X,...``."""
    bounds: str = ""
    is_text: bool = False
    """Text is legal: no numbers, quotes or brackets are looked for in it."""
    nullable: bool = False
    item: Kind | None = None
    """Of a collection: the kind of its values."""
    named: bool = False
    """The collection is a mapping."""


_SCALARS = {
    bool: Kind("true or false", "booleans", ""),
    int: Kind("a whole number", "whole numbers", "N"),
    float: Kind("a number", "numbers", "X"),
    str: Kind("text", "texts", "NAME", is_text=True),
    Path: Kind("a path", "paths", "PATH", is_text=True),
}
_SECTION = Kind("a mapping of keys to values", "mappings of keys to values", "")
_BOUNDS = {
    "ge": "at least",
    "gt": "above",
    "le": "at most",
    "lt": "below",
    "multiple_of": "a multiple of",
    "min_length": "not fewer than",
}


def _kind(annotation: Any, separator: str = ",") -> Kind:
    info = FieldInfo.from_annotation(annotation)
    origin, args = get_origin(info.annotation), get_args(info.annotation)
    if origin in (Union, types.UnionType):
        members = [_kind(arg, separator) for arg in args if arg is not type(None)]
        either, is_text = " or ".join(member.one for member in members), any(member.is_text for member in members)
        kind = dataclasses.replace(members[0], one=either, is_text=is_text, nullable=type(None) in args)
    elif origin is Literal:
        words = ", ".join(map(str, args))
        kind = Kind(f"one of {words}", f"words, each one of {words}", "|".join(map(str, args)), is_text=True)
    elif origin is dict:
        item = _kind(args[1], ":")
        names = f"of names to {item.many}"
        kind = Kind(f"a mapping {names}", f"mappings {names}", f"NAME={item.metavar}{separator}...", item=item, named=True)
    elif origin is not None:
        item = _kind(args[0], ":")
        count = len(args) if args[1:] and args[-1] is not ... else 0
        several = f"{count} {item.many}" if count else item.many
        metavar = separator.join([item.metavar] * count or [item.metavar, "..."])
        kind = Kind(several if count else f"a list of {several}", f"groups of {several}", metavar, item=item)
    else:
        kind = _SCALARS.get(info.annotation, _SECTION)  # type: ignore[arg-type]
    found = [f"{words} {getattr(m, name)}" for m in info.metadata for name, words in _BOUNDS.items() if hasattr(m, name)]
    if bounds := ", ".join(found):
        kind = dataclasses.replace(kind, one=f"{kind.one}, {bounds}", many=f"{kind.many}, each {bounds}", bounds=bounds)
    return dataclasses.replace(kind, one=kind.one + (", or null" if bounds else " or null")) if kind.nullable else kind


@dataclass(frozen=True)
class Leaf:
    """One value of a nested config: ``path`` is e.g. ("model", "stages")."""

    path: tuple[str, ...]
    flag: str
    description: str
    kind: Kind
    everyday: bool = False

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def is_bool(self) -> bool:
        return self.kind == _SCALARS[bool]

    @property
    def metavar(self) -> str:
        return self.flag.lstrip("-").upper().replace("-", "_") if self.kind.metavar == "NAME" else self.kind.metavar

    @property
    def help(self) -> str:
        """The field's line of help, and what is legal where ``metavar`` does not say it."""
        return self.description if self.is_bool or self.kind.is_text else f"{self.description}; {self.kind.one}"

    def get(self, config: Any) -> Any:
        return functools.reduce(getattr, self.path, config)

    def from_text(self, text: str) -> Any:
        """Return what ``text`` of the command line means, as plain data; text that means nothing stays what it is.

        Collections need no brackets: ``64,96``, ``keypoints=17,depth=1``, and ``eye:ear,hip:knee`` for a list of pairs. In
        brackets they are YAML.
        """
        return _from_text(text, self.kind, ",")

    def to_text(self, value: Any) -> str:
        """Return a value of the field as the command line writes it; ``from_text`` reads it back."""
        plain = to_plain(value)
        text = _to_text(plain, ",")
        ambiguous = isinstance(plain, dict | list) and self.from_text(text) != plain
        return json.dumps(plain, ensure_ascii=False) if ambiguous else text


@functools.cache
def leaves(cls: Any) -> tuple[Leaf, ...]:
    """All values of a nested config class, in order. Names and flags are unique (TypeError otherwise: our own bug)."""
    found: list[Leaf] = []
    for name, annotation in _types(cls).items():
        if hasattr(annotation, "__dataclass_fields__"):
            found += [dataclasses.replace(leaf, path=(name, *leaf.path)) for leaf in leaves(annotation)]
        else:
            info = FieldInfo.from_annotation(annotation)
            own = next((m for m in info.metadata if isinstance(m, Flag)), Flag())
            flag = own.name or "--" + name.replace("_", "-")
            found.append(Leaf((name,), flag, info.description or "", _kind(annotation), own.everyday))
    for attribute in ("name", "flag"):
        names = [getattr(leaf, attribute) for leaf in found]
        if twice := {n for n in names if names.count(n) > 1}:
            raise TypeError(f"{cls.__qualname__}: {attribute} used twice: {', '.join(sorted(twice))}")
    return tuple(found)


def _from_text(text: str, kind: Kind, separator: str) -> Any:
    if kind.nullable and text.lower() in ("null", "none"):
        return None
    if kind.is_text:
        return text
    if kind.item is None or text.startswith(("[", "{")):
        try:
            return parse_yaml(text)  # numbers and booleans are those of YAML
        except yaml.YAMLError:
            return text
    parts = [part.strip() for part in text.split(separator)] if text.strip() else []
    if not kind.named:
        return [_from_text(part, kind.item, ":") for part in parts]
    pairs = {name.strip(): value.strip() for name, sign, value in (part.partition("=") for part in parts) if sign}
    return {name: _from_text(value, kind.item, ":") for name, value in pairs.items()} if len(pairs) == len(parts) else text


def _to_text(plain: Any, separator: str) -> str:
    if isinstance(plain, dict):
        return separator.join(f"{key}={_to_text(item, ':')}" for key, item in plain.items())
    if isinstance(plain, list):
        return separator.join(_to_text(item, ":") for item in plain)
    return "null" if plain is None else str(plain).lower() if isinstance(plain, bool) else str(plain)
