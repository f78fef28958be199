"""The errors of a store, each with a message of one line."""

from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hide


class TrackingError(RuntimeError):
    """The store cannot be used as requested; the message is one line and says what to change."""


class SettingError(TrackingError, ConfigError):
    """A setting of `tracking` cannot be used: nothing was written, and the command must be changed."""


class UnavailableError(TrackingError):
    """The store does not answer, or not usefully: the data must be kept and sent later."""


class RefusedError(TrackingError):
    """The store answers, but will never accept this entry."""


def one_line(error: BaseException) -> str:
    """Return what an error says as one line of at most 300 characters, with passwords in addresses hidden."""
    text = hide(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
