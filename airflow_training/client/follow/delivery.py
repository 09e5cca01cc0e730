"""Having the news of many jobs taken: in one thread, by turns.

To take news is to write lines into a task log, for which Airflow takes up to half a millisecond each. In a thread the
event loop goes on meanwhile. Those of all jobs together, since a thread for each would cost more than the lines; by
turns, so that a job which floods its log keeps no other waiting.

If Airflow reads more slowly than lines are written, turns take longer. Once the updates of a job have been queued for
`LATE` seconds, all its queued lines are batched into one log record. The longer the queue, the larger the batches, so
the delay stabilizes instead of growing without limit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context

from airflow_training.client.follow.subscription import Follower
from airflow_training.client.follow.update import News

# Lines of all jobs that one thread takes; the way into a thread and back takes as long as a line or two.
_LINES_OF_A_TURN = 250


class Turns:
    """Those whose news wait to be taken.

    Args:
        room: Waits in the thread until there is room for the lines of a job, called before each piece.
    """

    def __init__(self, room: Callable[[], None] = lambda: None) -> None:
        self._room = room
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
        while turn := self._next():
            try:
                errors = await asyncio.to_thread(_take, turn, self._room)
            except Exception as error:  # noqa: BLE001 - no thread can be started, for instance
                errors = [error] * len(turn)
            for (follower, news), failure in zip(turn, errors, strict=True):
                if failure:
                    follower.leave()
                    follower.fail(failure)
                else:
                    follower.taken(news)

    def _next(self) -> list[tuple[Follower, News]]:
        turn: list[tuple[Follower, News]] = []
        lines = 0
        while self._waiting and lines < _LINES_OF_A_TURN:
            follower = self._waiting.popleft()
            if not follower.waits:
                continue  # it left
            news = follower.next_piece()
            turn.append((follower, news))
            lines += max(len(news.records), 1)
            if follower.waits:
                self._waiting.append(follower)
        return turn


def _take(turn: Sequence[tuple[Follower, News]], room: Callable[[], None]) -> list[Exception | None]:
    failed: dict[Follower, Exception] = {}
    errors = []
    for follower, news in turn:
        # What comes after a piece that is missing is not taken: the log is to be resumed before the gap.
        if follower not in failed:
            try:
                if news.records:
                    room()
                follower.take(news)
            except Exception as error:  # noqa: BLE001 - it is raised where the job is followed
                failed[follower] = error
        errors.append(failed.get(follower))
    return errors
