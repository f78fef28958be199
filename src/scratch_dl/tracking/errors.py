"""What can go wrong with a store, each told in one line."""

from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hide


class TrackingError(RuntimeError):
    """The store cannot be used as asked; the message is one line and says what to change."""


class SettingError(TrackingError, ConfigError):
    """A setting of `tracking` cannot be used: nothing was written, and the command is to be given otherwise."""


class UnavailableError(TrackingError):
    """The store does not answer, or not usefully: what was to be sent has to be kept."""


class RefusedError(TrackingError):
    """The store answers, and will never take this entry."""


def one_line(error: BaseException) -> str:
    """Return what an error says as one line of at most 300 characters, addresses in it without their passwords."""
    text = hide(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
