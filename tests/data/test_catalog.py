"""The data sets by name."""

from __future__ import annotations

from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest

import tasks.classification
import tasks.multitask
import tasks.pose
from rpgmt.data.catalog import IMAGE_SETS, MULTITASK_SETS, POSE_SETS


@pytest.mark.parametrize(
    ("task", "catalog", "drawn"),
    [
        (tasks.pose, POSE_SETS, {"synthetic"}),
        (tasks.multitask, MULTITASK_SETS, {"synthetic"}),
        (tasks.classification, IMAGE_SETS, set()),
    ],
)
def test_the_names_of_the_sets_are_those_of_the_config(task: ModuleType, catalog: dict[str, Any], drawn: set[str]) -> None:
    assert set(get_args(get_type_hints(task.DataConfig)["name"])) == set(catalog) | drawn
