"""Check which files a data set has, and whether each is what it should be.

Two lists say so: the manifest, which knows shards, and SHA256SUMS, which knows every file. Where they and the bytes on
the disk disagree, two against one tell which of the three was altered.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from alexnet.shards.files import CHECKSUMS_NAME, sha256_of
from alexnet.shards.manifest import MANIFEST_NAME, FileRecord, Manifest, ShardRecord
from alexnet.shards.verify.findings import FindingList
from alexnet.shards.writer import entries_below

_SHARED_DIGITS = 32  # two unrelated sha256 agree in 4 of 64 digits; in 32 with a probability of 1e-21
_MOST_EXTRA = 100


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """Hold what a file is, or what a list says it is; `bytes` is None where a list does not say."""

    sha256: str
    bytes: int | None = None


def facts_of(path: Path) -> FileFacts:
    """Read a file for its size and sha256. Raises OSError."""
    return FileFacts(sha256=sha256_of(path), bytes=path.stat().st_size)


def recorded_files(manifest: Manifest) -> dict[str, FileFacts]:
    """Return what the manifest says of shards and of the files beside them."""
    records: list[ShardRecord | FileRecord] = [*manifest.shards, *manifest.files]
    return {r.file: FileFacts(sha256=r.sha256, bytes=r.bytes) for r in records}


def expected_files(manifest: Manifest) -> set[str]:
    """Return the paths of all files that the manifest implies, SHA256SUMS included."""
    dali = {shard.file.removesuffix(".tar") + ".idx" for shard in manifest.shards}
    return {MANIFEST_NAME, CHECKSUMS_NAME, *recorded_files(manifest), *dali}


def check_presence(
    root: Path, manifest: Manifest | None, checksums: dict[str, str] | None, findings: FindingList
) -> list[str]:
    """Note files that are missing, extra or unlisted; return those that belong to the data set and can be read."""
    present = entries_below(root)
    listed = set(checksums if checksums else ())
    expected = expected_files(manifest) if manifest else {MANIFEST_NAME, CHECKSUMS_NAME, *listed}
    expected |= {name for name in (*present, *listed) if _may_lie_beside(name)}
    _check_missing(expected - set(present), findings)
    _check_extra([name for name in present if name not in expected], findings)
    for name in sorted(listed - expected):
        findings.add(CHECKSUMS_NAME, f"lists {name}, which is no file of this data set")
    if checksums:
        for name in sorted(expected - listed - {CHECKSUMS_NAME}):
            findings.add(CHECKSUMS_NAME, f"does not list {name}")
    readable = [name for name in present if name in expected and (root / name).is_file()]
    for name in sorted(expected.intersection(present) - set(readable)):
        findings.add(name, "is no regular file")
    return readable


def judge(name: str, actual: FileFacts, recorded: FileFacts | None, listed: str | None, findings: FindingList) -> None:
    """Compare a file with the manifest's record and SHA256SUMS's line, and note whichever of the three was altered."""
    said = {MANIFEST_NAME: recorded.sha256 if recorded else None, CHECKSUMS_NAME: listed}
    right = [source for source, sha256 in said.items() if sha256 == actual.sha256]
    wrong = [source for source, sha256 in said.items() if sha256 not in (None, actual.sha256)]
    for source in wrong:
        if right or _shared_digits(said[source] or "", actual.sha256) >= _SHARED_DIGITS:
            findings.add(source, f"gives {name} the sha256 {said[source]}, but it is {actual.sha256}")
            right.append(source)  # a mistyped digit is the list's fault, and speaks for the file
        else:
            findings.add(name, f"has the sha256 {actual.sha256} where {source} says {said[source]}")
    if recorded and recorded.bytes != actual.bytes:
        where = (MANIFEST_NAME, f"gives {name} {recorded.bytes:,} bytes, but it has {actual.bytes:,}")
        findings.add(*(where if right else (name, f"has {actual.bytes:,} bytes where it must have {recorded.bytes:,}")))


def _may_lie_beside(name: str) -> bool:
    """Say whether a file of the top folder is one that people put there: its licence, its description."""
    return name == "LICENSE" or (name.startswith("README") and "/" not in name)


def _check_missing(missing: Collection[str], findings: FindingList) -> None:
    for name in sorted(missing):
        if name == CHECKSUMS_NAME:
            findings.add(name, "the data set has no SHA256SUMS: what only it knows could not be checked")
        else:
            findings.add(name, "is missing")


def _check_extra(extra: list[str], findings: FindingList) -> None:
    for name in extra[:_MOST_EXTRA]:
        findings.add(name, "is no file of this data set")
    if len(extra) > _MOST_EXTRA:
        findings.add(".", f"holds {len(extra) - _MOST_EXTRA:,} more files that are not of this data set")


def _shared_digits(a: str, b: str) -> int:
    return sum(x == y for x, y in zip(a, b, strict=False))
