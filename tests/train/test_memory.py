"""What a process keeps of its memory."""

import platform
import subprocess
import sys

import pytest

AGAIN = """
import resource, sys
import torch
from lbt.train.memory import keep_freed

if sys.argv[1] == "kept":
    keep_freed()
faults = []
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [torch.ones(count << 18) for count in (1, 8, 48)]  # MiB, of which glibc would map the largest anew
    del pieces
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[4:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_what_is_freed_serves_again_without_page_faults():
    faults = {}
    for how in ("given back", "kept"):
        done = subprocess.run([sys.executable, "-c", AGAIN, how], capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    assert faults["kept"] < 100 < 10_000 < faults["given back"], faults
