from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any, Literal, cast

import numpy as np
import pytest
from pydantic import Field

import tasks
from rpgmt.cli import Parser, TaskModule, find_tasks, parse_config, parse_overrides, parse_train, run
from rpgmt.config import Flag, ModelConfig, TrainConfig, UserError, config_class, to_yaml
from rpgmt.config.validation import leaves


@config_class
class DataConfig:
    name: Annotated[Literal["synthetic", "coco"], Field(description="data set, 100% of it"), Flag("--data")] = "synthetic"
    root: Annotated[Path | None, Field(description="folder of the data set"), Flag("--data-root")] = None


@config_class
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: Annotated[Literal["cross_entropy", "mse"], Field(description="the loss")] = "mse"
    train: TrainConfig = field(default_factory=TrainConfig)


PRESET = Config(model=ModelConfig(stages=2, rpg_size="25%"), train=TrainConfig(lr=1e-2, resume=True))
TASKS = {
    "pose": cast(TaskModule, SimpleNamespace(Config=Config, build=None, __doc__="Top-down pose.\n\nAt length.")),
    "other": cast(TaskModule, SimpleNamespace(Config=Config, build=None, __doc__=None)),
}


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "configs" / "pose"
    folder.mkdir(parents=True)
    (folder / "synthetic.yaml").write_text("model: {stages: 2, rpg_size: 25%}\ntrain: {lr: 1e-2, resume: true}\n")
    (folder / "coco.yaml").write_text("data: {name: coco}\n")
    (folder / "bad.yaml").write_text("model: {stages: 0}\n")
    return tmp_path / "configs"


def replaced(config: Config, section: str, **values: Any) -> Config:
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


def test_the_default_preset(configs: Path) -> None:
    assert parse_train(["pose"], TASKS, configs=configs) == ("pose", PRESET)


def test_a_named_preset_and_a_file(configs: Path, tmp_path: Path) -> None:
    expected = Config(data=DataConfig(name="coco"))
    assert parse_train(["pose", "--config", "coco"], TASKS, configs=configs)[1] == expected
    assert parse_train(["pose", "--config=coco"], TASKS, configs=configs)[1] == expected
    (tmp_path / "mine.yml").write_text("loss: cross_entropy")
    expected = Config(loss="cross_entropy")
    assert parse_train(["pose", "--config", str(tmp_path / "mine.yml")], TASKS, configs=configs)[1] == expected


@pytest.mark.parametrize(
    ("flags", "section", "values"),
    [
        (["--stages", "4", "--rpg-size", "1M"], "model", {"stages": 4, "rpg_size": "1M"}),
        (["--stages=4"], "model", {"stages": 4}),
        (["--stages", "3", "--stages", "5"], "model", {"stages": 5}),
        (["--sharing", "none", "--input-size", "64,32"], "model", {"sharing": "none", "input_size": (64, 32)}),
        (["--data", "coco", "--data-root", "a b"], "data", {"name": "coco", "root": Path("a b")}),
        (["--no-resume", "--compile", "--lr", "3e-4"], "train", {"resume": False, "compile": True, "lr": 3e-4}),
        (["--max-steps", "7", "--out", "x"], "train", {"max_steps": 7, "out": Path("x")}),
    ],
)
def test_flags_override_the_preset_and_nothing_else(
    flags: list[str], section: str, values: dict[str, Any], configs: Path
) -> None:
    _, config = parse_train(["pose", *flags], TASKS, configs=configs)
    assert config == replaced(PRESET, section, **values)


def test_a_flag_at_the_top_of_the_config(configs: Path) -> None:
    _, config = parse_train(["pose", "--loss", "cross_entropy"], TASKS, configs=configs)
    assert config == dataclasses.replace(PRESET, loss="cross_entropy")


