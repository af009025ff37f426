"""Which runs of a sweep have come to an end before."""

from collections.abc import Sequence

from lbt.config import Config
from lbt.devices import started
from lbt.errors import UserError
from lbt.records import index, places
from lbt.session.outcome import Outcome


def finished(configs: Sequence[Config]) -> list[Outcome | None]:
    """Returns the outcome of each run that has come to an end before, None for the others.

    What this machine cannot tell (it lacks the device or the data) is left to the job, which may run on another.
    """
    if started():  # each process would look for itself, and might see another one's end that the others have not seen
        return [None] * len(configs)
    from lbt import run

    known = {results_dir: index.by_key(results_dir) for results_dir in {config.results_dir for config in configs}}
    found: list[Outcome | None] = []
    fingerprints: dict[str, str] = {}
    for config in configs:
        try:
            found.append(run.finished(config, known[config.results_dir], fingerprints))
        except UserError:
            found.append(None)
    for results_dir in known:
        places.clear(results_dir, [one.id for one in found if one and one.config.results_dir == results_dir])
    return found
