"""The typed configuration of one run: schema, values that depend on others, checks, and the folders of choices."""

from lbt.config.derived import register_resolvers, seconds, table_lr
from lbt.config.groups import CONFIG_DIR
from lbt.config.resolution import resolve, typed
from lbt.config.schema import (
    BASE_BATCH,
    BEFORE,
    BranchConfig,
    Config,
    DataConfig,
    ProbeConfig,
    SweepConfig,
    WandbConfig,
    length_of,
    network_of,
    scaling_factor,
)

__all__ = [
    "BASE_BATCH",
    "BEFORE",
    "CONFIG_DIR",
    "BranchConfig",
    "Config",
    "DataConfig",
    "ProbeConfig",
    "SweepConfig",
    "WandbConfig",
    "length_of",
    "network_of",
    "register_resolvers",
    "resolve",
    "scaling_factor",
    "seconds",
    "table_lr",
    "typed",
]
