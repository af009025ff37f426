"""What draws random numbers in a training besides its data: torch's own generators."""

import torch


class Random:
    """Torch's own generators, of the host and of a device."""

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Returns the generators' states."""
        return {"cpu": torch.get_rng_state(), **({"cuda": torch.cuda.get_rng_state()} if self._cuda else {})}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Sets the generators."""
        torch.set_rng_state(state["cpu"].cpu())
        if self._cuda:
            torch.cuda.set_rng_state(state["cuda"].cpu())

    def changed(self, state: dict[str, torch.Tensor]) -> bool:
        """Says whether something has been drawn since `state_dict` gave this."""
        return any(not torch.equal(value, state[name]) for name, value in self.state_dict().items())
