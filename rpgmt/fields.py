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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

import yaml
from pydantic import BeforeValidator, ConfigDict, Strict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from rpgmt.errors import ConfigError
from rpgmt.yaml12 import Loader, to_plain

C = TypeVar("C")


@dataclass(frozen=True)
class Flag:
    """Another name for a field on the command line: ``Annotated[str, Field(...), Flag("--data")]``."""

    name: str


# --------------------------------------------------------------------------------------------------------- checked


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
def config_class(cls: type[C]) -> type[C]:
    """Make ``cls`` a frozen, keyword-only dataclass that checks its values whenever one is made, by ``replace`` too.

    What is not legal is a ConfigError, as is a ValueError of its ``__post_init__``. A field whose type is another config
    class is a section; it takes a config or a mapping of keys to values.
    """
    hints = get_type_hints(cls, include_extras=True)
    cls.__annotations__ = {name: _exact(hints[name]) for name in cls.__annotations__}
    made: Any = dataclass(frozen=True, kw_only=True, init=False)(cls)
    made.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    def __init__(self: Any, **values: Any) -> None:  # noqa: N807
        vars(self).update(vars(_validate(made, values)))

    made.__init__ = __init__
    checked: type[C] = made
    return checked


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


def from_dict(cls: type[C], mapping: Any, base: C | None = None, *, flags: bool = False) -> C:
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


@functools.cache  # and made when it is needed: it takes some milliseconds
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
    if kind == "value_error":  # from a check of ours: the whole line
        line = str(first["ctx"]["error"])
        return line.replace(f"`{leaf.name}`", name, 1) if leaf else line
    legal = leaf.legal if leaf else "a mapping of keys to values"
    if kind == "missing" and place == path:
        return f"{name} is missing{f' in {path[-2]}' if path[1:] else ''}: must be {legal}"
    if leaf and place == path and kind.startswith(("greater_than", "less_than", "multiple_of")):
        legal = leaf.bounds
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
class Leaf:
    """One value of a nested config: ``path`` is e.g. ("model", "stages")."""

    path: tuple[str, ...]
    info: FieldInfo

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def flag(self) -> str:
        return next((m.name for m in self.info.metadata if isinstance(m, Flag)), "--" + self.name.replace("_", "-"))

    @property
    def is_bool(self) -> bool:
        return self.info.annotation is bool

    @property
    def legal(self) -> str:
        """What may stand here, in words: "a whole number, at least 1"."""
        return _describe(self.info.annotation, self.bounds)[0]

    @property
    def bounds(self) -> str:
        return _bounds(self.info.metadata)

    @property
    def metavar(self) -> str:
        """What the help writes for a value: ``rpg|tied|none``, N, X, PATH, ``N,N``, ``NAME=X,...``, or the name in capitals."""
        word = _metavar(self.info.annotation)
        return self.flag.lstrip("-").upper().replace("-", "_") if word == "NAME" else word

    @property
    def help(self) -> str:
        """The field's line of help, and what is legal where ``metavar`` does not say it."""
        described = self.is_bool or _is_text(self.info.annotation)
        return self.info.description or "" if described else f"{self.info.description}; {self.legal}"

    def get(self, config: Any) -> Any:
        return functools.reduce(getattr, self.path, config)

    def from_text(self, text: str) -> Any:
        """Return what ``text`` of the command line means, as plain data; text that means nothing stays what it is.

        Collections need no brackets: ``64,96``, ``keypoints=17,depth=1``, and ``eye:ear,hip:knee`` for a list of pairs. In
        brackets they are YAML.
        """
        return _from_text(text, self.info.annotation, ",")

    def to_text(self, value: Any) -> str:
        """Return a value of the field as the command line writes it; ``from_text`` reads it back."""
        plain = to_plain(value)
        text = _to_text(plain, ",")
        ambiguous = isinstance(plain, dict | list) and self.from_text(text) != plain
        return json.dumps(plain, ensure_ascii=False) if ambiguous else text


def _types(cls: Any) -> dict[str, Any]:
    return {field.name: field.type for field in dataclasses.fields(cls)}


