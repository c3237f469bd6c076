"""How long a work will take, said once, after its first pieces were measured."""

import time
from collections.abc import Callable

LONG_SECONDS = 300.0
"""Works that will be over sooner say nothing."""
MEASURED_SECONDS = 5.0
"""Shortest time between the two moments that give the pace."""


class Forecast:
    """Watches how many of `total` pieces are done and gives one line for a long work.

    The pace is that between two calls: what came before the first piece was done (loading, warming up, work of an
    earlier run) does not count.
    """

    def __init__(self, what: str, total: int, clock: Callable[[], float] = time.monotonic):
        self.what, self.total, self.clock = what, total, clock
        self._first: tuple[float, int] | None = None
        self._told = False

    def line(self, done: int) -> str:
        """Return the line when the pace is known and the rest is long, once; else an empty text."""
        if self._told or done < 1:
            return ""
        now = self.clock()
        if self._first is None:
            self._first = now, done
        start, before = self._first
        if now - start < MEASURED_SECONDS or done == before:
            return ""
        self._told = True
        pace, left = (now - start) / (done - before), self.total - done
        if pace * left < LONG_SECONDS:
            return ""
        return f"{self.what}: about {duration(pace * left)} expected for {left} more, {pace:.3g} s each so far"


def duration(seconds: float) -> str:
    """Return a time in words: minutes below two hours, else hours, and days beside many hours."""
    hours = seconds / 3600
    if hours < 2:
        return f"{seconds / 60:.0f} minutes"
    return f"{hours:.1f} hours" + (f" ({hours / 24:.1f} days)" if hours >= 48 else "")
