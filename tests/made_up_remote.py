"""A data set as large as ImageNet at http://127.0.0.1, in the room of one shard: a number behind each makes it another.

    python -m tests.made_up_remote FOLDER [IMAGES]

makes it in FOLDER, and says what a stream asks for before its first batch, in either order, and how long that takes.
"""

import dataclasses
import hashlib
import re
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from alexnet.pipeline import ImageStream, StreamSettings
from alexnet.pipeline.settings import Order
from alexnet.shards.manifest import MANIFEST_NAME, read_manifest
from tests.faulty_proxy import LocalServer, QuietHandler
from tests.made_up import IMAGENET_IMAGES, SHARD_IMAGES, write_made_up_jpegs

_NUMBER_BYTES = 512  # behind the end of the tar, where no reader looks


class MadeUpServer(LocalServer):
    """Serve training images that repeat one shard, as a data set of different ones, until it is closed.

    `url`: of the data set. `asked`: path and bytes of each answer so far.
    """

    def __init__(self, folder: Path, images: int, shard_images: int = SHARD_IMAGES) -> None:
        super().__init__(_Handler)
        like = Path(__file__).parents[1] / "shards" / "ci-100"
        self.folder = write_made_up_jpegs(like, folder / "set", images, shard_images)
        self.url = f"http://{self.address}"
        self.asked: list[tuple[str, int]] = []
        manifest = read_manifest(self.folder)
        self._shard = (self.folder / manifest.shards[0].file).read_bytes()
        common = hashlib.sha256(self._shard)
        shards = []
        for number, shard in enumerate(manifest.shards):
            whole = common.copy()
            whole.update(_number(number))
            size = shard.bytes + _NUMBER_BYTES
            shards.append(dataclasses.replace(shard, bytes=size, sha256=whole.hexdigest()))
        (self.folder / MANIFEST_NAME).write_text(dataclasses.replace(manifest, shards=tuple(shards)).to_json())

    def parts(self, path: str) -> list[memoryview]:
        """Return the content at a path; raises OSError if there is none."""
        if match := re.fullmatch(r"/train/0*(\d+)\.tar", path):
            return [memoryview(self._shard), memoryview(_number(int(match[1])))]
        return [memoryview((self.folder / path[1:]).read_bytes())]


def _number(shard: int) -> bytes:
    return str(shard).encode().ljust(_NUMBER_BYTES, b"\0")


class _Handler(QuietHandler):
    server: MadeUpServer

    def do_GET(self) -> None:  # noqa: N802
        try:
            parts = self.server.parts(self.path)
        except OSError:
            self.send_error(404)
            return
        size = sum(map(len, parts))
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, end = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
        self.server.asked.append((self.path, end - first))
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - first))
        self.send_header("ETag", f'"{self.path}"')
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        self.end_headers()
        for part in parts:
            self.wfile.write(part[max(0, first) : max(0, end)])
            first, end = first - len(part), end - len(part)


def first_batch(server: MadeUpServer, order: Order) -> str:
    """Open the stream with an empty cache, take a batch of 256, and say what was asked for and when it came."""
    before = len(server.asked)
    with tempfile.TemporaryDirectory() as cache:
        begin = time.perf_counter()
        settings = StreamSettings(order=order, cache=cache)
        with ImageStream(f"{server.url}/train", batch_images=256, rank=0, world_size=1, settings=settings) as stream:
            opened, small = time.perf_counter() - begin, server.asked[before:]
            next(iter(stream))
            came, asked = time.perf_counter() - begin, server.asked[before + len(small) :]
            hold = len(set((stream.plan(0, 0).sample_ids // SHARD_IMAGES).tolist()))
    return (
        f"{order}: opened after {opened:.2f} s and {len(small)} requests, {_megabytes(small)}; the first batch of 256, "
        f"from {hold} shards, after {came:.2f} s and {len(asked)} requests more, {_megabytes(asked)}, with those ahead"
    )


def _megabytes(asked: list[tuple[str, int]]) -> str:
    return f"{sum(count for _, count in asked) / 1e6:,.1f} MB"


def main(folder: Path, images: int) -> None:
    """Print a line for either order."""
    import_module("alexnet.pipeline.prefetch")  # torch, which would come with the first batch
    orders: tuple[Order, ...] = ("blocks", "global")
    with MadeUpServer(folder, images) as server:
        for order in orders:
            print(first_batch(server, order))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else IMAGENET_IMAGES)
