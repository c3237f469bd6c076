"""A progress bar on a terminal, and at most a line a minute in a log."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

LOG_SECONDS = 60.0


class _LogLines(tqdm):
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
        return tqdm(**source, desc=description, dynamic_ncols=True, file=sys.stderr)
    # With a delay, work that is over sooner prints nothing at all.
    times = {"mininterval": LOG_SECONDS, "maxinterval": 2 * LOG_SECONDS, "delay": LOG_SECONDS}
    return _LogLines(**source, desc=description, ncols=100, file=sys.stderr, **times)
