"""The exceptions that tools turn into a line for the user."""


class UserError(ValueError):
    """A mistake of the user's: the message is one line that names the thing, its value and the way out."""

    status = 2
    """Exit status of a tool that ends with it."""


class ConfigError(UserError):
    """A key or a value of a config is not legal."""


LONGEST_WORD, LONGEST_LINE = 300, 1000
"""Characters of what is printed. Names in files may be as long as somebody likes."""


def one_line(text: str) -> str:
    """A message as it is printed: in one line, of words and a length that a person can read."""
    return _shortened(" ".join(_shortened(word, LONGEST_WORD) for word in text.split()), LONGEST_LINE)


def _shortened(text: str, limit: int) -> str:
    """A text without its middle: what is wrong often stands at the beginning, and the way out at the end."""
    half = limit // 2 - 1
    return text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"