def test_the_config_of_a_run_is_itself_a_preset(configs: Path, tmp_path: Path) -> None:
    _, config = parse_train(["pose", "--stages", "3", "--out", str(tmp_path)], TASKS, configs=configs)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config, task="pose"))
    assert parse_train(["pose", "--config", str(path)], TASKS, configs=configs)[1] == config
    with pytest.raises(UserError, match=r"config\.yaml is a config of the task `pose`: not of `other`$"):
        parse_train(["other", "--config", str(path)], TASKS, configs=configs)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "the task comes first: `train.py TASK [flags]` with one of pose, other"),
        (["--stages", "4"], "the task comes first: "),
        (["poze"], "`poze` is not a task: did you mean `pose`? tasks: pose, other"),
        (["xxxxx"], "`xxxxx` is not a task: tasks: pose, other"),
        (["pose", "--stage", "4"], "`--stage` is not a flag of `train.py pose`: did you mean `--stages`?"),
        (["pose", "--nope"], "`--nope` is not a flag of `train.py pose`: did you mean `--nodes`?"),
        (["pose", "--no-resum"], "`--no-resum` is not a flag of `train.py pose`: did you mean `--no-resume`?"),
        (["pose", "--stage=4"], "`--stage` is not a flag of `train.py pose`: did you mean `--stages`?"),
        (["pose", "--qqqqq"], "`--qqqqq` is not a flag of `train.py pose`: `train.py pose --help` lists them"),
        (["pose", "4"], "`4` is one argument too many for `train.py pose`"),
        (["pose", "--lr"], "argument --lr: expected one argument"),
        (["pose", "--config"], "argument --config: expected one argument"),
        (["pose", "--resume=1"], "argument --resume/--no-resume: ignored explicit argument '1'"),
        (["pose", "--stages", "0"], "`--stages` is 0: must be at least 1"),
        (["pose", "--stages", "four"], "`--stages` is 'four': must be a whole number, at least 1"),
        (["pose", "--rpg-size", "0"], "`--rpg-size` is 0: give at least 1, e.g. 250K"),
        (["pose", "--rpg-size", "-5"], "`--rpg-size` is -5: give at least 1, e.g. 250K"),
        (["pose", "--rpg-size", "1Q"], "`--rpg-size` is '1Q': not a size, e.g. 1M, 250K, 36864 or 25%"),
        (["pose", "--sharing", "copy"], "`--sharing` is 'copy': must be one of rpg, tied, none"),
        (["pose", "--milestones", "0.9,0.1"], "`milestones` is [0.9, 0.1]: must rise"),
        (
            ["pose", "--config", "synthetik"],
            "`--config` is 'synthetik': no such preset of pose: did you mean `synthetic`? presets: bad, coco, s",
        ),
        (["other"], "`--config` is 'synthetic': no such preset of other: presets: none; or give a YAML file"),
        (["pose", "--config", "no/such.yaml"], "no/such.yaml: No such file or directory"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    argv: list[str], line: str, configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda words: parse_train(words, TASKS, configs=configs) and 0, argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.partition(": ")[2].startswith(line)


def test_an_error_in_a_preset_names_its_file(configs: Path) -> None:
    with pytest.raises(UserError, match=r"configs/pose/bad\.yaml: `stages` is 0: must be at least 1, at most 1000$"):
        parse_train(["pose", "--config", "bad"], TASKS, configs=configs)


def help_of(argv: list[str], configs: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        parse_train(argv, TASKS, configs=configs)
    assert exit_.value.code == 0
    return " ".join(capsys.readouterr().out.split())  # without line breaks


def test_help(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(["--help"], configs, capsys)
    assert "tasks: pose Top-down pose. other" in text

    text = help_of(["pose", "--help", "all"], configs, capsys)
    for piece in (
        "Top-down pose. examples:",
        "preset (bad, coco, synthetic) or YAML file (default: synthetic)",
        "model: --rpg-size",
        "--stages N stages of refinement; a whole number, at least 1, at most 1000 (default: 2)",
        "--sharing rpg|tied|none",
        "data: --data synthetic|coco data set, 100% of it (default: synthetic) --data-root PATH",
        "pose: --loss cross_entropy|mse the loss (default: mse)",
        "train: --epochs N",
        "--resume, --no-resume",
        "(default: 25%)",
        "--input-size N,N",
    ):
        assert piece in text
    short = help_of(["pose", "--help"], configs, capsys)
    assert "--stages N" in short
    assert "--loss" not in short
    hidden = sum(f" {leaf.flag} " not in short and f" {leaf.flag}, " not in short for leaf in leaves(TASKS["pose"].Config))
    assert hidden > 20
    assert short.endswith(f"{hidden} more: `train.py pose --help all`")

    text = help_of(["pose", "--config", "coco", "--help", "all"], configs, capsys)
    assert "data set, 100% of it (default: coco)" in text
    assert "at least 1, at most 1000 (default: 4)" in text


def test_config_flags_beside_arguments_of_a_tools_own(configs: Path) -> None:
    parser = Parser(prog="summary.py")
    parser.add_argument("--json", type=Path)
    argv = ["--json", "x.json", "--stages", "3"]
    arguments, config = parse_config(parser, argv, "pose", Config, configs=configs)
    assert arguments.json == Path("x.json")
    assert config == replaced(PRESET, "model", stages=3)


SAVED = Config(data=DataConfig(name="coco"), loss="cross_entropy", train=TrainConfig(batch_size=7, lr=0.5))
SECTIONS = ("data", "loss", "train.batch_size", "train.device", "no_such_section")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], SAVED),
        (["--data", "synthetic", "--data-root", "x"], replaced(SAVED, "data", name="synthetic", root=Path("x"))),
        (["--batch-size", "3"], replaced(SAVED, "train", batch_size=3)),
        (["--loss", "mse"], dataclasses.replace(SAVED, loss="mse")),
    ],
)
def test_flags_of_chosen_sections_override_a_saved_config(flags: list[str], expected: Config) -> None:
    arguments, config = parse_overrides(make_parser(), ["run", "--json", "x.json", *flags], Config, SAVED, SECTIONS)
    assert config == expected
    assert vars(arguments) == {"model": Path("run"), "json": Path("x.json"), "stop_after": None}


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--stages", "3"], "`--stages` is not a flag of `tool.py`"),  # a section that was not chosen
        (["--lr", "3"], "`--lr` is not a flag of `tool.py`"),  # a field that was not chosen of its section
        (["--config", "coco"], "`--config` is not a flag of `tool.py`"),
        (["--batch-size", "0"], "`--batch-size` is 0: must be at least 1"),
    ],
)
def test_other_flags_are_one_line(flags: list[str], line: str) -> None:
    with pytest.raises(UserError) as error:
        parse_overrides(make_parser(), ["run", *flags], Config, SAVED, SECTIONS)
    assert str(error.value).startswith(line)


