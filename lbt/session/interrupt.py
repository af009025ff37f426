"""Ctrl-C, SIGTERM and a launcher's signals, turned into a question the training loop asks between two updates."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LAUNCHERS = (signal.SIGUSR1, signal.SIGUSR2)  # a job scheduler's warning that time is up, where a launcher listens


class Interrupt:
    """Remembers the first signal while it is entered; a second Ctrl-C stops at once.

    It listens for Ctrl-C, SIGTERM, and those of SIGUSR1 and SIGUSR2 for which a launcher (submitit) has a handler.

    Args:
        patient: a second Ctrl-C is nothing new: the process that started this one tells it what it has heard itself.

    Attributes:
        listener: is told of each signal, and whether it is a second Ctrl-C; None: nobody is.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.signal: int | None = None
        self.listener: Callable[[bool], None] | None = None
        self.patient = patient
        self._before: dict[int, object] = {}

    def requested(self) -> bool:
        """Says whether the run is to stop after this update."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The shell's exit code for the signal: 130 for Ctrl-C, 143 for SIGTERM, 140 for SIGUSR2."""
        return 128 + (self.signal or 0)

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            listened = [number for number in LAUNCHERS if callable(signal.getsignal(number))]
            self._before = {number: signal.signal(number, self._handle) for number in (*SIGNALS, *listened)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hand_on(self) -> None:
        """Has the launcher's handler, if there is one, do what it does for its signal: requeue the job, and exit."""
        if self.signal in LAUNCHERS and callable(handler := self._before[self.signal]):
            handler(self.signal, None)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        again = self.signal is not None and number == signal.SIGINT and not self.patient
        if self.listener is not None:
            self.listener(again)
        if again:
            raise KeyboardInterrupt
        self.signal = number
