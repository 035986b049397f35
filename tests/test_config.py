from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field

import tasks
from rpgmt.cli import Parser, find_tasks, parse_overrides
from rpgmt.config import (
    BalanceConfig,
    ConfigError,
    Flag,
    ModelConfig,
    TrainConfig,
    config_class,
    from_dict,
    load_yaml,
    to_dict,
    to_yaml,
)
from rpgmt.config.presets import CONFIGS, load_preset
from rpgmt.config.validation import Leaf, leaves
from rpgmt.config.yaml_files import Dumper, parse_yaml, to_plain


@config_class
class DataConfig:
    name: Annotated[Literal["synthetic", "coco"], Field(description="data set"), Flag("--data")] = "synthetic"
    root: Annotated[Path | None, Field(description="folder of the data set"), Flag("--data-root")] = None
    classes: Annotated[list[str], Field(description="classes to keep")] = field(default_factory=list)


@config_class
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: Annotated[Literal["cross_entropy", "mse"], Field(description="loss")] = "mse"
    train: TrainConfig = field(default_factory=TrainConfig)


OTHER = Config(
    model=ModelConfig(stages=2, sharing="none", rpg_size="25%", heads={"keypoints": 3, "yes": 1}, input_size=(64, 96)),
    data=DataConfig(name="coco", root=Path("a folder/no"), classes=["no", "1e-3", "null", "7", "a, b: c"]),
    train=TrainConfig(lr=1e-5, max_steps=7, clip_norm=1e20, precision="16", resume=True, milestones=(), out=Path("1")),
)


def load(text: str) -> Any:
    return parse_yaml(text)


def from_flags(cls: Any, *words: str) -> Any:
    sections = [field.name for field in dataclasses.fields(cls)]
    return parse_overrides(Parser(prog="tool.py"), words, cls, cls(), sections)[1]


def to_flags(config: Any) -> list[str]:
    """The command line that gives all values of a config."""
    words = []
    for leaf in leaves(type(config)):
        value = leaf.get(config)
        words.append(
            (leaf.flag if value else "--no-" + leaf.flag[2:]) if leaf.is_bool else f"{leaf.flag}={leaf.to_text(value)}"
        )
    return words


def parsed(cls: Any, flag: str, text: str) -> Any:
    """The value of a field whose flag has this text."""
    return next(leaf for leaf in leaves(cls) if leaf.flag == flag).get(from_flags(cls, f"{flag}={text}"))


@pytest.mark.parametrize("config", [Config(), OTHER], ids=["defaults", "other"])
def test_yaml_and_json_give_the_same_config_back(config: Config, tmp_path: Path) -> None:
    text = to_yaml(config)
    assert "!" not in text
    assert from_dict(Config, load(text)) == config
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config
    assert from_dict(Config, load(text), base=OTHER) == config
    (tmp_path / "config.yaml").write_text(text)
    assert load_yaml(tmp_path / "config.yaml") == to_dict(config)


def test_yaml_has_lists_on_one_line_and_the_task_first() -> None:
    lines = to_yaml(Config(), task="pose").splitlines()
    assert lines[:2] == ["task: pose", "model:"]
    assert "  input_size: [96, 96]" in lines


def test_values_take_the_type_of_their_field() -> None:
    config = from_dict(
        Config,
        load("model: {input_size: [64, 32]}\ndata: {root: /tmp/x}\ntrain: {lr: 1, precision: 16, milestones: [1e-3]}"),
    )
    assert config.model.input_size == (64, 32)
    assert config.data.root == Path("/tmp/x")
    assert type(config.train.lr) is float
    assert config.train.precision == "16"
    assert config.train.milestones == (0.001,)


def test_keys_that_are_not_given_come_from_the_base() -> None:
    config = from_dict(Config, {"model": {"stages": 3}}, base=OTHER)
    assert config == dataclasses.replace(OTHER, model=dataclasses.replace(OTHER.model, stages=3))
    assert from_dict(Config, {}, base=OTHER) == OTHER
    assert from_dict(Config, {}) == Config()
    assert from_dict(Config, {"model": {"heads": {"depth": 1}}}, base=OTHER).model.heads == {"depth": 1}  # whole values


