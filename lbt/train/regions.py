"""Where the parts of a training begin and end, for whoever wants to know how long they take."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

REGIONS = ("data", "augmentation", "forward", "backward", "optimizer", "evaluation", "recording", "rest of the loop")

_NOTHING = nullcontext()


class Regions:
    """Is told of every part by its name, one of `REGIONS`; does nothing with it. `lbt.profile` has one that measures.

    Parts may lie inside each other.
    """

    def region(self, name: str) -> AbstractContextManager[Any]:
        """Returns the context in which a part is executed."""
        return _NOTHING

    def each(self, name: str, values: Iterable[Any]) -> Iterable[Any]:
        """Returns what yields `values`, each of which is made in the region."""
        return values

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, each call of which is a region."""
        return function


class Timed(Regions):
    """What `each` and `around` are where `region` does something."""

    def each(self, name: str, values: Iterable[Any]) -> Iterator[Any]:
        """Yields `values`, each of which is made in the region."""
        iterator, end = iter(values), object()
        while True:
            with self.region(name):
                value = next(iterator, end)
            if value is end:
                return
            yield value

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that calls `function` in the region."""

        def timed(*arguments: Any, **keywords: Any) -> Any:
            with self.region(name):
                return function(*arguments, **keywords)

        return timed
