"""Errors that a user can mend."""


class UserError(Exception):
    """Something the user can put right: one plain line that says what is wrong and what to do next.

    The command line prints the message alone, without a traceback, and exits with status 1.
    """