@pytest.mark.parametrize(
    ("mapping", "line"),
    [
        ({"model": {"stages": 0}}, "`stages` is 0: must be at least 1"),
        ({"model": {"stages": "3"}}, "`stages` is '3': must be a whole number, at least 1"),
        ({"model": {"stages": True}}, "`stages` is True: must be a whole number, at least 1"),
        ({"model": {"stages": 1.5}}, "`stages` is 1.5: must be a whole number, at least 1"),
        ({"model": {"stages": None}}, "`stages` is None: must be a whole number, at least 1"),
        ({"model": {"sharing": "copy"}}, "`sharing` is 'copy': must be one of rpg, tied, none"),
        ({"model": {"sharing": False}}, "`sharing` is False: must be one of rpg, tied, none"),
        ({"model": {"rpg_size": 0}}, "`rpg_size` is 0: give at least 1, e.g. 250K"),
        ({"model": {"rpg_size": "-5"}}, "`rpg_size` is -5: give at least 1, e.g. 250K"),
        ({"model": {"rpg_size": "1Q"}}, "`rpg_size` is '1Q': not a size, e.g. 1M, 250K, 36864 or 25%"),
        ({"model": {"rpg_size": 1.5}}, "`rpg_size` is 1.5: give a size, e.g. 1M, 250K, 36864 or 25%"),
        ({"model": {"heads": {}}}, "`heads` is {}: give at least one head, e.g. keypoints: 17"),
        (
            {"model": {"heads": {"a": 0}}},
            "`heads` is {'a': 0}: must be a mapping of names to whole numbers, each at le",
        ),
        ({"model": {"heads": {"a.b": 1}}}, "`heads` is {'a.b': 1}: 'a.b' is no name, use letters, digits and _"),
        (
            {"model": {"input_size": 64}},
            "`input_size` is 64: must be 2 whole numbers, each at least 12, at most 8192, a multiple of 4",
        ),
        ({"model": {"input_size": [64, 64, 3]}}, "`input_size` is [64, 64, 3]: must be 2 whole numbers"),
        ({"model": {"channels": 130}}, "`channels` is 130: must be at least 4, at most 65536, a multiple of 4"),
        ({"train": {"lr": 0}}, "`lr` is 0: must be above 0"),
        ({"train": {"lr": math.nan}}, "`lr` is nan: must be a number, above 0"),
        ({"train": {"lr": math.inf}}, "`lr` is inf: must be a number, above 0"),
        ({"train": {"ema": 1}}, "`ema` is 1: must be at least 0, below 1"),
        ({"train": {"clip_norm": "x"}}, "`clip_norm` is 'x': must be a number, above 0, or null"),
        ({"train": {"resume": "yes"}}, "`resume` is 'yes': must be true or false"),
        ({"train": {"resume": 1}}, "`resume` is 1: must be true or false"),
        ({"train": {"precision": 64}}, "`precision` is 64: must be one of auto, 32, bf16, 16"),
        ({"train": {"out": 3}}, "`out` is 3: must be a path or null"),
        ({"train": {"milestones": [0.9, 0.3]}}, "`milestones` is [0.9, 0.3]: must rise from one to the next"),
        ({"train": {"milestones": [], "schedule": "step"}}, "`milestones` is []: schedule step needs at least one"),
        ({"data": {"classes": "all"}}, "`classes` is 'all': must be a list of texts"),
        ({"data": {"classes": [1]}}, "`classes` is [1]: must be a list of texts"),
        (
            {"model": {"stagez": 3}},
            "`stagez` is not a key of model: did you mean `stages`? legal: rpg_size, rpg_block",
        ),
        ({"model": {"zzzzzz": 3}}, "`zzzzzz` is not a key of model: legal: rpg_size, rpg_block, rpg_seed"),
        ({"modle": {}}, "`modle` is not a key of the config: did you mean `model`? legal: model, data, loss, train"),
        ({1: {}}, "`1` is not a key of the config: legal: model, data, loss, train"),
        ({"stages": 3}, "`stages` is not a key of the config: it belongs under `model`"),
        ({"model": {"lr": 3}}, "`lr` is not a key of model: it belongs under `train`"),
        ({"model": {"loss": 3}}, "`loss` is not a key of model: it belongs at the top"),
        ({"model": None}, "`model` is None: must be a mapping of keys to values"),
        ([], "the config is []: must be a mapping of keys to values"),
    ],
)
def test_what_is_not_legal_is_one_clear_line(mapping: Any, line: str) -> None:
    makers = [lambda: from_dict(Config, mapping), lambda: from_dict(Config, mapping, base=OTHER)]
    if isinstance(mapping, dict) and all(isinstance(key, str) for key in mapping):
        makers += [lambda: Config(**mapping), lambda: dataclasses.replace(OTHER, **mapping)]
    for make in makers:
        with pytest.raises(ConfigError) as error:
            make()
        assert str(error.value).startswith(line)
        assert "\n" not in str(error.value)


