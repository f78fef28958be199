"""What is wrong with a setting, as every package says it."""

USAGE, FAILURE, UNTRACKED = 2, 1, 3  # the exit statuses of a command


class ConfigError(ValueError):
    """A setting that cannot be used, in one line: its key, the rule and the value got."""


USAGE, FAILURE, UNTRACKED = 2, 1, 3  # the exit statuses of a command


class UnknownKeyError(ConfigError):
    """A setting that there is not."""
