"""What is measured of a training besides its task's figures: within an update or between two.

A module of this package with a `Probe`, entered in `PROBES`, adds one: `probes=[<name>]` switches it on, its readings
are in each epoch's line of the record under its name. What a probe measures depends on the run and changes nothing of
it, so `probes` is no part of a run's identity.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from lbt.config import Config
from lbt.config.binding import pick
from lbt.train.probes.batch_norm import BatchNorm
from lbt.train.probes.layer_norms import LayerNorms
from lbt.train.probes.noise_scale import NoiseScale
from lbt.train.probes.sharpness import Sharpness
from lbt.train.probes.stratified import Stratified

if TYPE_CHECKING:
    from lbt.train.update import Update


class Probe(Protocol):
    """Measures something at some updates; nothing of it but `read` waits for the device.

    One that looks at the weights between two updates, as `lbt.train.probes.looks.Looks`, has besides
    `wanted(update, ended=...)`, whether to look after this update (or before the first one; `ended`: it was its epoch's
    last one), and `look(update, ended=...)`, which may wait for the device.

    Attributes:
        obstacle: why no CUDA graph may hold the measurement. None: it is device work alone, the same at every update.
    """

    obstacle: str | None

    def due(self, step: int) -> bool:
        """Says whether update `step`, counted from 0, is measured."""

    def measure(self, update: "Update") -> None:
        """Measures: the gradient is there, clipped, and the weights have not moved yet."""

    def read(self) -> dict[str, Any]:
        """Returns and forgets what was measured since the last call, maybe nothing: numbers, texts, lists of them."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what an interrupted run needs to go on, in tensors, numbers, texts and containers of them."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""


# Name -> what makes the probe of a configuration, its model (on its device) and the most updates between two `read`s.
PROBES: dict[str, Callable[[Config, nn.Module, int], Probe]] = {
    "layer_norms": LayerNorms.of,
    "sharpness": Sharpness.of,
    "noise_scale": NoiseScale.of,
    "batch_norm": BatchNorm.of,
    "stratified": Stratified.of,
}


def chosen(config: Config, model: nn.Module, most: int) -> dict[str, Probe]:
    """Returns the run's probes by name.

    Args:
        config: settled configuration.
        model: on its device.
        most: the most updates between two calls of `read`.

    Raises:
        UserError: there is no probe of a name.
    """
    # `layer_norms=10` is older than `probes`: it switches its probe on alone.
    names = [*config.probes, *([] if config.layer_norms is None else ["layer_norms"])]
    return {name: pick("probes", name, PROBES)(config, model, most) for name in dict.fromkeys(names)}
