"""The fields of a config: their types, bounds and help, read from the annotations of nested dataclasses.

A field is ``stages: Annotated[int, Field(ge=1, description="stages of refinement")] = 4``. From this one line come the
check of its value (by pydantic), the words that say what is legal, and its flag on the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from rpgmt.errors import UserError
from rpgmt.yaml12 import Loader

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class ConfigError(UserError):
    """A key or a value of a config is not legal."""


@dataclass(frozen=True)
class Flag:
    """Another name for a field on the command line: ``Annotated[str, Field(...), Flag("--data")]``."""

    name: str


@dataclass(frozen=True)
class Leaf:
    """One value of a nested config: ``path`` is e.g. ("model", "stages"), ``annotation`` its type with metadata."""

    path: tuple[str, ...]
    annotation: Any
    flag: str
    help: str

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def is_bool(self) -> bool:
        return _plain(self.annotation) is bool

    @property
    def legal(self) -> str:
        """What may stand here, in words: "a whole number, at least 1"."""
        return describe(self.annotation)

    @property
    def takes_text(self) -> bool:
        """Whether text (or a path) is legal, so that no quotes or brackets of YAML are looked for in it."""
        return any(member in (str, Path) for member in _members(self.annotation))

    @property
    def choices(self) -> tuple[str, ...]:
        """The legal words of a Literal, else nothing."""
        first = _members(self.annotation)[0]
        return tuple(map(str, get_args(first))) if get_origin(first) is Literal else ()

    @property
    def metavar(self) -> str:
        """What the help writes for a value: ``rpg|tied|none``, N, X, PATH, ``N,N``, ``NAME=X,...``, or the name in capitals."""
        word = _metavar(self.annotation)
        return self.flag.lstrip("-").upper().replace("-", "_") if word == "NAME" else word

    def get(self, config: DataclassInstance) -> Any:
        return functools.reduce(getattr, self.path, config)

    def check(self, value: Any, label: str | None = None) -> Any:
        """Return ``value``, as YAML gives it, as the field's type; a ConfigError calls it ``label`` (the key)."""
        label = label or self.name
        try:
            # JSON is the data model of YAML: strict, so that "3" is no number and 1 no boolean, while lists become
            # tuples and text becomes a path.
            return _adapter(self.annotation).validate_json(json.dumps(value, default=str), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
        except (TypeError, ValueError):  # not JSON: a recursive or otherwise strange value
            first = {"type": "", "loc": ()}  # type: ignore[typeddict-item]
        if first["type"] == "value_error":  # from a validator of ours: the whole line
            line = str(first["ctx"]["error"]).replace(f"`{self.name}`", f"`{label}`", 1)
            raise ConfigError(line)
        bounds = _bounds(self.annotation)
        out_of_bounds = first["type"].startswith(("greater_than", "less_than", "multiple_of")) and not first["loc"]
        raise ConfigError(f"`{label}` is {show(value)}: must be {bounds if out_of_bounds else self.legal}")

    def parse(self, text: str) -> Any:
        """Return the value that ``text`` of the command line means; errors name the flag.

        Collections need no brackets: ``64,96``, ``keypoints=17,depth=1``, and ``eye:ear,hip:knee`` for a list of pairs. In
        brackets they are YAML.
        """
        return self.check(_from_text(text, self.annotation), self.flag)


def to_text(value: Any) -> str:
    """Return a field's value as the command line writes it; ``Leaf.parse`` reads it back."""
    if isinstance(value, Mapping | list | tuple):
        signs = any(not text or text != text.strip() or set(text) & set(",:=[]{}") for text in _texts(value))
        return json.dumps(to_plain(value), ensure_ascii=False) if signs else _join(value, ",")
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _texts(value: Any) -> Iterator[str]:
    """The texts of all keys and values in a collection."""
    if isinstance(value, Mapping):
        yield from map(str, value)
        value = value.values()
    for item in value:
        yield from _texts(item) if isinstance(item, Mapping | list | tuple) else [to_text(item)]


def _join(value: Any, separator: str) -> str:
    if isinstance(value, Mapping):
        return separator.join(f"{key}={_join(item, ':')}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return separator.join(_join(item, ":") for item in value)
    return to_text(value)


def _from_text(text: str, annotation: Any, separator: str = ",") -> Any:
    """What text of the command line means, as plain data; text that means nothing stays, for the check to refuse."""
    members = _members(annotation)
    if type(None) in members and text.lower() in ("null", "none"):
        return None
    first = _first(annotation)
    origin, args = get_origin(first), get_args(first)
    if origin is Literal or any(member in (str, Path) for member in members):
        return text
    if origin in (tuple, list, dict) and not text.startswith(("[", "{")):
        parts = [part.strip() for part in text.split(separator)] if text.strip() else []
        if origin is dict:
            pairs = {name.strip(): value.strip() for name, sign, value in (part.partition("=") for part in parts) if sign}
            unique = len(pairs) == len(parts)
            return {name: _from_text(value, args[1], ":") for name, value in pairs.items()} if unique else text
        items = args if origin is tuple and args[-1] is not ... and len(args) == len(parts) else [args[0]] * len(parts)
        return [_from_text(part, item, ":") for part, item in zip(parts, items, strict=True)]
    try:
        return yaml.load(text, Loader)  # numbers and booleans are those of YAML
    except yaml.YAMLError:
        return text


@functools.cache
def leaves(cls: type[DataclassInstance]) -> tuple[Leaf, ...]:
    """All values of a nested config class, in order. Names and flags are unique (TypeError otherwise: our own bug)."""
    found: list[Leaf] = []
    for name, annotation in field_types(cls).items():
        if dataclasses.is_dataclass(annotation):
            found += [
                dataclasses.replace(leaf, path=(name, *leaf.path))
                for leaf in leaves(annotation)  # type: ignore[arg-type]
            ]
        else:
            metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
            info = next((m for m in metadata if isinstance(m, FieldInfo) and m.description), None)
            flag = next((m.name for m in metadata if isinstance(m, Flag)), "--" + name.replace("_", "-"))
            found.append(Leaf((name,), annotation, flag, (info and info.description) or ""))
    for attribute in ("name", "flag"):
        names = [getattr(leaf, attribute) for leaf in found]
        if twice := {n for n in names if names.count(n) > 1}:
            raise TypeError(f"{cls.__qualname__}: {attribute} used twice: {', '.join(sorted(twice))}")
    return tuple(found)


def did_you_mean(word: str, legal: Iterable[str]) -> str:
    """Return "did you mean `stages`? ", or nothing where no legal word is near."""
    near = difflib.get_close_matches(word, list(legal), n=1)
    return f"did you mean `{near[0]}`? " if near else ""


def to_plain(value: Any) -> Any:
    """Return ``value`` with dataclasses and mappings as dicts, tuples as lists and paths as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@functools.cache
def field_types(cls: type[DataclassInstance]) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))


def _plain(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _members(annotation: Any) -> list[Any]:
    """The members of a union, or the type alone, all without metadata."""
    plain = _plain(annotation)
    return [_plain(m) for m in get_args(plain)] if get_origin(plain) in (Union, types.UnionType) else [plain]


def _first(annotation: Any) -> Any:
    """The first member of a union that is not None, or the type alone."""
    return next(member for member in _members(annotation) if member is not type(None))


def _metavar(annotation: Any, separator: str = ",") -> str:
    first = _first(annotation)
    origin, args = get_origin(first), get_args(first)
    if origin is Literal:
        return "|".join(map(str, args))
    if origin is dict:
        return f"NAME={_metavar(args[1], ':')}{separator}..."
    if origin is tuple and args[-1] is not ...:
        return separator.join(_metavar(arg, ":") for arg in args)
    if origin in (tuple, list):
        return f"{_metavar(args[0], ':')}{separator}..."
    return {int: "N", float: "X", Path: "PATH"}.get(first, "NAME")


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts", Path: "paths", bool: "booleans"}
_BOUNDS = {
    "ge": "at least",
    "gt": "above",
    "le": "at most",
    "lt": "below",
    "multiple_of": "a multiple of",
    "min_length": "not fewer than",
}


def _bounds(annotation: Any) -> str:
    """The bounds in the metadata: "at least 1, below 10", or nothing."""
    metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    constraints = [c for m in metadata for c in (m.metadata if isinstance(m, FieldInfo) else [])]
    found = [f"{words} {getattr(c, name)}" for c in constraints for name, words in _BOUNDS.items() if hasattr(c, name)]
    return ", ".join(found)


def describe(annotation: Any) -> str:
    words = [_describe_one(member) for member in _members(annotation) if member is not type(None)]
    bounds = _bounds(annotation)
    text = " or ".join(words) + (f", {bounds}" if bounds else "")
    if type(None) in _members(annotation):
        text += ", or null" if bounds else " or null"
    return text


def _describe_one(plain: Any) -> str:
    origin, args = get_origin(plain), get_args(plain)
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin is dict:
        return f"a mapping of names to {_describe_many(args[1])}"
    if origin is tuple and args[-1] is not ...:
        return f"{len(args)} {_describe_many(args[0])}"
    if origin in (tuple, list):
        return f"a list of {_describe_many(args[0])}"
    return _WORDS.get(plain, getattr(plain, "__name__", str(plain)))


def _describe_many(annotation: Any) -> str:
    """Several of them, in words: "whole numbers, each at least 1", "groups of 2 texts"."""
    bounds = _bounds(annotation)
    first = _first(annotation)
    if get_origin(first) in (tuple, list):
        return "groups of " + _describe_one(first).removeprefix("a list of ")
    if get_origin(first) is Literal:
        return "words, each " + _describe_one(first)
    return _PLURALS.get(first, str(first)) + (f", each {bounds}" if bounds else "")


def show(value: Any) -> str:
    """A value on one line, and not a long one."""
    text = repr(to_plain(value))
    return text if len(text) <= 60 else text[:57] + "..."
