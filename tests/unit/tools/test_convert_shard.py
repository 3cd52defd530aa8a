"""One shard, whatever its members: thousands of archives, absurd sizes, odd names, damaged notes."""

import io
import os
import resource
import tarfile
from pathlib import Path

from alexnet.tools.convert.plan import ConvertSettings, plan_shards
from alexnet.tools.convert.shard import Notes, ShardJob, convert_shard, notes_file, read_notes
from alexnet.tools.convert.sources import open_source
from tests.conftest import encode_picture
from tests.sources import write_class_tars, write_files


def attempt(source: Path, root: Path) -> tuple[ShardJob, Notes]:
    """Convert the only shard of a source in this process."""
    found, settings = open_source(source), ConvertSettings(size_px=32)
    (plan,) = plan_shards(found, settings)
    for folder in ("train", ".work"):
        (root / folder).mkdir(parents=True)
    members = plan.members(found)
    job = ShardJob(
        root=root, source=source, encoding="file", settings=settings, on_error="reject", plan=plan, members=members
    )
    return job, convert_shard(job, [0, 0])


def test_a_shard_from_more_class_tars_than_files_may_be_open(tmp_path: Path) -> None:
    """ImageNet-21k: 5,000 images from nearly as many tars, and 1,024 open files are what most systems grant."""
    write_class_tars(tmp_path / "tars", {f"n{k:08d}": {f"{k}.JPEG": encode_picture(k)} for k in range(40)})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, hard))
    try:
        _, notes = attempt(tmp_path / "tars", tmp_path / "set")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert notes.record.images == 40


def test_what_tars_can_hold_besides_plain_files(tmp_path: Path) -> None:
    """Long and odd names in pax headers, a name twice, an empty member, hard links: counted, and never mixed up."""
    (tmp_path / "tars").mkdir()
    long = "ä" * 90 + "\udcff\n.JPEG"
    with tarfile.open(tmp_path / "tars" / "n00000001.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in (("a.JPEG", encode_picture(1)), (long, encode_picture(2)), ("a.JPEG", encode_picture(3))):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = len(data), {"comment": "x" * 2000}
            tar.addfile(member, io.BytesIO(data))
        tar.addfile(tarfile.TarInfo("empty.JPEG"))
        link = tarfile.TarInfo("b.JPEG")
        link.type, link.linkname = tarfile.LNKTYPE, "a.JPEG"
        tar.addfile(link)
    source = open_source(tmp_path / "tars")
    assert (len(source.members["train"]), source.ignored) == (4, 1)  # the first a.JPEG is replaced by the second
    job, notes = attempt(tmp_path / "tars", tmp_path / "set")
    assert (notes.record.images, [reject.reason for reject in notes.rejected]) == (3, ["empty file"])
    members = {m.offset: m.name for m in job.members}
    assert sorted(members.values()) == ["b.JPEG", "empty.JPEG", long]  # a.JPEG has b.JPEG's bytes: one offset


def test_a_file_too_large_to_be_an_image_is_rejected_unread_and_damaged_notes_are_none(tmp_path: Path) -> None:
    write_files(tmp_path / "source" / "cat", {"1.jpg": encode_picture(1), "film.mp4": b""})
    os.truncate(tmp_path / "source" / "cat" / "film.mp4", 5 << 30)
    job, notes = attempt(tmp_path / "source", tmp_path / "set")
    said = "has more than 150,000,000 bytes, and is not read; store it smaller, or as JPEG"
    assert [(reject.member, reject.reason) for reject in notes.rejected] == [("film.mp4", said)]
    file = notes_file(job.root, job.plan)
    whole = file.read_bytes()
    assert read_notes(file) == notes
    arrays = whole.index(b"PK")
    for at in range(arrays - 1):
        for data in (whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :], whole[:at]):
            file.write_bytes(data)
            assert read_notes(file) is None
