"""How rows are measured, in processes of their own, and the reports that hold them."""

import itertools
import json
import mmap
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.bench.conditions import conditions_before
from alexnet.tools.bench.measure import Case, Measured, Timing, limited_by, measure_rows
from alexnet.tools.bench.report import Asked, Ratio, Report, Row, ratios_of, read_report, to_json
from alexnet.tools.bench.stage import CannotRunError, Runner, Stage, Work
from tests.bench_reports import report_of, row_of

SHORT = Timing(rounds=2, seconds=0.02)


def counting(*, fails: str = "") -> Stage:
    """Count to the end of time; this is a stage's factory."""
    if fails:
        raise CannotRunError(fails)

    def work() -> Work:
        while True:
            yield 2

    return Stage(work=work, settings="counts by two", figures=lambda: {"height m": 3.0})


def hanging() -> Stage:
    threading.Event().wait()
    raise AssertionError


def dying() -> Stage:
    print("on fire", file=sys.stderr, flush=True)
    os.abort()


def leaving() -> Stage:
    Path(tempfile.mkdtemp(), "f").touch()
    raise SystemExit(3)


def sharing() -> Stage:
    """Hold shared memory, as loaders with worker processes do, and never give it back."""
    held = SharedMemory(create=True, size=1)
    return Stage(work=lambda: itertools.repeat(held.size), settings=held.name)


def case_of(name: str, make: Callable[..., Stage] = counting, **more: Any) -> Case:
    return Case(name=name, title=name, make=make, **more)


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a row's process find this module."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def measure(*cases: Case, timing: Timing = SHORT) -> Measured:
    return measure_rows(cases, timing, lambda _: None)


def test_rows_that_fail_say_why_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cases = [
        case_of("cannot", options={"fails": "ffcv is not installed"}),
        case_of("wrong", options={"colour": 1}),
        case_of("hang", hanging, start_seconds=0.2),
        case_of("die", dying),
        case_of("leave", leaving),
        case_of("limit"),
        case_of("fine", bounds=limited_by("limit")),
    ]
    measured = measure(*cases)
    assert measured.complete
    whys = {one.name: one.why for one in measured.missing}
    assert whys.pop("wrong").startswith("TypeError: ")
    assert whys == {
        "cannot": "ffcv is not installed",
        "hang": "did not answer within 0 seconds and was stopped",
        "die": "was killed by SIGABRT; its last words: on fire",
        "leave": "left with exit code 3",
    }
    limit, fine = measured.rows
    assert (len(fine.rounds), fine.settings, fine.figures) == (2, "counts by two", {"height m": 3.0})
    assert fine.shares["limit"]["wall"] == pytest.approx(fine.rate("wall") / limit.rate("wall"))
    assert fine.rounds[-1].peak_bytes >= fine.before_bytes > 10e6
    assert list(tmp_path.iterdir()) == [], "what a row wrote goes with it, however it ended"


def test_shared_memory_that_a_row_leaves_is_given_back() -> None:
    (row,) = measure(case_of("sharing", sharing)).rows
    with pytest.raises(FileNotFoundError):
        SharedMemory(row.settings)


def test_a_budget_that_is_spent_starts_no_more_rows() -> None:
    measured = measure(*map(case_of, "abc"), timing=Timing(rounds=4, seconds=0.01, budget_seconds=0))
    assert [len(row.rounds) for row in measured.rows] == [3, 3]
    assert [(one.name, one.why) for one in measured.missing] == [("c", "the time was up")]


def test_each_round_is_written_down_when_it_ends(tmp_path: Path) -> None:
    cases = [case_of("first", alone=True), case_of("cannot", alone=True, options={"fails": "no GPU"})]
    looks: list[list[tuple[str, str, int]]] = []

    def look(_: str) -> None:
        text = journal.read_text() if journal.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        looks.append([(line["row"], line["why"], len(line["round"] or "") and 1) for line in lines])

    journal = tmp_path / "model.rounds"
    measure_rows([*cases, case_of("last")], SHORT._replace(journal=journal), look)
    ended = [("first", "", 1)] * 2
    assert looks[:3] == [[], ended, [*ended, ("cannot", "no GPU", 0)]], "before a row starts, those before it are there"