def test_help_of_chosen_sections_shows_the_saved_values(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_overrides(make_parser(), ["--help"], Config, SAVED, SECTIONS)
    text = " ".join(capsys.readouterr().out.split())
    for piece in (
        "data: --data synthetic|coco data set, 100% of it (default: coco)",
        "at least 1 (default: 7)",
        "task: --loss",
    ):
        assert piece in text
    assert "--stages" not in text


def make_parser() -> Parser:
    parser = Parser(prog="tool.py")
    parser.add_argument("model", metavar="MODEL", type=Path)
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--stop-after", type=int)
    return parser


def test_parser() -> None:
    assert make_parser().parse_args(["run", "--stop-after", "3"]).stop_after == 3
    for argv, line in (
        ([], "the following arguments are required: MODEL"),
        (["run", "--jsn", "x"], "`--jsn` is not a flag of `tool.py`: did you mean `--json`?"),
        (["run", "--stop", "3"], "`--stop` is not a flag"),  # no abbreviations
        (["run", "more"], "`more` is one argument too many for `tool.py`"),
        (["run", "--stop-after", "x"], "argument --stop-after: invalid int value: 'x'"),
    ):
        with pytest.raises(UserError) as error:
            make_parser().parse_args(argv)
        assert str(error.value).startswith(line)


def test_parser_with_verbs() -> None:
    parser = Parser(prog="tool.py")
    verb = parser.add_subparsers(dest="verb", required=True).add_parser("draw")
    verb.add_argument("--count", type=int)
    assert parser.parse_args(["draw", "--count", "2"]).count == 2
    with pytest.raises(UserError, match=r"`--coumt` is not a flag of `tool\.py`: did you mean `--count`\?$"):
        parser.parse_args(["draw", "--coumt", "2"])
    with pytest.raises(UserError, match="invalid choice: 'drawn'"):
        parser.parse_args(["drawn"])


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("action", "status", "line"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (interrupt, 130, "interrupted"),
        (lambda: Path("no/such/file").read_text(), 2, "no/such/file: No such file or directory"),
    ],
)
def test_run(action: Callable[[], int | None], status: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda argv: action(), []) == status
    err = capsys.readouterr().err
    assert err.partition(": ")[2] == (line and line + "\n")


