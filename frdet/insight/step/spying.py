"""Watching functions of objects and modules while they do their own work."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Call:
    """One call of a watched function: what it was given, what it returned, and the seconds it took."""

    args: tuple
    kwargs: dict[str, Any]
    result: Any
    seconds: float


class Spy:
    """Calls of the watched functions by key, in order; used inside ``spying``."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self._undo: list[Callable[[], None]] = []
        self._own_time = 0.0

    def watch(self, owner: Any, name: str, key: str, digest: Callable[..., None] | None = None) -> None:
        """Keep the calls of ``owner.name`` under ``key``; the function itself runs as ever.

        Args:
            owner: an object or a Python module.
            name: its function.
            digest: is called with the result instead of keeping the call; its time counts for no watched function.
        """
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            own_time, begin = self._own_time, _now()
            result = original(*args, **kwargs)
            end = _now()
            if digest is None:
                seconds = end - begin - (self._own_time - own_time)
                self.calls[key].append(Call(args, kwargs, result, seconds))
            else:
                digest(result)
            self._own_time += _now() - end
            return result

        had_own = name in vars(owner)
        setattr(owner, name, watched)
        self._undo.append(lambda: setattr(owner, name, original) if had_own else delattr(owner, name))

    def stop(self) -> None:
        """Give every owner its own function back."""
        while self._undo:
            self._undo.pop()()


@contextmanager
def spying() -> Iterator[Spy]:
    """A ``Spy`` that ends with the context."""
    spy = Spy()
    try:
        yield spy
    finally:
        spy.stop()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
