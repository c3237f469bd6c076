"""A progress bar on a terminal, at most a line a minute in a log, and the expected time of long works."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

from pipeline.forecast import Forecast

LOG_SECONDS = 60.0


class _Bar(tqdm):
    """A bar that says once how long a long work will take."""

    forecast: Forecast | None = None

    def __iter__(self) -> Iterator[Any]:
        try:
            for item in self.iterable:
                yield item
                self.update()
        finally:
            self.close()

    def update(self, n: float | None = 1) -> bool | None:
        drawn = super().update(n)
        if self.forecast is not None and (line := self.forecast.line(int(self.n))):
            self.write(line)
            sys.stdout.flush()
        return drawn


class _LogLines(_Bar):
    """A bar that writes whole lines, for outputs that cannot move the cursor."""

    @staticmethod
    def status_printer(file: TextIO):
        def write(line: str) -> None:
            if line.strip():
                file.write(line.strip() + "\n")
                file.flush()

        return write


def progress(iterable_or_total: Iterable[Any] | int, description: str) -> tqdm:
    """Return a tqdm over an iterable, or one with a total to `update()` by hand (then use it in a `with`)."""
    is_total = isinstance(iterable_or_total, int)
    source = {"total": iterable_or_total} if is_total else {"iterable": iterable_or_total}
    if sys.stderr.isatty():
        bar = _Bar(**source, desc=description, dynamic_ncols=True, file=sys.stderr)
    else:
        # With a delay, work that is over sooner prints nothing at all.
        times = {"mininterval": LOG_SECONDS, "maxinterval": 2 * LOG_SECONDS, "delay": LOG_SECONDS}
        bar = _LogLines(**source, desc=description, ncols=100, file=sys.stderr, **times)
    if bar.total:
        bar.forecast = Forecast(description, bar.total)
    return bar
