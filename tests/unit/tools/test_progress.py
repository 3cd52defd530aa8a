"""Progress says how much, how fast and how long still, now and then; of training, that a loss stays at guessing."""

import io
import json
import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from alexnet.model.metrics import is_logged
from alexnet.tools.progress import Amount, Bar, JsonEvents, PlainLines, event, progress, sentence
from alexnet.tools.run.sinks import StuckLoss


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def images(done: int, total: int | None = 100, stage: str = "", **counts: int) -> Amount:
    return Amount(event="progress", stage=stage, done=done, total=total, unit="images", counts=counts)


def told(view_of: Callable[[io.StringIO, Clock], JsonEvents | PlainLines], moments: list[tuple[float, Amount]]) -> str:
    """Return what a view prints when it is told amounts at some seconds."""
    stream, clock = io.StringIO(), Clock()
    view = view_of(stream, clock)
    for seconds, amount in moments:
        clock.now = 1000.0 + seconds
        view.update(amount)
    view.close()
    return stream.getvalue()


def test_the_pace_counts_from_the_first_amount_of_a_stage() -> None:
    """40 were done before it looked; the next stage begins anew, and does not know its total."""
    first = [(0.0, images(40)), (2.0, images(60))]
    then = [(3.0, images(7, stage="next")), (4.0, images(9, None, stage="next"))]
    events = [json.loads(line) for line in told(JsonEvents, first + then).splitlines()]
    assert [(e["images_per_s"], e["seconds_left"]) for e in events] == [(None, None), (10, 4), (None, None), (2, None)]


@pytest.mark.parametrize(
    ("amount", "pace", "line"),
    [
        (images(1234, 10_000, rejected=3), (412.4, 21.3), "1,234 of 10,000 images (12%), "
         "412 images/s, 3 rejected, 21 s left"),
        (Amount(event="index", stage="train", done=2_500_000_000, total=10_000_000_000, unit="bytes",
                counts={"entries": 9}), (5e6, 1500),
         "index train: 2,500 of 10,000 MB (25%), 5 MB/s, 9 entries, 25 min left"),
        (Amount(event="index", stage="changes", done=17, total=None, unit="folders"),
         (None, None), "index changes: 17 folders"),
        (images(0, 0), (None, None), "0 of 0 images (100%)"),
        (images(1, 10), (0.001, 9000), "1 of 10 images (10%), 0 images/s, 2 h 30 min left"),
    ],
)  # fmt: skip
def test_what_people_read(amount: Amount, pace: tuple[float | None, float | None], line: str) -> None:
    assert sentence(amount, *pace) == line


def test_what_machines_read() -> None:
    told = {"event": "progress", "done": 5, "total": 100, "unit": "images"}
    assert event(images(5, rejected=1), 2.04, 47.4) == {**told, "rejected": 1, "images_per_s": 2.0, "seconds_left": 47}
    unknown = {**told, "stage": "train", "total": None, "images_per_s": None, "seconds_left": None}
    assert event(images(5, None, "train"), None, None) == unknown


def test_plain_lines_come_every_30_seconds() -> None:
    moments = [(t / 10, images(t // 10)) for t in range(901)]
    lines = told(PlainLines, moments).splitlines()
    assert [line.split(" of")[0] for line in lines] == ["30", "60", "90"]
    assert lines[1] == "60 of 100 images (60%), 1 images/s, 40 s left"


def test_events_come_each_second_and_at_both_ends_of_each_stage() -> None:
    one = [(t / 10, images(t, stage="one")) for t in range(25)]
    two = [(2.45 + t / 10, images(t, stage="two")) for t in range(4)]
    events = [json.loads(line) for line in told(JsonEvents, one + two).splitlines()]
    shown = [*(("one", done) for done in (0, 10, 20, 24)), ("two", 0), ("two", 3)]
    assert [(e["stage"], e["done"]) for e in events] == shown
    assert events[1]["images_per_s"] == 10.0


def test_the_bar_is_gone_when_it_closes_however_that_comes(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Terminal()

    def interrupted() -> None:
        with progress(as_json=False, stream=stream) as view:
            assert isinstance(view, Bar)
            view.update(images(50, rejected=2))
            print("elsewhere")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    shown = stream.getvalue()
    assert "50 of 100 images (50%), 2 rejected" in shown
    assert shown.endswith("\x1b[1A\x1b[2K"), "the line it stood on is cleared last"
    assert capsys.readouterr().out == "elsewhere\n", "what goes to another stream stays there"


@pytest.mark.parametrize(("as_json", "stream"), [(False, io.StringIO()), (True, Terminal()), (False, Terminal())])
def test_the_view_fits_the_stream_and_shows_nothing_without_an_amount(as_json: bool, stream: io.StringIO) -> None:
    with progress(as_json=as_json, stream=stream) as view:
        assert isinstance(view, JsonEvents if as_json else Bar if stream.isatty() else PlainLines)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("variable", "value"), [("TERM", "dumb"), ("TTY_COMPATIBLE", "0"), ("FORCE_COLOR", "1")])
def test_a_terminal_that_cannot_move_back_gets_lines(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    stream = io.StringIO() if variable == "FORCE_COLOR" else Terminal()  # colours do not make a log a terminal
    with progress(as_json=False, stream=stream) as view:
        assert isinstance(view, PlainLines)


def noisy(level: float, steps: int) -> list[float]:
    return list(level + 0.05 * np.random.default_rng(0).standard_normal(steps))


GUESSING = math.log(10)


@pytest.mark.parametrize(
    ("losses", "options", "said"),
    [
        (noisy(GUESSING, 150), {"total_steps": 150}, [100]),  # a fifth of the run, of 100 to 5,000 steps
        (noisy(GUESSING, 3000), {"total_steps": 5000}, [1000]),
        (noisy(math.log(1000), 15_000), {"total_steps": 900_000, "classes": 1000}, [5000]),
        (noisy(GUESSING, 500), {"warmup_steps": 60}, [180]),  # the first record after the warm-up is that of step 80
        ([*np.linspace(2.3, 1.5, 200), *noisy(GUESSING, 300)], {}, [320]),  # the rectifiers died: it comes back
        (np.linspace(5.0, 0.1, 500), {}, []),  # it falls through
        ([*np.linspace(4.0, 2.3, 90), *np.linspace(2.3, 0.3, 410)], {}, []),
        (noisy(0.8 * GUESSING, 500), {}, []),
        ([0.0] * 500, {"classes": 1}, []),  # of one class there is nothing to guess
    ],
)
def test_a_loss_that_stays_at_guessing_is_called_out_once(
    losses: Iterable[float], options: dict[str, int], said: list[int]
) -> None:
    lines: list[str] = []
    at: list[int] = []
    given = {"classes": 10, "warmup_steps": 0, "total_steps": 500, **options}
    stuck = StuckLoss(**given, say=lines.append)
    for step, loss in enumerate(losses, 1):
        if is_logged(step):
            stuck.record({"step": step, "loss": loss})
        stuck.step(step)
        at += [step] * (len(lines) > len(at))
    assert at == said
    for line in lines:
        assert f"near ln({given['classes']:,}) = {math.log(given['classes']):.2f}" in line
        assert "learning rate" in line
        assert "\n" not in line
