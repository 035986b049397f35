"""The command line: flags made of a config's fields, errors in one line, and what every tool runs in."""

from __future__ import annotations

import argparse
import errno
import functools
import importlib
import itertools
import os
import pkgutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from rpgmt.config.presets import CONFIGS, DEFAULT_PRESET, load_preset, preset_names
from rpgmt.config.validation import did_you_mean, from_dict, leaves
from rpgmt.errors import UserError, one_line
from rpgmt.process import process_settings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""What a disk says of a file that is open already, without its name."""


class TaskModule(Protocol):
    """A training task: what a module in ``tasks/`` defines. It imports torch in ``build`` only.

    ``read(config, training=True)`` reads and checks the data, ``build(config, data)`` makes the task of it.
    """

    __doc__: str | None

    @property
    def Config(self) -> type[Any]: ...  # noqa: N802 - the name of a class

    @property
    def read(self) -> Callable[..., Any]: ...

    @property
    def build(self) -> Callable[..., Any]: ...


def run(main: Callable[[list[str]], int | None], argv: Sequence[str], prog: str = "rpgmt") -> int:
    """Run a tool's ``main(argv)`` and return its exit status: ``sys.exit(run(main, sys.argv[1:], "train.py"))``.

    What the user can mend is one line on standard error and status 2: a ``UserError``, a file that cannot be opened, or a
    full disk.
    Any other exception is a bug and keeps its traceback. Ctrl-C is status 130.

    Args:
        main: is called within ``process_settings``.
        argv: the words after the program's name.
        prog: the program's name, with which lines on standard error begin.
    """
    try:
        with process_settings(prog):
            status = main(list(argv)) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        line, status = "interrupted", 130
    except UserError as error:
        # Out of a worker process it comes with that process's traceback, of which its own message is the end.
        text = str(error).rpartition("UserError: ")[2] if "Original Traceback" in str(error) else str(error)
        line, status = text, error.status
    except OSError as error:
        if error.filename is None and error.errno not in DISK_ERRORS:
            raise
        line, status = f"{error.filename or 'standard output, or a file'}: {error.strerror}", 2
        _give_up_full_output()
    print(f"{prog}: {one_line(line)}", file=sys.stderr)
    return status


def _give_up_full_output() -> None:
    """Where what was printed cannot be written, nobody tries again when the program ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` without abbreviations whose errors are ``UserError`` (one line, with a suggestion)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = self.parse_known_args(args, namespace)
        for word in rest:
            if word.startswith("-"):
                word = word.split("=")[0]
                hint = _nearest_flag(word, self._flags()) or f"`{self.prog} --help` lists them"
                raise UserError(f"`{word}` is not a flag of `{self.prog}`: {hint}".rstrip())
        if rest:
            raise UserError(f"`{rest[0]}` is one argument too many for `{self.prog}`: `{self.prog} --help` lists them")
        return found

    def error(self, message: str) -> NoReturn:
        raise UserError(message)

    def _flags(self) -> Iterable[str]:
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser._flags()


def _nearest_flag(word: str, flags: Iterable[str]) -> str:
    """A question that names a similar flag; the dashes, and the `no-` of those that switch off, make nothing similar."""
    flags = [flag for flag in flags if word.startswith("--no-") or not flag.startswith("--no-")]
    near = did_you_mean(word.strip("-"), [flag.strip("-") for flag in flags])
    return near.replace("`", "`--", 1)


def find_tasks(package: ModuleType) -> dict[str, TaskModule]:
    """Return the training tasks by name: the modules of the package ``tasks`` that define ``Config`` and ``build``."""
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    modules = {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "Config") and hasattr(module, "build")}


def parse_train(
    argv: Sequence[str], tasks: Mapping[str, TaskModule], *, prog: str = "train.py", configs: Path = CONFIGS
) -> tuple[str, Any]:
    """Read ``TASK [--config NAME|FILE] [flags]`` and return the task's name and its config.

    Raises:
        UserError: an unknown task, preset, flag or key, or an illegal value.
        SystemExit: after ``--help``.
    """
    names = ", ".join(tasks)
    if argv and argv[0] in ("-h", "--help"):
        print(f"usage: {prog} TASK [--config NAME|FILE] [flags]\n\ntasks:")
        for name, module in tasks.items():
            print(f"  {name:16}{(module.__doc__ or '').strip().splitlines()[0] if module.__doc__ else ''}")
        print(f"\n`{prog} {next(iter(tasks), 'TASK')} --help` lists the flags and their defaults.")
        raise SystemExit(0)
    if not argv or argv[0].startswith("-"):
        raise UserError(f"the task comes first: `{prog} TASK [flags]` with one of {names}")
    name, rest = argv[0], argv[1:]
    if name not in tasks:
        raise UserError(f"`{name}` is not a task: {did_you_mean(name, tasks)}tasks: {names}")
    examples = getattr(tasks[name].Config, "examples", ())
    parser = Parser(
        prog=f"{prog} {name}",
        usage=f"{prog} {name} [--config NAME|FILE] [flags]",
        description="\n".join([_summary(tasks[name]), "", "examples:", *(f"  {prog} {line}" for line in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _, config = parse_config(parser, rest, name, tasks[name].Config, configs=configs, short=True)
    return name, config


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add ``--weights``, for a tool that reads a run folder or model file."""
    text = "of a run folder: the last weights, or those of the best validation (default: last)"
    parser.add_argument("--weights", choices=["last", "best"], default="last", help=text)


def _summary(task: TaskModule) -> str:
    """The first paragraph of a task's docstring."""
    return (task.__doc__ or "").strip().partition("\n\n")[0].replace("%", "%%")


def output_file(text: str) -> Path:
    """The argument type of a file to write: refused before any work where it is a folder."""
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: give the name of a file in it")
    return Path(text)


def parse_config(
    parser: Parser, argv: Sequence[str], task: str, cls: type[C], *, configs: Path = CONFIGS, short: bool = False
) -> tuple[argparse.Namespace, C]:
    """Add ``--config`` and a flag for each field of ``cls`` to ``parser``, and read ``argv`` with it.

    The preset holds where no flag is given, the defaults of ``cls`` where the preset says nothing. With ``--resume`` and
    ``--out DIR`` the run's own config is the preset. ``short``: see `parse_overrides`.

    Returns:
        the parser's other arguments, and the config.
    """
    first = Parser(add_help=False)
    first.add_argument("--config")
    first.add_argument("--out", type=Path)
    early = first.parse_known_args(argv)[0]
    default = getattr(cls, "default_preset", DEFAULT_PRESET)
    preset = early.config or default
    if "--resume" in argv and early.config is None and early.out is not None and (early.out / "config.yaml").is_file():
        preset = str(early.out / "config.yaml")  # a resumed run goes on as it was started
    base = load_preset(preset, task, cls, configs)

    help_line = f"preset ({', '.join(preset_names(task, configs))}) or YAML file (default: {default})"
    parser.add_argument("--config", metavar="NAME|FILE", help=help_line.replace("%", "%%"))
    return parse_overrides(parser, argv, cls, base, top=task, short=short)


def parse_overrides(
    parser: Parser,
    argv: Sequence[str],
    cls: type[C],
    base: C,
    sections: Collection[str] | None = None,
    *,
    top: str = "task",
    short: bool = False,
) -> tuple[argparse.Namespace, C]:
    """Add flags for fields of ``cls`` to ``parser``, and read ``argv`` with it.

    Args:
        parser: has the tool's own arguments.
        argv: the command line.
        cls: the task's config class.
        base: its values hold where no flag is given, and are the defaults in the help: a model's saved config.
        sections: which fields have a flag (default: all): all of ``data``, or the one of ``train.batch_size``. Names that
            ``cls`` has not are skipped, for tasks differ in their sections.
        top: the help's heading of fields that are in no section.
        short: `--help` shows everyday flags alone, `--help all` all of them.

    Returns:
        the parser's other arguments, and the config.
    """
    groups: dict[str, Any] = {}
    chosen = {".".join(leaf.path): leaf for leaf in leaves(cls)}
    if sections is not None:
        chosen = {name: leaf for name, leaf in chosen.items() if leaf.path[0] in sections or name in sections}
    help_words = [word for flag, word in itertools.pairwise(argv) if flag in ("-h", "--help")]
    everyday_alone = short and "all" not in help_words
    if everyday_alone:
        parser.epilog = f"{sum(not leaf.everyday for leaf in chosen.values())} more: `{parser.prog} --help all`"
    for name, leaf in chosen.items():
        heading = leaf.path[0] if len(leaf.path) > 1 else top
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        kind: dict[str, Any] = {"type": leaf.from_text, "metavar": leaf.metavar}
        if leaf.is_bool:
            kind = {"action": argparse.BooleanOptionalAction}
        text = f"{leaf.help} (default: {leaf.to_text(leaf.get(base))})".replace("%", "%%")
        text = argparse.SUPPRESS if everyday_alone and not leaf.everyday else text
        groups[heading].add_argument(leaf.flag, dest=name, default=argparse.SUPPRESS, help=text, **kind)
    arguments = parser.parse_args(argv)
    given = vars(arguments)
    values: dict[str, Any] = {}
    for name in [name for name in chosen if name in given]:
        *path, last = name.split(".")
        section = functools.reduce(lambda mapping, key: mapping.setdefault(key, {}), path, values)
        section[last] = given.pop(name)
    return arguments, from_dict(cls, values, base, flags=True)
