"""A stop request by signal, in this very process."""

import os
import signal
from collections.abc import Iterator

import pytest

from kanctl.trainer.stop import StopRequest


@pytest.fixture(autouse=True)
def handlers_come_back() -> Iterator[None]:
    """The test runner's own handlers are in place again afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks(number: signal.Signals) -> None:
    stop = StopRequest()
    assert not stop.asked
    stop.on_signals()
    os.kill(os.getpid(), number)
    assert stop.asked


def test_terminate_may_come_again_a_second_interrupt_ends() -> None:
    stop = StopRequest()
    stop.on_signals()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
