"""The exceptions that tools turn into a line for the user."""


class UserError(ValueError):
    """A mistake of the user's: the message is one line that names the thing, its value and the way out."""


class ConfigError(UserError):
    """A key or a value of a config is not legal."""