@functools.cache
def leaves(cls: Any) -> tuple[Leaf, ...]:
    """All values of a nested config class, in order. Names and flags are unique (TypeError otherwise: our own bug)."""
    found: list[Leaf] = []
    for name, kind in _types(cls).items():
        inner = leaves(kind) if hasattr(kind, "__dataclass_fields__") else [Leaf((), FieldInfo.from_annotation(kind))]
        found += [Leaf((name, *leaf.path), leaf.info) for leaf in inner]
    for attribute in ("name", "flag"):
        names = [getattr(leaf, attribute) for leaf in found]
        if twice := {n for n in names if names.count(n) > 1}:
            raise TypeError(f"{cls.__qualname__}: {attribute} used twice: {', '.join(sorted(twice))}")
    return tuple(found)


def _kinds(annotation: Any) -> tuple[list[Any], bool]:
    """The members of a union, or the type alone, all without metadata; and whether None is one of them."""
    plain = FieldInfo.from_annotation(annotation).annotation
    members = get_args(plain) if get_origin(plain) in (Union, types.UnionType) else [plain]
    kinds = [get_args(member)[0] if get_origin(member) is Annotated else member for member in members]
    return [kind for kind in kinds if kind is not type(None)], type(None) in kinds


def _is_text(annotation: Any) -> bool:
    """Whether text may stand here, so that no quotes or brackets of YAML are looked for in it."""
    return any(kind in (str, Path) or get_origin(kind) is Literal for kind in _kinds(annotation)[0])


def _from_text(text: str, annotation: Any, separator: str) -> Any:
    (kind, *_), nullable = _kinds(annotation)
    if nullable and text.lower() in ("null", "none"):
        return None
    if _is_text(annotation):
        return text
    args = get_args(kind)
    if not args or text.startswith(("[", "{")):
        try:
            return yaml.load(text, Loader)  # numbers and booleans are those of YAML
        except yaml.YAMLError:
            return text
    parts = [part.strip() for part in text.split(separator)] if text.strip() else []
    if get_origin(kind) is not dict:
        return [_from_text(part, args[0], ":") for part in parts]
    pairs = {name.strip(): value.strip() for name, sign, value in (part.partition("=") for part in parts) if sign}
    return {name: _from_text(value, args[1], ":") for name, value in pairs.items()} if len(pairs) == len(parts) else text


def _to_text(plain: Any, separator: str) -> str:
    if isinstance(plain, dict):
        return separator.join(f"{key}={_to_text(item, ':')}" for key, item in plain.items())
    if isinstance(plain, list):
        return separator.join(_to_text(item, ":") for item in plain)
    return "null" if plain is None else str(plain).lower() if isinstance(plain, bool) else str(plain)


def _metavar(annotation: Any, separator: str = ",") -> str:
    kind = _kinds(annotation)[0][0]
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "|".join(map(str, args))
    if origin is dict:
        return f"NAME={_metavar(args[1], ':')}{separator}..."
    if origin is not None:
        return separator.join("..." if arg is ... else _metavar(arg, ":") for arg in (args if args[1:] else (*args, ...)))
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "NAME")


_WORDS = {  # for one, for several
    bool: ("true or false", "booleans"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
}
_BOUNDS = {
    "ge": "at least",
    "gt": "above",
    "le": "at most",
    "lt": "below",
    "multiple_of": "a multiple of",
    "min_length": "not fewer than",
}


def _bounds(metadata: Sequence[Any]) -> str:
    """The bounds in the metadata: "at least 1, below 10", or nothing."""
    return ", ".join(f"{words} {getattr(m, name)}" for m in metadata for name, words in _BOUNDS.items() if hasattr(m, name))


def _describe(annotation: Any, bounds: str) -> tuple[str, str]:
    """What is legal, for one and for several: "a whole number, at least 1" and "whole numbers, each at least 1"."""
    kinds, nullable = _kinds(annotation)
    words = [_describe_kind(kind) for kind in kinds]
    one = " or ".join(word for word, _ in words) + (f", {bounds}" if bounds else "")
    return one + (", or null" if bounds else " or null") * nullable, words[0][1] + (f", each {bounds}" if bounds else "")


def _describe_kind(kind: Any) -> tuple[str, str]:
    origin, args = get_origin(kind), get_args(kind)
    if origin is None:
        return _WORDS[kind]
    if origin is Literal:
        words = ", ".join(map(str, args))
        return f"one of {words}", f"words, each one of {words}"
    item = args[1] if origin is dict else args[0]
    _, items = _describe(item, _bounds(FieldInfo.from_annotation(item).metadata))
    if origin is dict:
        return f"a mapping of names to {items}", f"mappings of names to {items}"
    if args[1:] and args[-1] is not ...:
        return f"{len(args)} {items}", f"groups of {len(args)} {items}"
    return f"a list of {items}", f"groups of {items}"
