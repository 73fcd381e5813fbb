# SPDX-License-Identifier: GPL-2.0-or-later
"""How a run ends early: SIGINT, SIGTERM and SIGHUP leave by an exception, so that everything
made so far is taken down, but never between making a thing and noting that it was made."""
import contextlib
import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopping:
    """The one instance is `stopping` below: signals belong to the whole process."""

    def __init__(self):
        self.depth = 0
        self.pending = None

    def catch(self):
        for number in SIGNALS:
            signal.signal(number, self._arrived)

    def ignore(self):
        """From now on the run is being taken down, and cannot be stopped twice."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _arrived(self, number, _frame):
        if self.depth:
            self.pending = number
            return
        self.ignore()
        raise SystemExit(128 + number)

    @contextlib.contextmanager
    def later(self):
        """A signal that arrives in here counts at the end of the block."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            if self.pending and not self.depth:
                self._arrived(self.pending, None)


stopping = Stopping()
