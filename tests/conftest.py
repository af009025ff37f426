"""Fixtures of all tests."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

# Tests that run beside others compute with one thread, and so do the commands that they start: on oversubscribed cores
# small trainings with two are many times slower. It has to be said before torch is loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from filelock import FileLock

# absl, which jax brings along, keeps the stream it finds at its import and closes it when logging is configured anew,
# as Hydra does; while pytest captures, that stream is pytest's own.
with contextlib.suppress(ImportError):
    import absl.logging

    absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__

# Without a GPU the fused kernels run in Triton's interpreter, which has to be chosen before anything imports triton.
if not torch.cuda.is_available():
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError("triton was imported before the tests could choose its interpreter: set TRITON_INTERPRET=1")
    os.environ["TRITON_INTERPRET"] = "1"

# A shell's background jobs ignore Ctrl-C and so would the commands that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]
MOST_PROCESSES = 8  # each loads torch for itself, and the slowest file takes longer than an eighth of the others


def pytest_xdist_auto_num_workers(config):
    """A process for each core; none besides pytest's own for what is picked from the suite or computed on a GPU."""
    picked = any(config.getoption(name, None) for name in ("keyword", "markexpr", "lf", "collectonly"))
    if picked or any(".py" in word for word in config.args) or torch.cuda.is_available():
        return 0
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


# What takes longest begins, so that no process is left alone with it at the end; see `pytest --durations=0`.
FIRST = (
    *("test_suite.py", "test_triton.py", "test_torch_conventions.py", "test_devices.py", "test_launch.py"),
    *("test_loop.py", "test_cli.py", "test_parallel.py", "test_packaging.py", "test_scripts.py", "test_compiled.py"),
)


def pytest_collection_modifyitems(items):
    """Puts the slowest files in front; the order inside of a file stays."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real `cifar10/` and `tiny-imagenet-200/`: $LBT_TEST_DATA, or unpacked once beside it."""
    if given := os.environ.get("LBT_TEST_DATA"):
        return Path(given)
    unpack = REPOSITORY.parent / "shared" / "data" / "unpack"
    if not unpack.exists():
        pytest.skip(f"no real images: LBT_TEST_DATA is not set and {unpack} does not exist")
    folder = Path(tempfile.gettempdir()) / "lbt-test-data"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"):
        subprocess.run([unpack, folder], check=True, capture_output=True)
    return folder
