import pytest

from lbt.report.kit.exchange import all_reduce_seconds


def simulated(size, workers, gigabits, latency):
    """Seconds of a ring played chunk by chunk: each of 2 (n - 1) rounds sends one n-th to the neighbour."""
    chunk = size / workers
    rounds = [latency + chunk * 8 / (gigabits * 1e9) for _ in range(workers - 1)]  # reduce-scatter
    return sum(rounds + rounds)  # and all-gather


@pytest.mark.parametrize("workers", [1, 2, 8, 512])
def test_an_exchange_takes_what_a_ring_played_round_by_round_takes(workers):
    expected = simulated(45e6, workers, 25, 1e-5) if workers > 1 else 0
    assert all_reduce_seconds(45e6, workers, 25, latency=1e-5) == pytest.approx(expected, rel=1e-12)


def test_each_message_has_its_own_latencies_and_its_share_of_the_bytes():
    once = all_reduce_seconds(1e8, 64, 100, latency=1e-4)
    parts = 5 * all_reduce_seconds(2e7, 64, 100, latency=1e-4)
    assert all_reduce_seconds(1e8, 64, 100, latency=1e-4, messages=5) == pytest.approx(parts, rel=1e-12)
    assert parts > once
