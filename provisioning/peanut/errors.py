"""The one exception that an operator sees, and the exit statuses of `peanut`.

Rule: a message says what is wrong in plain words, and `fix` says what to do about it. Neither holds a secret.
"""

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses; scripts depend on them, so they never change their meaning."""

    OK = 0
    REJECTED = 1  # send: the node said no
    USAGE = 2  # wrong arguments, or the fleet home is not in a state to do this; nothing was sent
    UNREACHABLE = 3  # send: no connection to the gateway
    CERTIFICATE = 4  # send: our certificate or the gateway's is not good
    REFUSED = 5  # send: the gateway's permissions say no
    OFFLINE = 6  # send: the node is offline and did not answer in time
    TIMEOUT = 7  # send: the node is there, yet did not finish in time


class PeanutError(Exception):
    """Something the operator can act on.

    message: what is wrong. fix: what to do; may be empty. status: the exit status of the command.
    """

    def __init__(self, message: str, fix: str = "", status: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.status = status
