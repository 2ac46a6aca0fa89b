"""What a function that Kapell runs may use of it. Pure Python, only the standard library."""

import contextvars
import os

__all__ = ["Failure", "directory", "fail", "idempotency_key"]

_directory = contextvars.ContextVar("kapell_directory", default=None)


class Failure(Exception):
    """Ends the step as failed with a message instead of a traceback.

    `retry=False` says that trying again is useless, whatever the step's `retry:` allows.
    """

    def __init__(self, message, retry=False):
        super().__init__(message)
        self.kapell_retry = bool(retry)


def fail(message, retry=False):
    """Ends the step as failed. Raises `Failure`."""
    raise Failure(message, retry)


def directory():
    """The attempt's own directory: the current one, unless the host runs several tasks at a time."""
    return _directory.get() or os.getcwd()


def idempotency_key():
    """The same text for every try of the step: for systems that take such a key."""
    return os.environ.get("KAPELL_IDEMPOTENCY_KEY", "")
