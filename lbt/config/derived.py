"""Values that the configuration files work out from other settings, and the functions they call for it."""

import math
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from lbt.config.schema import BASE_BATCH
from lbt.errors import UserError


def table_lr(table: Mapping[int, list[float]], batch: int, rank: int | None) -> float:
    """Returns the protocol's learning rate for `batch`.

    Args:
        table: batch -> rates, ascending.
        batch: images per update; one that is not in the table takes the nearest batch's (by ratio) rate, times the
            square root of the batches' ratio; of a table with the same rates for all batches, these.
        rank: which of the rates; None is the middle one.

    Raises:
        UserError: the table has no such rank.
    """
    table = {int(key): list(rates) for key, rates in table.items()}
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise UserError(f"batch={batch}: expected a whole number, 1 or more")
    nearest = min(table, key=lambda known: abs(math.log(known / batch)))
    rates = table[nearest]
    rank = len(rates) // 2 if rank is None else rank
    if not isinstance(rank, int) or not 0 <= rank < len(rates):
        raise UserError(f"lr_rank={rank}: the protocol's table has the ranks 0 to {len(rates) - 1}")
    same = len(table) > 1 and all(known == rates for known in table.values())
    return rates[rank] * (1.0 if same else math.sqrt(batch / nearest))


def seconds(text: str | float | None) -> float | None:
    """Returns a duration such as `90`, `90s`, `9m` or `1.5h` in seconds; None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(text).strip())
    if not match:
        raise UserError(f"time_budget={text}: expected a duration such as 90s, 9m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _number(key: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UserError(f"{key}={value}: expected a number")
    return float(value)


def _epochs_or_share(limit: float, share: float, epochs: Any) -> float:
    """Returns `limit` epochs, or `share` of a training too short for it."""
    return min(float(limit), share * _number("epochs", epochs))


def _of_batch(values: Mapping[int, Any], batch: Any) -> Any:
    """Returns what is stated for a batch size.

    Raises:
        UserError: nothing is.
    """
    if batch not in values:
        known = ", ".join(map(str, values))
        raise UserError(f"batch={batch}: a length is stated for {known}; epochs= states one for others")
    return values[batch]


def register_resolvers() -> None:
    """Makes the functions the YAML files call known to OmegaConf."""
    for name, function in {
        "lbt.table_lr": lambda table, batch, rank: table_lr(table, batch, rank),
        "lbt.epochs_or_share": _epochs_or_share,
        "lbt.if_warm_up": lambda warmup, value, otherwise: value if warmup else otherwise,
        "lbt.of_batch": _of_batch,
        "lbt.part": lambda whole, parts: max(1, int(_number("batch", whole)) // parts),
        "lbt.per_base_batch": lambda value, batch: value * _number("batch", batch) / BASE_BATCH,
    }.items():
        OmegaConf.register_new_resolver(name, function, replace=True)