def test_a_row_alone_is_gone_when_the_next_starts(tmp_path: Path) -> None:
    found, before = list[int](), len(_children())  # the process may have some of other tests
    cases = [case_of("first", alone=True), case_of("next")]
    measured = measure_rows(cases, SHORT, lambda _: found.append(len(_children())))
    assert [count - before for count in found[:3]] == [0, 0, 1]
    assert [len(row.rounds) for row in measured.rows] == [2, 2]


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.mark.parametrize(("starts_over", "passes"), [(False, 1), (True, 3)])
def test_a_round_goes_on_where_the_one_before_ended_unless_it_must_not(starts_over: bool, passes: int) -> None:
    begun = []

    def work() -> Work:
        begun.append(1)
        yield from [1] * 1_000_000

    runner = Runner(Stage(work=work, settings="", least_batches=2, starts_over=starts_over))
    for _ in range(3):
        runner.round(1e-9)
    assert len(begun) == passes


def test_a_report_does_not_say_whose_the_data_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    for data, told in {
        "/home/ada/sets/one": "~/sets/one",
        "/home/ada": "~",
        "/home/adam/sets": "/home/adam/sets",
        "/data/home/ada": "/data/home/ada",
    }.items():
        row = row_of(case_of("a", options={"data": data, "output": "uint8", "threads": 2}), 1.0)
        assert row.options == {"data": told, "output": "uint8", "threads": 2}


def ratio_of(row: Row, over: Row, *asked: Any) -> Ratio:
    return ratios_of({row.name: row, over.name: over}, [Asked(row.name, over.name, "a over b", *asked)])[0]


def test_ratios_go_by_the_clock_that_others_do_not_change() -> None:
    quiet, over = row_of(case_of("a"), 300.0), row_of(case_of("b"), 50.0, wall=2.0)
    assert ratio_of(quiet, over, 3.1).in_words() == "a over b: 3.00 by wall time, at least 3.10: FAILS"
    loud = row_of(case_of("b"), 50.0, wall=2.0, foreign=0.06)
    ratio = ratio_of(quiet, loud, 3.1)
    assert ratio.cpu
    assert (ratio.by, ratio.holds) == ("cpu", True)
    assert ratio.cpu.median == pytest.approx(6)
    assert not ratio_of(quiet, loud, 3.1, "wall").holds
    on_gpu = ratio_of(row_of(case_of("a", on_gpu=True), 300.0), loud)
    assert (on_gpu.by, on_gpu.cpu) == ("wall", None)


def test_reports_are_read_as_they_were_written_or_refused(tmp_path: Path) -> None:
    rows = [row_of(case_of(name), 100.0) for name in "ab"]
    report = report_of(
        {row.name: row for row in rows}, conditions=conditions_before("cpu", 2, 3, 1.0), ratios=(ratio_of(*rows),)
    )
    file = tmp_path / "report.json"
    file.write_bytes(to_json(report))
    assert read_report(file) == report
    assert msgspec.json.schema(Report)
    good = json.loads(file.read_bytes())
    for change, words in (
        ({"schema": 2}, "has schema 2 and this version of alexnet-bench reads 3"),
        ({"verdict": None}, "Expected `str`, got `null` - at `$.verdict`"),
        ({"rows": [{}]}, "missing required field"),
        ({"rows": [{**good["rows"][0], "rounds": []}]}, "has a row without a rate"),
    ):
        file.write_text(json.dumps({**good, **change}))
        with pytest.raises(InputError, match=re.escape(words)):
            read_report(file)
    for text in ("{", "[]", "{}", "[" * 100_000):
        file.write_text(text)
        with pytest.raises(InputError, match="cannot be read"):
            read_report(file)
    with pytest.raises(InputError, match="No such file"):
        read_report(tmp_path / "none")


def test_page_faults_are_counted_in_a_round() -> None:
    """A megabyte that is mapped afresh has 256 pages."""

    def mapping() -> Work:
        while True:
            with mmap.mmap(-1, 1 << 20) as memory:
                memory.write(b"\1" * (1 << 20))
            yield 1

    fresh = Runner(Stage(work=mapping, settings="")).round(1e-9)
    still = Runner(counting()).round(1e-9)
    assert fresh.page_faults is not None
    assert still.page_faults is not None
    assert fresh.page_faults > 200 * fresh.amount
    assert still.page_faults < 200
