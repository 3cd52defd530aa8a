"""Where a data set is written: a folder, or the staging folder of one in object storage, brought to what is there.

Nothing that an earlier call left in a staging folder counts but the list of the source: another machine may have gone
on since. What a resume needs is brought back, notes and small files; of the rest, the tars, there are files of the
right size without bytes.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.files import CHECKSUMS_NAME
from alexnet.shards.manifest import MANIFEST_NAME, SPLITS
from alexnet.tools.console import StoppedError
from alexnet.tools.convert.bucket import Bucket, bucket_of, stand_in
from alexnet.tools.convert.folder import CLEARING, INDEX, OWN_FILES, held
from alexnet.tools.output_folder import JOB, WORK


@contextmanager
def held_output(root: Path, *, overwrite: bool) -> Iterator[Callable[[], None]]:
    """Hold an output folder, as `held`; one whose files go into a bucket is brought to what that holds, then emptied.

    Errors name the URL, not the folder. Raises StorageError if it cannot be reached, InputError if it holds anything
    else.
    """
    with held(root) as check:
        bucket = bucket_of(root)
        if bucket is None:
            yield check
            return
        complete = False
        try:
            _bring_back(root, bucket, overwrite=overwrite)
            yield check
            complete = True
        except InputError as error:
            raise InputError(str(error).replace(str(root), bucket.url)) from None
        except StoppedError as error:
            raise StoppedError(str(error).replace(str(root), bucket.url)) from None
        finally:
            _empty(root, keep=not complete)


def _bring_back(root: Path, bucket: Bucket, *, overwrite: bool) -> None:
    """Make a folder what the bucket holds, as far as it is the program's."""
    listed = bucket.list()
    bucket.there = {name: size for name, size in listed.items() if OWN_FILES.knows(name) and not _stays_here(name)}
    foreign = sorted(listed.keys() - bucket.there.keys() - {"", WORK, *SPLITS})
    begun = any(name in listed for name in (MANIFEST_NAME, JOB, CLEARING))
    if foreign and (overwrite or CLEARING in listed or not begun):
        raise InputError(f"{root}: holds {foreign[0]}, which is not alexnet-prep's; give another --out, or move it")
    complete = bucket.there.keys() >= {MANIFEST_NAME, CHECKSUMS_NAME}
    _empty(root, keep=not complete)
    needed = list[str]()
    for name, size in bucket.there.items():
        if complete and name.startswith(WORK):  # what a kill left when all was done
            continue
        (root / name).parent.mkdir(exist_ok=True)
        stand_in(root / name, size)
        if not name.endswith(".tar") and not (complete and name.endswith(".idx")):
            needed.append(name)
    bucket.fetch(needed)


def _stays_here(name: str) -> bool:
    """Say whether a file was learnt from the source, or unpacked of it, and is never put anywhere."""
    return name.startswith((INDEX, f"{WORK}/pixels-"))


def _empty(root: Path, *, keep: bool = False) -> None:
    """Delete all that is in a folder, but, to `keep` it, for what stays here."""
    for path in (*(root / WORK).glob("*"), *root.iterdir()):
        if keep and (path == root / WORK or _stays_here(path.relative_to(root).as_posix())):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