TASKS = {name: module.Config for name, module in find_tasks(tasks).items()}
WRONG: dict[str, list[Any]] = {  # by the first words of what is legal
    "a whole number": ["3", True, 1.5, math.nan, [1], {}],
    "a number": ["0.5", True, math.nan, math.inf, -math.inf, [0.5]],
    "true or false": [1, 0, "true", None],
    "text or a whole number": [True, 1.5, None],
    "text": [3, True, b"x", ["x"]],
    "a path": [3, True, b"x", ["x"]],
    "one of": ["no such word", True, 3, ["rpg"]],
    "a list of": ["a", 3, True, {"a": 1}, {1, 2}, [object()]],
    "a mapping of": ["a", 3, True, [1], {"a": "1"}, {"a": True}, {"a": math.nan}, {1: 1}],
    "2 whole numbers": [64, "64,64", [64], [64, 64, 64], ["64", 64], [64, True], [64.0, 64], {64, 32}, None],
}


LEAVES = [pytest.param(task, leaf, id=f"{task}-{leaf.name}") for task, cls in TASKS.items() for leaf in leaves(cls)]


@pytest.mark.parametrize(("task", "leaf"), LEAVES)
def test_what_a_field_refuses_it_refuses_wherever_it_comes_from(task: str, leaf: Leaf) -> None:
    *sections, name = leaf.path
    whole = TASKS[task]()
    part = functools.reduce(getattr, sections, whole)
    for value in next(values for words, values in WRONG.items() if leaf.kind.one.startswith(words)):
        if value is None and leaf.get(whole) is None:
            continue  # it may be left out
        one = {name: value}
        mapping = functools.reduce(lambda inner, key: {key: inner}, reversed(sections), one)
        makers: list[Callable[..., Any]] = [
            functools.partial(type(part), **one),
            functools.partial(type(whole), **mapping),
            functools.partial(dataclasses.replace, part, **one),
            functools.partial(from_dict, type(whole), mapping),
            functools.partial(from_dict, type(whole), mapping, base=whole),
        ]
        lines = set()
        for make in makers:
            with pytest.raises(ConfigError) as error:
                make()
            lines.add(str(error.value))
        assert len(lines) == 1
        assert lines.pop().startswith(f"`{name}` is ")


def again(value: Any) -> Any:
    """A config made once more in Python, of lists and text where it has tuples and paths."""
    if not dataclasses.is_dataclass(value):
        return to_plain(value)
    return type(value)(**{field.name: again(getattr(value, field.name)) for field in dataclasses.fields(value)})  # type: ignore[operator]


PRESETS = [(path.parent.name, path) for path in sorted(CONFIGS.glob("*/*.yaml"))]


@pytest.mark.parametrize(("task", "path"), PRESETS, ids=lambda value: Path(value).stem)
def test_python_yaml_and_flags_give_one_config(task: str, path: Path) -> None:
    cls = TASKS[task]
    config = load_preset(str(path), task, cls)
    assert again(config) == config
    assert dataclasses.replace(config) == config
    assert from_dict(cls, load(to_yaml(config))) == config
    with_text = dataclasses.replace(config, model=dataclasses.replace(config.model, rpg_size=str(config.model.rpg_size)))
    assert from_flags(cls, *to_flags(config)) == with_text  # the one field that may be a number or text
    for leaf in leaves(cls):
        assert type(leaf.get(again(config))) is type(leaf.get(config)), leaf.name
        assert type(leaf.get(from_flags(cls, *to_flags(config)))) is type(leaf.get(with_text)), leaf.name


