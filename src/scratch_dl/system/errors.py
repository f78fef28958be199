"""Errors of settings, used by every package, and the exit statuses of commands."""


class ConfigError(ValueError):
    """A setting cannot be used; the message is one line with its key, the rule and the actual value."""

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows instead of a traceback, as the message says it all."""
        return [f"{type(self).__name__}: {self}"]


USAGE, FAILURE, UNTRACKED = 2, 1, 3  # the exit statuses of a command


class UnknownKeyError(ConfigError):
    """A setting does not exist."""
