"""What a check found: which file is wrong, which sample in it, and how."""

from collections import Counter
from dataclasses import dataclass
from typing import Self

from alexnet.shards.errors import one_line

_MOST_CHARACTERS = 2000
_MOST_PER_FILE = 10  # a tar that was cut in half would otherwise fill the screen with its missing samples


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Name one thing that is wrong. `file` is relative to the data set; `sample` a key, where one is concerned."""

    file: str
    problem: str
    sample: str | None = None

    def __str__(self) -> str:
        """Say it in one line, whatever characters a file's name holds."""
        where = self.file if self.sample is None else f"{self.file}, sample {self.sample}"
        return one_line(f"{where}: {self.problem}")


class FindingList:
    """Collect findings, at most ten a file, and count what is left out."""

    def __init__(self) -> None:
        self._kept: list[Finding] = []
        self._count: Counter[str] = Counter()

    def add(self, file: str, problem: str, sample: str | None = None) -> None:
        """Note a finding."""
        self._count[file] += 1
        if self._count[file] <= _MOST_PER_FILE:
            self._kept.append(Finding(file=file, problem=problem[:_MOST_CHARACTERS], sample=sample))

    def merge(self, other: Self) -> None:
        """Note what another list holds; of a file that both know, the first ten are kept."""
        before = self._count.copy()
        self._count += other._count
        for finding in other._kept:
            before[finding.file] += 1
            if before[finding.file] <= _MOST_PER_FILE:
                self._kept.append(finding)

    def all(self) -> tuple[Finding, ...]:
        """Return what was kept, by file, and a line for each file of which more was found."""
        more = {file: count - _MOST_PER_FILE for file, count in self._count.items() if count > _MOST_PER_FILE}
        found = [*self._kept, *(Finding(file=file, problem=f"and {n:,} findings more") for file, n in more.items())]
        return tuple(sorted(found, key=lambda finding: finding.file))  # a stable sort: the rest keeps its order