def test_values_from_python_take_the_type_of_their_field() -> None:
    model = ModelConfig(input_size=[64, 32])  # type: ignore[arg-type]
    assert model.input_size == (64, 32)
    train = TrainConfig(lr=1, precision=16, milestones=[0.5], out="runs/x")  # type: ignore[arg-type]
    assert (train.lr, train.precision, train.milestones, train.out) == (1.0, "16", (0.5,), Path("runs/x"))
    assert type(train.lr) is float
    assert DataConfig(classes=("a", "b")).classes == ["a", "b"]  # type: ignore[arg-type]
    assert Config(model={"stages": 3}) == Config(model=ModelConfig(stages=3))  # type: ignore[arg-type]


def test_a_section_of_another_kind() -> None:
    with pytest.raises(ConfigError, match=r"^`model` is TrainConfig\(epochs=10.*\.\.\.: must be a mapping of keys to values$"):
        Config(model=TrainConfig())  # type: ignore[arg-type]


def test_what_goes_together_only_is_set_together() -> None:
    cls = TASKS["multitask"]
    given = {"balancing": {"balance": "fixed", "task_weights": {"depth": 2}}}
    config = from_dict(cls, given, base=cls())
    assert config.balancing == BalanceConfig(balance="fixed", task_weights={"depth": 2.0})
    assert from_dict(cls, {"balancing": {"balance": "equal", "task_weights": None}}, base=config) == cls()
    for wrong in ({"balance": "fixed"}, {"task_weights": {"depth": 2}}):
        with pytest.raises(ConfigError, match=r"^`task_weights` is .*: balance"):
            from_dict(cls, {"balancing": wrong}, base=cls())
        with pytest.raises(ConfigError, match=r"^`task_weights` is .*: balance"):
            dataclasses.replace(cls().balancing, **wrong)


def test_configs_are_frozen_and_their_fields_have_names() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().loss = "mse"  # type: ignore[misc]
    with pytest.raises(TypeError):
        ModelConfig(3)  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(OTHER)) == copy.deepcopy(OTHER) == OTHER


@config_class
class Bug:
    value: int = 1

    def __post_init__(self) -> None:
        assert self.value == 1, "a bug"


@config_class
class Nothing:
    """A section of a task that has none of its fields."""


def test_a_bug_in_a_check_is_no_error_of_the_users() -> None:
    with pytest.raises(AssertionError, match="a bug"):
        Bug(value=2)


def test_a_class_without_fields() -> None:
    assert from_dict(Nothing, {}) == Nothing()
    with pytest.raises(ConfigError, match=r"^`x` is not a key of the config: legal: $"):
        from_dict(Nothing, {"x": 1})


def test_a_misspelt_key_is_named_and_not_the_one_that_it_leaves_missing() -> None:
    with pytest.raises(ConfigError, match=r"^`sise` is not a key of the config: did you mean `size`\? legal: size$"):
        from_dict(Needs, {"sise": 3})
    with pytest.raises(ConfigError, match=r"^`size` is missing in first: must be a whole number, at least 1$"):
        from_dict(Both, {"first": {}})
    with pytest.raises(ConfigError, match=r"^`first` is missing: must be a mapping of keys to values$"):
        Both()  # type: ignore[call-arg]


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigError) as error:
        from_dict(Config, {"model": {"stages": "x" * 1000}})
    assert len(str(error.value)) < 130


@config_class
class Collections:
    """Fields of the kinds that tasks have."""

    names: Annotated[tuple[str, ...], Field(description="texts")] = ()
    file: Annotated[Path | None, Field(description="a path")] = None
    files: Annotated[tuple[Path, ...], Field(description="paths")] = ()
    weights: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(description="numbers by name")] = field(
        default_factory=dict
    )
    labels: Annotated[dict[str, str], Field(description="texts by name")] = field(default_factory=dict)
    sizes: Annotated[dict[str, tuple[int, ...]], Field(description="lists by name")] = field(default_factory=dict)
    pairs: Annotated[tuple[tuple[str, str], ...] | None, Field(description="pairs of texts")] = None
    scales: Annotated[tuple[float, ...] | None, Field(description="numbers")] = None
    kinds: Annotated[tuple[Literal["a", "b"], ...], Field(description="words")] = ()


