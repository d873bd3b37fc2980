"""Errors that a user can mend."""

from clip_xai.text import printable


class UserError(Exception):
    """Something the user can put right: one plain line that says what is wrong and what to do next.

    The command line prints the message alone, without a traceback, and exits with status 1. Control characters in it,
    which names of files may hold, are written out.
    """

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(map(printable, message.split("\n"))))
