"""Having the news of many jobs taken: in one thread, by turns.

To take news is to write lines into a task log, for which Airflow takes up to half a millisecond each. In a thread the
event loop goes on meanwhile. Those of all jobs together, since a thread for each would cost more than the lines; by
turns, so that a job which floods its log keeps no other waiting.

If Airflow does not read as fast as lines are written, the turns take longer and longer. The lines of some seconds are
then written together, of more and more seconds until the turns are short again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context

from airflow_training.client.follower import Follower
from airflow_training.client.news import INTERVAL, News

# Lines of all jobs that one thread takes; the way into a thread and back takes as long as a line or two.
_LINES_OF_A_TURN = 250


class Overload:
    """How many seconds of lines are written together, by how long jobs wait for their turn.

    Attributes:
        window: Seconds whose lines are written together; 0 if each is written alone.
    """

    _SMALLEST, _LARGEST = 4, 64
    # Seconds for which turns are too long before anything is done about it: a hiccup passes.
    _SUSTAINED = 5.0
    # Seconds to wait before the next change, and for each job: each stores the new window first.
    _SETTLES, _SETTLES_EACH = 15.0, 0.04
    # Seconds of short turns before a smaller window is tried. How much room there is shows only then: twice as long
    # after each time that it was too small.
    _CALM, _LONGEST_CALM = 60.0, 3600.0

    def __init__(self) -> None:
        self.window = 0
        self._late = self._lowered = -math.inf
        self._late_since = math.inf
        self._calm = self._CALM
        self._next_change = 0.0

    def note(self, waited: float, jobs: int) -> None:
        """Note a turn.

        Args:
            waited: Seconds that a job waited for it at most.
            jobs: How many jobs there are.
        """
        now = time.monotonic()
        # Updates come once in an interval: a job that waits longer has the next ones before it has written the last.
        if waited <= INTERVAL:
            self._late_since = math.inf
        else:
            self._late_since, self._late = min(self._late_since, now), now
        if now < self._next_change:
            return
        if now - self._late_since >= self._SUSTAINED:
            failed = now - self._lowered < 2 * self._calm
            self._calm = min(2 * self._calm, self._LONGEST_CALM) if failed else self._CALM
            self._change(min(max(2 * self.window, self._SMALLEST), self._LARGEST), jobs)
        elif self.window and now - max(self._late, self._next_change) >= self._calm:
            self._lowered = now
            self._change(self.window // 2 if self.window > self._SMALLEST else 0, jobs)

    def _change(self, window: int, jobs: int) -> None:
        self.window, self._late_since = window, math.inf
        self._next_change = time.monotonic() + self._SETTLES + jobs * self._SETTLES_EACH


class Turns:
    """Those whose news wait to be taken.

    Args:
        room: Waits in the thread until there is room for the lines of a job, called before each piece.
        jobs: Returns how many jobs there are.
    """

    def __init__(self, room: Callable[[], None] = lambda: None, jobs: Callable[[], int] = lambda: 1) -> None:
        self._room = room
        self._jobs = jobs
        self._overload = Overload()
        self._waiting: deque[Follower] = deque()
        self._task: asyncio.Task[None] | None = None

    def tell(self, follower: Follower, pieces: Sequence[News]) -> None:
        """Have news taken when it is their turn."""
        if not follower.waits:
            self._waiting.append(follower)
        follower.tell(pieces)
        if not self._task or self._task.done():
            # What the one who came first logs or has in its context is no matter of the others'.
            self._task = Context().run(asyncio.ensure_future, self._work())

    async def _work(self) -> None:
        while True:
            turn, waited = self._next()
            if not turn:
                return
            try:
                taken = await asyncio.to_thread(_take, turn, self._room)
            except Exception as error:  # noqa: BLE001 - no thread can be started, for instance
                taken = [error] * len(turn)
            self._overload.note(waited, self._jobs())
            for (follower, news), result in zip(turn, taken, strict=True):
                if isinstance(result, Exception):
                    follower.leave()
                    follower.fail(result)
                    continue
                follower.taken(news, self._overload.window)
                if result is not None:
                    follower.remind(result, self._remind)

    def _remind(self, follower: Follower) -> None:
        """Have a follower take nothing, so that it writes what it holds back; behind what it was told."""
        if follower.status and not follower.done:
            self.tell(follower, [News(follower.status, [], 0)])

    def _next(self) -> tuple[list[tuple[Follower, News]], float]:
        """The next turn, and the seconds that a job has waited for it at most."""
        turn: list[tuple[Follower, News]] = []
        lines, waited = 0, 0.0
        while self._waiting and lines < _LINES_OF_A_TURN:
            follower = self._waiting.popleft()
            if not follower.waits:
                continue  # it left
            waited = max(waited, follower.waited)
            news = follower.next_piece()
            turn.append((follower, news))
            lines += max(len(news.records), 1)
            if follower.waits:
                self._waiting.append(follower)
        return turn, waited


def _take(turn: Sequence[tuple[Follower, News]], room: Callable[[], None]) -> list[Exception | float | None]:
    failed: dict[Follower, Exception] = {}
    taken: list[Exception | float | None] = []
    for follower, news in turn:
        # What comes after a piece that is missing is not taken: the log is to be resumed before the gap.
        if follower in failed:
            taken.append(failed[follower])
            continue
        try:
            if news.records:
                room()
            taken.append(follower.take(news))
        except Exception as error:  # noqa: BLE001 - it is raised where the job is followed
            failed[follower] = error
            taken.append(error)
    return taken