FILLED = Collections(
    names=("no", "1", "null", "left eye"),
    file=Path("a b.json"),
    files=(Path("x"), Path("y/z")),
    weights={"yes": 0.5, "b": 2.0},
    labels={"a": "1", "b": "none"},
    sizes={"a": (1, 2), "b": (3,)},
    pairs=(("left_eye", "right_eye"), ("1", "no")),
    scales=(0.5, 1.0, 1e-05),
    kinds=("b", "a"),
)
AWKWARD = Collections(
    names=("a,b", "c: d", "[", " ", ""),
    files=(Path("C:/x"), Path("y, z")),
    labels={"a=b": "c", "d": "{e}"},
    pairs=(("a:b", "c"), ("d", "")),
)


@pytest.mark.parametrize("config", [Collections(), FILLED, AWKWARD], ids=["empty", "filled", "awkward"])
def test_collections_come_back_from_yaml_and_from_flags(config: Collections) -> None:
    assert from_dict(Collections, load(to_yaml(config))) == config
    assert from_flags(Collections, *to_flags(config)) == config


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("--names", "a, 1,null", ("a", "1", "null")),
        ("--names", "[a, 'b,c']", ("a", "b,c")),
        ("--names", "", ()),
        ("--file", "none", None),
        ("--weights", "a=1, b=2.5", {"a": 1.0, "b": 2.5}),
        ("--weights", "{a: 1}", {"a": 1.0}),
        ("--labels", "a=x=y", {"a": "x=y"}),
        ("--sizes", "a=1:2,b=3", {"a": (1, 2), "b": (3,)}),
        ("--pairs", "a:b,c:d", (("a", "b"), ("c", "d"))),
        ("--pairs", "[[a, b], [c, d]]", (("a", "b"), ("c", "d"))),
        ("--pairs", "null", None),
        ("--scales", "0.5,1", (0.5, 1.0)),
        ("--scales", "1", (1.0,)),
        ("--scales", "none", None),
        ("--kinds", "a,b", ("a", "b")),
    ],
)
def test_collections_on_the_command_line(flag: str, text: str, value: object) -> None:
    assert parsed(Collections, flag, text) == value


@pytest.mark.parametrize(
    ("flag", "text", "line"),
    [
        ("--weights", "a=0", "`--weights` is {'a': 0}: must be a mapping of names to numbers, each above 0"),
        ("--weights", "a=1,a=2", "`--weights` is 'a=1,a=2': must be a mapping of names to numbers, each above 0"),
        ("--weights", "a", "`--weights` is 'a': must be a mapping of names to numbers, each above 0"),
        ("--pairs", "a,b", "`--pairs` is [['a'], ['b']]: must be a list of groups of 2 texts or null"),
        ("--scales", "x", "`--scales` is ['x']: must be a list of numbers or null"),
        ("--kinds", "c", "`--kinds` is ['c']: must be a list of words, each one of a, b"),
    ],
)
def test_collections_that_are_not_legal_are_one_clear_line(flag: str, text: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        parsed(Collections, flag, text)
    assert str(error.value) == line


def test_help_shows_how_collections_are_written() -> None:
    assert {leaf.name: leaf.metavar for leaf in leaves(Collections)} == {
        "names": "NAME,...",
        "file": "PATH",
        "files": "PATH,...",
        "weights": "NAME=X,...",
        "labels": "NAME=NAME,...",
        "sizes": "NAME=N:...,...",
        "pairs": "NAME:NAME,...",
        "scales": "X,...",
        "kinds": "a|b,...",
    }


@config_class
class Needs:
    size: Annotated[int, Field(ge=1)]


def test_a_field_without_default_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"^`size` is missing: must be a whole number, at least 1$"):
        from_dict(Needs, {})
    assert from_dict(Needs, {"size": 3}) == Needs(size=3)


@config_class
class Both:
    first: Needs


@config_class
class Twice:
    first: Needs
    second: Needs


def test_field_names_are_unique() -> None:
    with pytest.raises(TypeError, match="Twice: name used twice: size"):
        leaves(Twice)


def test_every_field_has_a_line_of_help_and_its_own_flag() -> None:
    flags = [leaf.flag for leaf in leaves(Config)]
    assert {"--stages", "--rpg-size", "--batch-size", "--data", "--data-root", "--loss"} <= set(flags)
    assert len(set(flags)) == len(flags)
    for leaf in leaves(Config):
        assert leaf.help, leaf.name
        assert "\n" not in leaf.help


