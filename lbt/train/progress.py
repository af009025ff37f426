"""How far a training has come."""

import time
from typing import Any

from torch import Tensor, float64, stack


class Progress:
    """Counts updates, epochs and images, sums an epoch's figures on the device and keeps the time.

    Attributes:
        step: updates made.
        epoch: epochs completed.
        seen: images of this epoch so far.
        sent: bytes that a worker has sent in this epoch so far, where the optimizer has workers.
        sums: of the loss and the task's other figures over these images; scalars in float64, on the device.
        threads: after how many updates the run had which number of CPU threads, from its beginning on.
    """

    def __init__(self) -> None:
        self.step = self.epoch = self.seen = self.sent = 0
        self.sums: dict[str, Tensor] = {}
        self.threads: list[tuple[int, int]] = []
        self._earlier = 0.0  # seconds of earlier sessions
        self._started = time.monotonic()

    def start(self) -> None:
        """Starts the session's clock."""
        self._started = time.monotonic()

    def seconds(self) -> float:
        """Returns the seconds spent on this run so far, earlier sessions included."""
        return self._earlier + time.monotonic() - self._started

    def add(self, figures: dict[str, Tensor]) -> None:
        """Adds an update's figures; nothing waits for the device."""
        for name, figure in figures.items():
            if name not in self.sums:
                self.sums[name] = figure.new_zeros((), dtype=float64)
            self.sums[name].add_(figure)

    def count(self, images: int) -> None:
        """Counts an update."""
        self.step += 1
        self.seen += images

    def means(self) -> dict[str, float]:
        """Returns the figures' means over the epoch's images so far; waits for the device."""
        return dict(zip(self.sums, (stack(list(self.sums.values())) / self.seen).tolist(), strict=True))

    def next_epoch(self) -> None:
        """Begins the next epoch. The sums stay where they are on the device: a captured update adds to them there."""
        self.epoch, self.seen, self.sent = self.epoch + 1, 0, 0
        for total in self.sums.values():
            total.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Returns the counts, the sums, the seconds and the threads."""
        counts = {"step": self.step, "epoch": self.epoch, "seen": self.seen, "sent": self.sent}
        return {**counts, "sums": self.sums, "seconds": self.seconds(), "threads": self.threads}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave; the session's clock starts."""
        self.step, self.epoch, self.seen = (int(state[count]) for count in ("step", "epoch", "seen"))
        self.sent = int(state.get("sent", 0))
        self.sums, self._earlier = dict(state["sums"]), float(state["seconds"])
        self.threads = [(int(step), int(number)) for step, number in state.get("threads", [])]
        self.start()
