"""How long workers need to exchange what they must, by the alpha-beta model: computed, not measured."""

LATENCY = 10e-6  # seconds of one message between two workers; an assumption, like every figure made from it


def all_reduce_seconds(
    size: float, workers: int, gigabits: float, *, latency: float = LATENCY, messages: int = 1
) -> float:
    """Returns the seconds of a ring all-reduce: 2 (n - 1) latencies, and 2 (n - 1)/n of the bytes through one link.

    Args:
        size: bytes that each worker has.
        workers: n.
        gigabits: a link's bandwidth in Gb/s, 10^9 bits.
        latency: seconds of one message.
        messages: parts (buckets) that are exchanged one after another, each with its own latencies.

    Source: Thakur, Rabenseifner, Gropp 2005, Optimization of Collective Communication Operations in MPICH, section 4.
    """
    if workers == 1:
        return 0.0
    return messages * 2 * (workers - 1) * latency + 2 * (workers - 1) / workers * size / (gigabits * 1e9 / 8)


def all_reduce_bytes(size: float, workers: int) -> float:
    """Returns the bytes that each of n workers sends in a ring all-reduce of `size` bytes."""
    return 2 * (workers - 1) / workers * size


def sent_seconds(
    sent: float, updates: int, workers: int, gigabits: float, *, latency: float = LATENCY, messages: int = 1
) -> float:
    """Returns the seconds in which each worker sends so many bytes: two phases of n - 1 messages an update.

    Args:
        sent: bytes that a worker sends in all.
        updates: in which they are sent.
        workers: n.
        gigabits: a link's bandwidth in Gb/s, 10^9 bits.
        latency: seconds of one message.
        messages: that are exchanged one after another in an update.
    """
    return updates * messages * 2 * (workers - 1) * latency + sent / (gigabits * 1e9 / 8)
