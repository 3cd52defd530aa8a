"""Signals that ask to stop: Ctrl-C, SIGTERM, a terminal that closes; and nohup, which wants the last to do nothing."""

import signal

import pytest

from alexnet.tools.console import interruptible
from alexnet.tools.run.ending import STOPPING, StopSignal

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", ASKING)
def test_a_command_ends_with_its_line_and_130(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, interruptible("interrupted; the same command continues"):
        signal.raise_signal(number)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted; the same command continues\n"
    for again in ASKING:
        signal.raise_signal(again)


@pytest.mark.parametrize("number", ASKING)
def test_training_is_asked_to_stop(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    stop = StopSignal(alone=True)
    with stop.listening():
        assert not stop()
        signal.raise_signal(number)
    assert stop()
    assert capsys.readouterr().err == STOPPING + "\n"


def test_a_terminal_that_closes_says_so_twice_and_does_not_stop_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    stop = StopSignal(alone=True)
    with stop.listening():
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert capsys.readouterr().err.count(STOPPING) == 1


def test_a_reader_that_leaves_stops_training_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    stop = StopSignal(alone=True)
    with stop.listening():
        signal.raise_signal(signal.SIGPIPE)
    assert stop()
    assert capsys.readouterr().err == ""


def test_under_nohup_a_terminal_may_close() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopSignal(alone=True)
    with stop.listening():
        signal.raise_signal(signal.SIGHUP)
    assert not stop()
    with interruptible("interrupted"):
        signal.raise_signal(signal.SIGHUP)
