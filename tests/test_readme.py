"""What the README says is true: its loop runs, its commands are read, its pictures and files exist, its tree is the tree."""

from __future__ import annotations

import re
import shlex
import warnings

import pytest

import tasks
from rpgmt import cli
from rpgmt.cli import ROOT

REPOSITORY = ROOT
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """Every `tools/….py …` in the README, whole: in blocks of the shell and between backticks."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    found = lines + re.findall(r"`((?:uv run )?tools/[^`]+)`", README)
    return sorted({match[0] for text in found if (match := re.search(r"tools/\w+\.py.*", text))})


def test_the_loop_runs_and_leaves_a_plain_network(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code, names)
    bank, generated, fixed = map(int, capsys.readouterr().out.split())
    assert bank == round(generated / 4)
    assert fixed > 0
    assert type(names["model"][0]).__name__ == "Conv2d"  # type: ignore[index]
    assert len([line for line in code.splitlines() if line]) <= 15


def test_the_readme_has_the_two_commands() -> None:
    starts = [line for block in blocks("bash") for line in block.splitlines()]
    assert starts[:2] == [
        "pip install uv && uv run tools/train.py pose --stages 4 --rpg-size 1M",
        "pip install uv && uv run pytest",
    ]


@pytest.mark.parametrize("command", commands())
def test_the_commands_are_legal(command: str) -> None:
    words = shlex.split(re.sub(r"\[(.*?)\]", r"\1", command))
    tool, arguments = words[0], [word for word in words[1:] if word != "flags"]
    assert (REPOSITORY / tool).is_file()
    if tool == "tools/train.py":
        name, config = cli.parse_train(arguments, cli.find_tasks(tasks))
        if name != "classification":  # has no stages
            assert config.model.stages == {"pose": 4, "multitask": 3}[name]


def test_linked_files_and_folders_of_the_tree_exist() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert link.startswith("https://") or (REPOSITORY / link).is_file(), link
    (tree,) = [block for block in re.split(r"```\w*\n", README) if block.startswith("rpgmt/  ")]
    for line in tree.splitlines():
        for name in re.findall(r"(\w+(?:/|\.py))(?= |$)", line.split("  the ")[0]):
            places = [REPOSITORY / name, REPOSITORY / "rpgmt" / name, REPOSITORY / "tasks" / name]
            assert any(place.exists() for place in places), name


def test_pictures_are_small_enough() -> None:
    for picture in (REPOSITORY / "docs").iterdir():
        assert picture.suffix == ".png"
        assert picture.stat().st_size <= 300_000
