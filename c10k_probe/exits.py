"""Exit codes and the one kind of error that a user is meant to read.

An exit code is added here and nowhere else.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the command tells the shell, with the reason for each number."""

    OK = 0  # every planned cell was measured, or skipped for a reason that its row gives
    ERROR = 1  # the run could not be made, or its results could not be kept
    USAGE = 2  # the command line was refused before anything was measured
    INCOMPLETE = 3  # some cells failed or hit a wall; what was measured is kept
    REGRESSION = 4  # a comparison found one
    NOTHING_MEASURED = 77  # nothing of this can be measured here (the test suites' "skip")
    INTERRUPTED = 130  # Ctrl-C, SIGTERM or SIGHUP; partial results are kept
    UNREAD = 141  # who read the output has closed its end, as head does; as a shell names death by SIGPIPE


class UserError(Exception):
    """One line for the user: what happened, why, and what to type next.

    It may be raised anywhere and is printed in one place, ``cli.main``.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.ERROR) -> None:
        super().__init__(message)
        self.code = code


class UsageError(UserError):
    """The command line asks for something that cannot be; nothing was measured."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.USAGE)
