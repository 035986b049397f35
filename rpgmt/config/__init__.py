"""Configs: `schema` says which there are, `validation` how a field is declared and checked, `presets` where they come from."""

from rpgmt.config.schema import (
    AugmentationConfig,
    BalanceConfig,
    ClassifierConfig,
    ModelConfig,
    RPGConfig,
    TrainConfig,
    check_together,
    model_config,
    tell_without_effect,
)
from rpgmt.config.validation import Flag, config_class, from_dict
from rpgmt.config.yaml_files import load_yaml, to_dict, to_yaml
from rpgmt.errors import ConfigError, UserError

__all__ = [
    "AugmentationConfig",
    "BalanceConfig",
    "ClassifierConfig",
    "ConfigError",
    "Flag",
    "ModelConfig",
    "RPGConfig",
    "TrainConfig",
    "UserError",
    "check_together",
    "config_class",
    "from_dict",
    "load_yaml",
    "model_config",
    "tell_without_effect",
    "to_dict",
    "to_yaml",
]
