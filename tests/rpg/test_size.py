from __future__ import annotations

import pytest

from rpgmt.rpg.size import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        (1, 1),
        ("36864", 36_864),
        (36_864, 36_864),
        ("1K", 1_000),
        ("250K", 250_000),
        ("250k", 250_000),
        (" 250 K ", 250_000),
        ("1M", 1_000_000),
        ("1.5M", 1_500_000),
        ("1.1M", 1_100_000),
        ("0.001K", 1),
        ("2G", 2_000_000_000),
        ("2147483647", 2**31 - 1),
        (2**31 - 1, 2**31 - 1),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(text, generated=7) == size  # only a percentage depends on it


@pytest.mark.parametrize(
    ("text", "generated", "size"),
    [
        ("25%", 1000, 250),
        ("25%", 1001, 250),  # 250.25
        ("25%", 1002, 251),  # 250.5
        ("25%", 1003, 251),  # 250.75
        ("12.5%", 80, 10),
        ("100%", 36_864, 36_864),
        ("250%", 100, 250),
        ("0.001%", 10, 1),  # at least 1
        ("25 %", 8, 2),
        ("33.3%", 2**31 - 1, 715_112_054),  # 715112054.451
    ],
)
def test_percentages(text: str, generated: int, size: int) -> None:
    assert parse_size(text, generated) == size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0", "`size` is 0: give at least 1, e.g. 250K"),
        (0, "`size` is 0: give at least 1, e.g. 250K"),
        ("-5", "`size` is -5: give at least 1, e.g. 250K"),
        (-5, "`size` is -5: give at least 1, e.g. 250K"),
        ("0K", "`size` is 0K: give at least 1, e.g. 250K"),
        ("0%", "`size` is 0%: give at least 1, e.g. 250K"),
        ("1Q", "`size` is '1Q': not a size, e.g. 1M, 250K, 36864 or 25%"),
        ("nan", "`size` is 'nan': not a size, e.g. 1M, 250K, 36864 or 25%"),
        ("inf", "`size` is 'inf': not a size"),
        ("", "`size` is '': not a size"),
        ("K", "`size` is 'K': not a size"),
        ("1e6", "`size` is '1e6': not a size"),
        ("1M5", "`size` is '1M5': not a size"),
        ("1 2", "`size` is '1 2': not a size"),
        ("١M", "`size` is '١M': not a size"),  # digits are ASCII
        ("1.5", "`size` is 1.5: not a whole number of parameters"),
        ("0.0001K", "`size` is 0.0001K: not a whole number of parameters"),
        (1.5, "`size` is 1.5: give a size"),
        (True, "`size` is True: give a size"),
        (None, "`size` is None: give a size"),
        ("2147483648", "`size` is 2147483648: must be below 2**31"),
        (2**31, "`size` is 2147483648: must be below 2**31"),
        ("3G", "`size` is 3G: must be below 2**31"),
        ("25%", "`size` is 25%: a percentage needs the number of generated weights"),
    ],
)
def test_what_is_no_size_is_one_clear_line(text: object, words: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the line is compared whole below
        parse_size(text)  # type: ignore[arg-type]
    line = str(error.value)
    assert line.startswith(words)
    assert "\n" not in line


def test_a_percentage_above_the_limit_is_an_error() -> None:
    with pytest.raises(ValueError, match="must be below"):
        parse_size("200%", 2**31 - 1)


def test_the_error_names_the_value() -> None:
    with pytest.raises(ValueError, match="`--rpg-size` is 0: give at least 1"):
        parse_size("0", name="--rpg-size")
