"""Starts the processes of a run on one machine, by torch's launcher, and says why they ended."""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from lbt.devices import QUIET
from lbt.devices.processes import is_lost
from lbt.errors import UserError, flat
from lbt.session.interrupt import Interrupt

HERE = "127.0.0.1"
MEMORY = ("OutOfMemoryError", "MemoryError")  # kinds of errors
TOO_LARGE = "ImagesTooLargeError"  # says itself what there is no memory for
LOST = 75  # exit code of a process that ends because another one is gone
PATIENCE = 20.0  # seconds such a process leaves the launcher to see which one it was


class DeviceError(Exception):
    """A process of a run has ended before its time; the text says which and why.

    Attributes:
        out_of_memory: that is why.
    """

    def __init__(self, text: str, *, out_of_memory: bool = False):
        super().__init__(text)
        self.out_of_memory = out_of_memory


def launch(work: Callable[..., Any], arguments: Sequence[Any], *, count: int, interrupt: Interrupt) -> Any:
    """Calls a function in several processes that know of each other, and returns what it returns in the first.

    They share the threads of this process, unless `OMP_NUM_THREADS` says how many each has. One that dies has the
    others end within half a minute. A signal is handed on to all of them; they end when they are ready to, or at once
    at a second Ctrl-C. If this process dies, that is a signal to them.

    Args:
        work: a module's function, of an `Interrupt` and `arguments`.
        arguments: can be sent to a process.
        count: of the processes.
        interrupt: hears the signals meanwhile, and of those that another process was sent.

    Raises:
        UserError: raised by the function.
        DeviceError: a process ended otherwise than by returning.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    logging.getLogger("torch.multiprocessing").setLevel(logging.CRITICAL)
    os.environ.setdefault(*QUIET)
    threads = max(1, torch.get_num_threads() // count)
    with tempfile.TemporaryDirectory(prefix="lbt-") as folder, _handed_on(interrupt) as stop:
        settings = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=f"{HERE}:0",
            local_addr=HERE,
            max_restarts=0,
            start_method="spawn",  # a fork server would not outlive a signal to all processes of a job
            logs_specs=DefaultLogsSpecs(log_dir=folder),  # for the errors of the processes
            signals_to_handle="SIGQUIT",  # torch's own way would leave them 30 s for an update
        )
        try:
            returned = elastic_launch(settings, _member)(work, arguments, stop, threads)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            raise _error(rank, failure) from None
    result, number = returned[0]
    if interrupt.signal is None:
        interrupt.signal = number
    return result


def _error(rank: int, failure: ProcessFailure) -> Exception:
    """Returns what to raise for the process that ended first."""
    who = f"device {rank} (process {failure.pid})"
    if failure.exitcode == LOST:
        return DeviceError(f"{who} lost the others")
    if failure.exitcode < 0:
        killer = signal.Signals(-failure.exitcode).name
        return DeviceError(f"{who} was killed by {killer}" + " (out of memory?)" * (killer == "SIGKILL"))
    found = failure.message
    kind, _, text = str(found.get("message", found) if isinstance(found, dict) else found).partition(": ")
    if kind == UserError.__name__:
        return UserError(text)
    if kind == TOO_LARGE:
        return DeviceError(f"{who}: {text}", out_of_memory=True)
    if kind in MEMORY or "can't allocate memory" in text:
        return DeviceError(f"{who} ran out of memory, which a smaller micro_batch saves", out_of_memory=True)
    shows = "" if kind == "OSError" else " (LBT_DEBUG=1 shows where)"
    return DeviceError(f"{who}: {kind}: {flat(text)}{shows}")


@contextmanager
def _handed_on(interrupt: Interrupt) -> Iterator[Event]:
    """Hands signals on to the processes that are started meanwhile; yields what tells those that start later."""
    others = set(multiprocessing.active_children())
    stop = multiprocessing.get_context("spawn").Event()

    def hand_on(again: bool) -> None:
        stop.set()
        for process in set(multiprocessing.active_children()) - others:
            process.kill() if again else process.terminate()

    quit_before = signal.getsignal(signal.SIGQUIT)
    interrupt.listener = hand_on
    try:
        with interrupt:
            yield stop
    finally:
        interrupt.listener = None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGQUIT, quit_before)


def _member(work: Callable[..., Any], arguments: Sequence[Any], stop: Event, threads: int) -> tuple[Any, int | None]:
    """The body of a process: what `work` returns, and the signal that it heard of."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for whoever looks there; torch is loaded
        torch.set_num_threads(threads)
    with Interrupt(patient=True) as interrupt:
        if stop.is_set():
            interrupt.signal = signal.SIGTERM
        try:
            result = work(interrupt, *arguments)
        except Exception as error:
            if not is_lost(error):
                if os.environ.get("LBT_DEBUG") == "1":
                    traceback.print_exc()
                raise
            until = time.monotonic() + PATIENCE
            while interrupt.signal is None and time.monotonic() < until:
                time.sleep(0.05)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(LOST)  # to take torch down would cost a busy machine longer than the launcher waits
    threading.Thread(target=_end_with_the_launcher, daemon=True).start()
    return result, interrupt.signal


def _end_with_the_launcher() -> None:
    """Ends this process, whose work is done, if the launcher is gone: torch would wait for it for ever."""
    launcher = multiprocessing.parent_process().pid
    while os.getppid() == launcher:
        time.sleep(0.5)
    os._exit(LOST)
