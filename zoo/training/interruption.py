"""What a run does when it is told to stop: finish the step, save, and go. It knows signals and nothing of models."""

import signal
import threading


class Interrupted(KeyboardInterrupt):
    """A run was told to stop by a signal; told once, it saved its state before.

    Attributes:
        number: of the signal; a process that ends for it exits with 128 more.
    """

    def __init__(self, number):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class Interruption:
    """Within it, SIGTERM and SIGINT are only noted, in `number`, for who runs the loop to look at; a second one stops
    at once.

    >>> with Interruption() as stop:
    ...     stop.number is None
    True
    """

    def __init__(self):
        self.number, self._before = None, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # others get no signals
            self._before = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        if self.number is not None:
            raise Interrupted(number)
        self.number = number
