"""Serves Python functions to a Kapell worker: one process, many calls.

`serve` takes calls and answers them, `frames` is how they travel, `loading` finds the function,
`arguments` and `convert` make its arguments, `values` writes what it returns, `errors` what it raises,
`together` serves several tasks at a time. Only the standard library is imported before the user's
code, and of it as little as can be: what few calls need is imported where it is needed.
"""

import os

OWN_PID = os.getpid()


class BadCall(Exception):
    """The call cannot be made as it is; trying again is useless."""
