"""Things of which each event loop has one, shared by all that runs on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Gives out one thing for each event loop, and makes it when it is asked for first.

    Args:
        make: Makes one.

    >>> numbers = PerLoop(list[int])
    >>> async def same() -> bool:
    ...     return numbers.get() is numbers.get()
    >>> asyncio.run(same())
    True
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._there: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def get(self) -> T:
        """That of the loop that runs."""
        loop = asyncio.get_running_loop()
        if loop not in self._there:
            self._there[loop] = self._make()
        return self._there[loop]
