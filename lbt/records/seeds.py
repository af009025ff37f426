"""Most runs of a folder differ from another one in the seed alone: what is made of settings is made once for all seeds.

Of 100,000 records that is what takes the time.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from lbt.identity import from_json, identity, identity_of

ANY = 1  # the seed that stands for all but 0, which counts as absent


def others(config: Mapping[str, Any]) -> bytes | None:
    """Returns all settings but the seed, to be told apart by; None where the seed is none."""
    if type(config.get("seed")) is not int:
        return None
    return orjson.dumps({**config, "seed": ANY})


def identity_as_recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `lbt.identity.identity_of` of a record's settings."""
    known = others(config)
    return identity_of(config) if known is None else _with_seed(_recorded(known), config["seed"])


def identity_as_understood(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the identity of a record's settings as this version reads them, those it lacks at their defaults.

    Raises:
        UserError: settings that this version does not know.
    """
    known = others(config)
    return identity(from_json(config)) if known is None else _with_seed(_understood(known), config["seed"])


@lru_cache(maxsize=4096)
def _recorded(settings: bytes) -> dict[str, Any]:
    return identity_of(orjson.loads(settings))


@lru_cache(maxsize=4096)
def _understood(settings: bytes) -> dict[str, Any]:
    return identity(from_json(orjson.loads(settings)))


def _with_seed(of_any: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {key: float(seed) if key == "seed" else value for key, value in of_any.items() if key != "seed" or seed}
