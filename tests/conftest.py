"""Fixtures of all tests."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

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
