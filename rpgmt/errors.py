"""The exceptions that tools turn into a line for the user, and what a line is."""


class UserError(ValueError):
    """A mistake of the user's: the message is one line that names the thing, its value and the way out."""


class ConfigError(UserError):
    """A key or a value of a config is not legal."""


def one_line(text: str, longest: int = 1000) -> str:
    """Text as a line for a terminal, whatever names and values from files are in it.

    Control characters, which could move the cursor or colour the screen, are spelt out; of a long text the middle is left out.
    """
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
    return text if len(text) <= longest else f"{text[: longest - 300]} … {text[-297:]}"
