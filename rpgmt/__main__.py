"""The console script: `rpgmt train pose` is `tools/train.py pose`, and so is `python -m rpgmt train pose`."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

from rpgmt import cli
from rpgmt.config.presets import ROOT
from rpgmt.config.validation import did_you_mean
from rpgmt.errors import UserError

TOOLS = {path.stem: path for path in sorted((ROOT / "tools").glob("*.py"))}


def main() -> int:
    """Run the tool that the first argument names; returns the exit status."""
    argv = sys.argv[1:]
    prog = "python -m rpgmt" if Path(sys.argv[0]).name == Path(__file__).name else "rpgmt"
    if not argv or argv[0] not in TOOLS:
        return cli.run(lambda words: _without_tool(words, prog), argv, prog)
    sys.path.insert(0, str(ROOT))  # a wheel has `tasks` and `tools` there
    name = f"{prog} {argv[0]}"
    return cli.run(lambda words: importlib.import_module(f"tools.{argv[0]}").main(words, name), argv[1:], name)


def _without_tool(argv: list[str], prog: str) -> int:
    known = ", ".join(TOOLS)
    if not argv:
        raise UserError(f"the command comes first: `{prog} COMMAND [arguments]` with one of {known}")
    if argv[0] not in ("-h", "--help"):
        raise UserError(f"`{argv[0]}` is not a command: {did_you_mean(argv[0], TOOLS)}commands: {known}")
    print(f"usage: {prog} COMMAND [arguments]\n\ncommands:")
    print(*_lines(), sep="\n")
    print(f"\n`{prog} COMMAND --help` lists its arguments.")
    return 0


def _lines() -> Iterator[str]:
    for name, path in TOOLS.items():
        docstring = ast.get_docstring(ast.parse(path.read_bytes())) or ""  # read, for importing all takes its time
        yield f"  {name:12}{docstring.splitlines()[0]}"


if __name__ == "__main__":
    sys.exit(main())
