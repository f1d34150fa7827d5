"""The command line. ``main`` is the one place where an error becomes a line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from c10k_probe.exits import ExitCode, UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``c10k-probe`` and leave with its exit code."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code."""
    try:
        from c10k_probe.cli.app import invoke  # inside, since Ctrl-C may come while it is imported

        code = invoke(arguments)
        sys.stdout.flush()
    except UserError as error:
        _complain(str(error))
        return int(error.code)
    except KeyboardInterrupt:
        _complain("interrupted")
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        code = int(ExitCode.UNREAD)
    except OSError as error:
        _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return int(ExitCode.ERROR)
    if code == ExitCode.UNREAD:
        _forget_readers()
    return code


def _forget_readers() -> None:
    """Who read our output has gone: the interpreter must not stumble over what is still buffered while it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _complain(text: str) -> None:
    print(f"c10k-probe: {text}", file=sys.stderr)
