"""A request to end a run after its current step, set by a signal and read by the loop. No torch here: a stop may come
while torch is still being imported.
"""

import signal
from dataclasses import dataclass


@dataclass(slots=True)
class StopRequest:
    """Set by a signal handler; read by the loop between steps."""

    asked: bool = False

    def on_signals(self) -> None:
        """From now on SIGTERM and SIGINT ask for a stop; a second SIGINT ends the process at once."""

        def ask(number: int, _frame: object) -> None:
            self.asked = True
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.default_int_handler)

        signal.signal(signal.SIGTERM, ask)
        signal.signal(signal.SIGINT, ask)
