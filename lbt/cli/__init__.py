"""The `lbt` command: how a verb is called and how a mistake is told."""

import os
import sys
import time
from collections.abc import Sequence

from lbt.devices import QUIET, speaks, started
from lbt.errors import UserError, said

TOLD_SECONDS = 5.0  # torchrun ends all processes with the first: the one that tells a mistake is given this time
PIPE_CLOSED = 141  # a shell's exit code for SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 1 for a failed run, 2 for a mistake, 130 or 143 for a signal."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _prepare_streams()
        _refuse_other_encodings(arguments)
        code = _command(arguments)
        sys.stdout.flush()  # a closed pipe is noticed here at the latest
        return code
    except BrokenPipeError:  # who reads has enough: lbt status | head
        _discard_output()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("LBT_DEBUG") == "1":
            raise
        message = str(error) if isinstance(error, UserError) else said(error)
        if not isinstance(error, UserError | OSError):
            message += "; LBT_DEBUG=1 shows where"
        elif not speaks():  # all processes make the same mistake; one tells it, and torchrun then ends the others
            time.sleep(TOLD_SECONDS)
            return 2
    print(f"lbt: {message}", file=sys.stderr)
    return 2


def _command(arguments: Sequence[str]) -> int:
    if not speaks():
        _discard_output()
    if started() or "SLURM_PROCID" in os.environ:
        os.environ.setdefault(*QUIET)
    if arguments[:1] == ["train"] or arguments[:1] in (["-sc"], ["--shell-completion"]):
        from lbt.sweep.app import train

        return train(arguments)
    from lbt.cli.arguments import parser

    options = parser().parse_args(arguments)
    if not hasattr(options, "config_dir"):
        return options.run(options)
    from lbt.config import groups

    with groups.using(options.config_dir):
        return options.run(options)


def _prepare_streams() -> None:
    """Has output that knows few letters show the others by their numbers."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and (stream.encoding or "").lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Has what is still to be written go nowhere, so that the interpreter's end does not fail over it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _refuse_other_encodings(arguments: Sequence[str]) -> None:
    """Refuses paths that no record or table, all of them UTF-8, could hold."""
    for word in (*arguments, f"LBT_DATA={os.environ.get('LBT_DATA', '')}"):
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UserError(f"{word!r}: is not UTF-8; give the folder such a name, or a link that has one") from None
