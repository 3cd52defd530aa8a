"""A real S3 server for tests: SeaweedFS's, bound to 127.0.0.1, with its data in a folder.

It takes 3 s to start, so one serves all tests of a process, each with a prefix of its own.
"""

import itertools
import os
import random
import socket
import subprocess
import sysconfig
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from alexnet.shards.processes import leave_with_parent

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "the-key-of-tests", "AWS_SECRET_ACCESS_KEY": "the-secret-of-tests"}
_IDENTITY = """{"identities": [{"name": "tests", "actions": ["Admin"],
"credentials": [{"accessKey": "the-key-of-tests", "secretKey": "the-secret-of-tests"}]}]}"""
_BUCKET = "tests"  # one, as each takes seven volumes; its first object makes it
_SERVICES = ("master", "volume", "filer", "s3")
_OPTIONS = (
    "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false",
    "-s3.cacheCapacityMB=0", "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-master.resumeState=false",
    "-master.electionTimeout=500ms", "-master.heartbeatInterval=100ms", "-volume.max=20", "-volume.minFreeSpace=1MiB",
)  # fmt: skip
_WEED = Path(sysconfig.get_path("scripts")) / "weed"
_STARTS_S = 60


class ObjectServer:
    """Serve S3 from a folder until it is closed; the kernel ends the server with the thread that started it.

    `address`: host and port, the same after a restart.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "identity.json").write_text(_IDENTITY)
        (folder / "data").mkdir()
        self._ports = _free_ports(2 * len(_SERVICES))
        self.address = f"127.0.0.1:{self._ports[-2]}"
        self._prefixes = itertools.count()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for service, port in zip(_SERVICES, self._ports[1::2], strict=True):
            Path(f"/tmp/seaweedfs-{service}-grpc-{port}.sock").unlink(missing_ok=True)

    def start(self) -> None:
        """Start it, and wait until it stores what it is given."""
        data, ports = self._folder / "data", iter(self._ports)
        listening = [f"-{service}.port{kind}={next(ports)}" for service in _SERVICES for kind in ("", ".grpc")]
        sockets = [f"-{service}.localSocket={self._folder / service}.sock" for service in ("filer", "s3")]
        identity = f"-s3.config={self._folder / 'identity.json'}"
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_WEED, "-logtostderr=true", "server", f"-dir={data}", identity, *_OPTIONS, *listening, *sockets],
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMEMLIMIT": "200MiB"},
                preexec_fn=leave_with_parent,
            )
        end = time.monotonic() + _STARTS_S
        while not self._stores():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the S3 server did not start: see {self._folder / 'log'}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Have the server be gone at once."""
        self._process.kill()
        self._process.wait()

    def new_url(self) -> str:
        """Return a URL below which nothing lies yet."""
        return f"s3://{_BUCKET}/{next(self._prefixes)}"

    def store(self, url: str) -> S3Store:
        """Return what speaks to the server about a URL, directly, not by way of a proxy."""
        return S3Store.from_url(
            url,
            endpoint=f"http://{self.address}",
            region="us-east-1",
            access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )

    def put_folder(self, folder: Path) -> str:
        """Put all files of a folder below a URL of their own; return it."""
        url = self.new_url()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            obstore.put(self.store(url), path.relative_to(folder).as_posix(), path)
        return url

    def _stores(self) -> bool:
        store = self.store(f"s3://{_BUCKET}/trials")
        try:
            with suppress(FileNotFoundError):
                obstore.get(store, "one")  # after a restart: it has what it had
            obstore.put(store, "one", b"stored")
        except BaseError:
            return False
        return True


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on: none that the system gives to those who ask for any."""
    ports: list[int] = []
    for port in random.Random(os.getpid()).sample(range(20000, 32000), 12000):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) != 0:
                ports.append(port)
        if len(ports) == count:
            break
    return ports
