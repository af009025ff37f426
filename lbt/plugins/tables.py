"""The tables of a plug-in, and those of the package that they are entered in."""

from collections.abc import Callable, Iterable, Mapping
from types import ModuleType

from lbt.errors import UserError

# A plug-in's tables, and what an entry of each is called.
KINDS = {
    "OPTIMIZERS": "optimizer", "SCHEDULES": "schedule", "MODELS": "model", "SOURCES": "data set", "TASKS": "task",
    "AUGMENTATIONS": "augmentation", "PROBES": "probe",
}  # fmt: skip


def register(
    module: ModuleType, where: str, others: Mapping[str, Iterable[tuple[str, str]]]
) -> frozenset[tuple[str, str]]:
    """Enters what a module brings; returns it as (table, name).

    Args:
        module: the plug-in.
        where: who named it, for a message.
        others: what other plug-ins brought, by their names.

    Raises:
        UserError: it brings nothing, or something under a name that is taken; nothing has been entered then.
    """
    tables = {kind: getattr(module, kind) for kind in KINDS if hasattr(module, kind)}
    if not tables:
        raise UserError(f"{where}: brings nothing; expected a table of {', '.join(KINDS)}")
    for kind, table in tables.items():
        if not isinstance(table, Mapping) or not all(isinstance(key, str) and callable(table[key]) for key in table):
            raise UserError(f"{where}: {kind}: expected names and what makes them, {kind} = {{'name': callable}}")
        known = _known(kind)
        for key, made in table.items():
            if known.get(key, made) is not made:
                brought = (f"the plug-in {name}" for name, brings in others.items() if (kind, key) in brings)
                owner = next(brought, getattr(getattr(known[key], "func", known[key]), "__module__", None) or "lbt")
                raise UserError(f'{where}: its {KINDS[kind]} "{key}" is one of {owner}, too; give it another name')
    for kind, table in tables.items():
        _enter(kind, table)
    return frozenset((kind, key) for kind, table in tables.items() for key in table)


def _known(kind: str) -> Mapping[str, Callable]:
    if kind == "OPTIMIZERS":
        from lbt import optim

        return {name: optim.get(name) for name in optim.names()}
    return _table(kind)


def _enter(kind: str, table: Mapping[str, Callable]) -> None:
    if kind == "OPTIMIZERS":
        from lbt import optim

        for name, factory in table.items():
            optim.register(name, factory)
    else:
        _table(kind).update(table)


def _table(kind: str) -> dict[str, Callable]:
    """Returns a table of the package; importing those that have them takes torch, and is left to whoever needs it."""
    if kind == "PROBES":
        from lbt.train.probes import PROBES

        return PROBES
    from lbt import data, models, schedules, tasks

    tables = {"SCHEDULES": schedules.SCHEDULES, "MODELS": models.MODELS, "SOURCES": data.SOURCES}
    return (tables | {"TASKS": tasks.TASKS, "AUGMENTATIONS": data.AUGMENTATIONS})[kind]
