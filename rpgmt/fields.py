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
from collections.abc import Iterable, Mapping
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
        """What the help writes for a value: ``rpg|tied|none``, N, X, PATH, or the name in capitals."""
        first = next(member for member in _members(self.annotation) if member is not type(None))
        words: dict[Any, str] = {tuple: "N,N", list: "N,N", dict: "NAME=N"}
        collection = words.get(get_origin(first))
        word = {int: "N", float: "X", Path: "PATH"}.get(first, self.flag.lstrip("-").upper().replace("-", "_"))
        return "|".join(self.choices) or collection or word

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
        """Return the value that ``text`` of the command line means; errors name the flag."""
        members = _members(self.annotation)
        value: Any = text
        if type(None) in members and text.lower() in ("null", "none"):
            value = None
        elif not self.takes_text and not self.choices:
            # Numbers and collections are YAML; `64,96` and `keypoints=17,depth=1` need no brackets.
            origin = get_origin(members[0])
            if origin in (tuple, list) and not text.startswith("["):
                text = f"[{text}]"
            elif origin is dict and not text.startswith("{"):
                text = "{" + text.replace("=", ": ") + "}"
            try:
                value = yaml.load(text, Loader)
            except yaml.YAMLError:
                value = text
        return self.check(value, self.flag)


def to_text(value: Any) -> str:
    """Return a field's value as the command line writes it; ``Leaf.parse`` reads it back."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


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
    bounds = _bounds(annotation)
    plain = _plain(annotation)
    return _PLURALS.get(plain, str(plain)) + (f", each {bounds}" if bounds else "")


def show(value: Any) -> str:
    """A value on one line, and not a long one."""
    text = repr(to_plain(value))
    return text if len(text) <= 60 else text[:57] + "..."
