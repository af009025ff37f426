"""Rows of numbers between processes of one machine; threads stand for the processes."""

import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lbt.devices.group import LostProcessError
from lbt.devices.neighbours import Neighbours


def meet(size):
    """All of them, by rank."""
    told = [queue.Queue() for _ in range(size)]

    def from_first(rank):
        def call(value):
            for box in told if rank == 0 else ():
                box.put(value)
            return told[rank].get(timeout=60)

        return call

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(lambda rank: Neighbours.meet(rank, size, from_first(rank)), range(size)))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [1, 129, 100_000])  # the last is more than a socket holds
def test_each_has_the_rows_of_all_by_rank(size, length):
    neighbours = meet(size)
    rows = torch.randn(7, size, length, dtype=torch.float64)
    late = threading.Event()

    def tell(rank):
        if rank == size // 2:
            late.wait(0.05)
        return torch.stack([neighbours[rank].told(row[rank]) for row in rows])

    with ThreadPoolExecutor(size) as threads:
        for found in threads.map(tell, range(size)):
            assert torch.equal(found, rows)


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_one_that_is_gone_is_told_by_all_others(gone):
    neighbours = meet(3)
    for link in neighbours[gone]._links:
        link.close()
    left = [one for rank, one in enumerate(neighbours) if rank != gone]

    def fails(one):
        with pytest.raises(LostProcessError):
            one.told(torch.zeros(100_000))
        for link in one._links:  # as its end does
            link.close()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(fails, left))


def test_all_do_without_where_no_socket_can_be_made(monkeypatch, tmp_path):
    long = tmp_path / ("x" * 120)  # longer than a socket's path may be
    os.mkdir(long)
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert meet(3) == [None] * 3
    assert not list(long.iterdir())


def test_nothing_stays_on_the_disk(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    neighbours = meet(2)
    assert None not in neighbours and not list(tmp_path.iterdir())
