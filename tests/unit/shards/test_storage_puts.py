"""Objects that are sent: whole, part by part, or only where there is none yet."""

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from alexnet.shards.storage import Storage
from alexnet.shards.url import set_options
from tests.faulty_proxy import Fault, FaultyProxy
from tests.object_storage import ObjectServer


def test_a_part_that_fails_is_sent_again_and_no_other(
    proxy: FaultyProxy, object_server: ObjectServer, tmp_path: Path
) -> None:
    store, file = Storage(object_server.new_url()), tmp_path / "tar"
    file.write_bytes(random.Random(1).randbytes(30_000_000))
    proxy.spoil("partNumber=2", iter([Fault(status=503), Fault(cut_at=-1)]))
    store.put("tar", file)
    sent = Counter(re.findall(r"partNumber=(\d)", " ".join(asked.path for asked in proxy.asked)))
    assert sent == {"1": 1, "2": 3, "3": 1, "4": 1, "5": 1, "6": 1}
    assert store.read("tar", 30_000_000) == file.read_bytes()


def test_a_new_object_replaces_none(proxy: FaultyProxy, object_server: ObjectServer) -> None:
    url = object_server.new_url()
    store = Storage(url)
    proxy.spoil("job.json", iter([Fault(status=503), Fault(cut_at=-1)]))
    store.put("job.json", b"mine", new=True)
    with pytest.raises(FileExistsError):
        store.put("job.json", b"yours", new=True)
    assert store.read("job.json", 10) == b"mine"
    set_options(["conditional_put=disabled"])
    Storage(url).put("job.json", b"yours", new=True)
    assert store.read("job.json", 10) == b"yours"