def test_a_users_error_is_one_line_whatever_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str]) -> int:
        raise UserError(f"two\nlines of {argv}")

    assert run(main, ["x"], "tool.py") == 2
    assert capsys.readouterr().err == "tool.py: two lines of ['x']\n"


@pytest.mark.parametrize(
    "bug",
    [
        lambda: np.zeros(3) + np.zeros(4),  # ValueError out of NumPy
        lambda: json.loads("{"),  # ValueError out of a library's Python
        lambda: int("x"),
        lambda: [][1],
        lambda: {}["x"],
    ],
)
def test_bugs_keep_their_traceback(bug: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, LookupError)):
        run(lambda argv: bug(), [])


def test_tasks_are_the_modules_with_config_and_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "some_tasks"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "b.py").write_text("Config = dict\ndef build(config): ...\n")
    (folder / "a.py").write_text("Config = dict\ndef build(config): ...\n")
    (folder / "helper.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    package = __import__("some_tasks")
    assert isinstance(package, ModuleType)
    assert list(find_tasks(package)) == ["a", "b"]


SCRIPT = """
import sys
from rpgmt.cli import Parser, run

def main(argv):
    Parser(prog="tool.py").parse_args(argv)
    print("line\\n" * 100000)
    return 0

sys.exit(run(main, sys.argv[1:], "tool.py"))
"""


def test_a_tool_as_a_process(tmp_path: Path) -> None:
    path = tmp_path / "tool.py"
    path.write_text(SCRIPT)
    bad = subprocess.run([sys.executable, path, "--x"], capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "tool.py: `--x` is not a flag of `tool.py`: `tool.py --help` lists them\n"
    piped = f"{sys.executable} {path} | head -n 1; exit ${{PIPESTATUS[0]}}"
    head = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, check=False)
    assert (head.returncode, head.stdout, head.stderr) == (141, "line\n", "")


def test_warnings_are_notes_of_one_line() -> None:
    code = "import warnings; from rpgmt.cli import run\ndef main(argv):\n"
    code += "    warnings.warn('the area\\n is inferred'); warnings.warn('old', RuntimeWarning)\n"
    # A change of the filters makes Python forget what was said.
    code += "    warnings.filterwarnings('always', category=RuntimeWarning); warnings.warn('the area is inferred')\n"
    code += "run(main, [], 'tool.py')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines() == ["tool.py: note: the area is inferred", "tool.py: RuntimeWarning: old"]
    quiet = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, "LOCAL_RANK": "1"}
    )
    assert quiet.stderr.splitlines() == ["tool.py: RuntimeWarning: old"]


@pytest.mark.parametrize("task", ["pose", "multitask", "classification"])
def test_a_compiled_model_is_not_told_what_to_keep(task: str) -> None:
    with pytest.raises(UserError, match="`rpg_regenerate` is true: a compiled model keeps what it wants"):
        parse_train([task, "--compile", "--rpg-regenerate"], find_tasks(tasks))
