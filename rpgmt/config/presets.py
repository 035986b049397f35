"""Presets: `configs/<task>/<name>.yaml`, in a checkout or in what a wheel carries of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rpgmt.config.validation import did_you_mean, from_dict
from rpgmt.config.yaml_files import load_yaml
from rpgmt.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

_BUNDLE = Path(__file__).resolve().parents[1] / "bundle"
ROOT = _BUNDLE if _BUNDLE.is_dir() else _BUNDLE.parents[1]
"""The folder of ``tasks/``, ``configs/`` and ``tools/``: the checkout, or what a wheel carries of it."""
CONFIGS = ROOT / "configs"
DEFAULT_PRESET = "synthetic"
"""What a task's `Config` starts from, unless it names another `default_preset`."""


def load_preset(name: str, task: str, cls: type[C], configs: Path = CONFIGS) -> C:
    """Return the config of a preset ``configs/<task>/<name>.yaml`` or of a YAML file, a run's ``config.yaml`` too.

    A key ``task`` at the file's top, as a run's config has it, must be ``task``.

    Raises:
        ConfigError: no such preset or file, a config of another task, or an error in it (the line names the file).
    """
    path = configs / task / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
        if path.suffix not in (".yaml", ".yml") and not path.is_file():
            presets = preset_names(task, configs)
            raise ConfigError(
                f"`--config` is {name!r}: no such preset of {task}: {did_you_mean(name, presets)}"
                f"presets: {', '.join(presets) or 'none'}; or give a YAML file"
            )
    mapping = load_yaml(path)
    of_task = mapping.pop("task", task)
    if of_task != task:
        raise ConfigError(f"{path} is a config of the task `{of_task}`: not of `{task}`")
    try:
        return from_dict(cls, mapping, cls())  # what a section leaves out is as the task has it
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def preset_names(task: str, configs: Path = CONFIGS) -> list[str]:
    """The names of a task's presets."""
    return sorted(path.stem for path in (configs / task).glob("*.yaml"))
