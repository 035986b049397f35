"""The exceptions that tools turn into a line for the user, and what a line is."""


class UserError(ValueError):
    """A mistake of the user's: the message is one line that names the thing, its value and the way out."""

    status = 2
    """Exit status of a tool that ends with it."""


class ConfigError(UserError):
    """A key or a value of a config is not legal."""


LONGEST_WORD, LONGEST_LINE = 300, 1000
"""Characters of what is printed. Names in files may be as long as somebody likes."""


def one_line(text: str) -> str:
    """Text as a line for a terminal, whatever names and values from files are in it.

    Control characters, which could move the cursor or colour the screen, are spelt out; words and lines have a length that a
    person can read.
    """
    words = (_shortened(word, LONGEST_WORD) for word in text.split())
    return _shortened("".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(words)), LONGEST_LINE)


def _shortened(text: str, limit: int) -> str:
    """A text without its middle: what is wrong often stands at the beginning, and the way out at the end."""
    half = limit // 2 - 1
    return text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"