@pytest.mark.parametrize("config", [Config(), OTHER], ids=["defaults", "other"])
def test_the_text_of_a_value_parses_to_it(config: Config) -> None:
    for leaf in leaves(Config):
        value = leaf.get(config)
        assert leaf.from_text(leaf.to_text(value)) == to_plain(value), leaf.name
    assert from_flags(Config, *to_flags(config)) == config


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("--lr", "1e-3", 0.001),
        ("--lr", "3", 3.0),
        ("--input-size", "64,96", (64, 96)),
        ("--input-size", "[64, 96]", (64, 96)),
        ("--heads", "keypoints=17,depth=1", {"keypoints": 17, "depth": 1}),
        ("--heads", "{keypoints: 17}", {"keypoints": 17}),
        ("--classes", "a,b", ["a", "b"]),
        ("--milestones", "0.5", (0.5,)),
        ("--max-steps", "none", None),
        ("--sharing", "none", "none"),
        ("--precision", "16", "16"),
        ("--rpg-size", "36864", "36864"),
        ("--data-root", "5", Path("5")),
    ],
)
def test_text_of_the_command_line(flag: str, text: str, value: object) -> None:
    found = parsed(Config, flag, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--stages", ""),
        ("--stages", "1.0"),
        ("--lr", "a: b: c"),
        ("--heads", "a"),
        ("--milestones", "["),
        ("--lr", "@"),
    ],
)
def test_text_that_is_not_legal_names_the_flag(flag: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^`{flag}` is .*: must be "):
        parsed(Config, flag, text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1E+3", -1000.0),
        (".inf", math.inf),
        ("010", 10),
        ("-7", -7),
        ("no", "no"),
        ("On", "On"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2020-01-01", "2020-01-01"),
        ("null", None),
        ("~", None),
        ("", None),
        ("true", True),
        ("False", False),
        ("'1'", "1"),
        ("[1, a]", [1, "a"]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    loaded = load(f"x: {text}")["x"]
    assert loaded == value
    assert type(loaded) is type(value)
    assert load(yaml.dump({"x": value}, Dumper=Dumper))["x"] == value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1, 2", ", line 1: not YAML: "),
        (b"a: 1\nb: : 2", ", line 2: not YAML: "),
        (b"a: 1\na: 2", ", line 1: not YAML: `a` stands twice"),
        (b"a: !!python/object/apply:os.getcwd []", ", line 1: not YAML: tags, as "),
        (b"a: \x00", ": not YAML: "),
        (b"a: \xff", ": not a text file in UTF-8 (byte 3)"),
        (b"[1, 2]", " holds [1, 2]: must be a mapping of keys to values"),
        (b"text", " holds 'text': must be a mapping of keys to values"),
    ],
)
def test_a_file_that_is_no_config_is_one_clear_line(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_yaml(path)
    assert str(error.value).startswith(f"{path}{words}")
    assert "\n" not in str(error.value)


def test_files_that_are_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file or directory$"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"Is a directory, not a file$"):
        load_yaml(tmp_path)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_yaml(tmp_path / "empty.yaml") == {}


def test_configs_do_not_import_torch() -> None:
    code = "import sys, rpgmt.config, rpgmt.cli, rpgmt.visualize; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"rpg_scope": "layer", "rpg_block": 2, "tied_sets": 1}, []),
        ({"sharing": "tied", "tied_sets": 2, "rpg_size": "50%"}, []),
        ({"sharing": "low_rank", "rank": 2}, []),
        ({"sharing": "signed", "rpg_scope": "layer"}, ["`rpg_scope`, which is of banks, with sharing signed"]),
        ({"sharing": "none", "rpg_regenerate": True}, ["`rpg_regenerate`, which is of banks, with sharing none"]),
        ({"tied_sets": 2}, ["`tied_sets`, of stages that are copies, with sharing rpg"]),
        ({"sharing": "tied", "rank": 2}, ["`rank` with sharing tied"]),
    ],
)
def test_what_a_kind_of_sharing_does_not_use_is_told(changes: dict[str, Any], lines: list[str]) -> None:
    assert ModelConfig(**changes).without_effect() == lines
