"""The exceptions that tools turn into a line for the user."""


class UserError(ValueError):
    """A mistake of the user's: the message is one line that names the thing, its value and the way out."""

    status = 2
    """Exit status of a tool that ends with it."""


class ConfigError(UserError):
    """A key or a value of a config is not legal."""
