"""`alexnet-prep adopt`: make a data set of WebDataset tars without converting them."""

import time
from pathlib import Path

import click

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Manifest, read_manifest
from alexnet.shards.reader import SplitReader
from alexnet.shards.url import as_url
from alexnet.tools.console import interruptible, one_line_errors, workers_option
from alexnet.tools.progress import Amount, progress, shown


@click.command()
@click.argument("data", metavar="DIR", type=click.Path(path_type=Path))
@workers_option
@click.option("--json", "as_json", is_flag=True, help="Print events for machines, one JSON object a line.")
@one_line_errors
def adopt(data: Path, workers: int, as_json: bool) -> None:
    """Make a data set of the WebDataset tars in DIR, where they lie.

    Each sample is a baseline JPEG, KEY.jpg or KEY.jpeg, with its label in KEY.cls; all JPEGs are square and of one
    size. No byte of a tar is changed, and none is moved: a manifest, an index, colour statistics and checksums come
    beside them, and then every command takes DIR as it takes what `shard` wrote. What cannot be taken so, `shard`
    converts.

    If it is interrupted, however that happens, the same command continues it.
    """
    from alexnet.tools.adopt.build import adopt as make
    from alexnet.tools.adopt.build import refuse_foreign
    from alexnet.tools.adopt.plan import KIND, plan_adoption
    from alexnet.tools.convert.folder import held, is_complete, seal
    from alexnet.tools.convert.run import tell_source
    from alexnet.tools.convert.sources import find_layout, open_source
    from alexnet.tools.decode.command import tell_complete

    with interruptible("interrupted; the same command continues"):
        root, started, told = data.absolute(), time.perf_counter(), list[Amount]()
        if url := as_url(data):
            raise InputError(f"{url}: adopt looks into tars where they lie, in a folder; copy them to one")
        if not root.is_dir():
            raise InputError(f"{data}: there is no such folder; give the one that holds the tars")
        with held(root) as check, progress(as_json=as_json) as view:
            if is_complete(root):
                manifest = _complete(root)
                seal(root)
            else:
                refuse_foreign(root)
                layout = find_layout(root)
                if layout.kind != KIND:
                    raise InputError(f"{root}: holds no WebDataset tars but {layout.kind}; `alexnet-prep shard {data}`")
                source = open_source(root, None, view.update, layout)
                tell_source(source, as_json=as_json)
                manifest = make(plan_adoption(source, layout), workers=workers, on_progress=shown(view, check, told))
        mean = ", ".join(f"{value:.2f}" for value in manifest.colour.mean)
        what = f"{manifest.size_px} px, in {len(manifest.shards):,} tars; mean RGB {mean}"
        tell_complete(str(root), what, manifest, told, time.perf_counter() - started, as_json=as_json)


def _complete(root: Path) -> Manifest:
    """Return the manifest of a data set of tars that are what they were. Raises InputError for another one."""
    manifest = read_manifest(root)
    if not manifest.stored.adopted or manifest.stored.encoding != "jpeg":
        raise InputError(f"{root}: is a data set that alexnet-prep wrote; use it as it is")
    for split, counts in manifest.counts.items():
        if counts.written:
            SplitReader(root, split).close()  # type: ignore[arg-type]
    return manifest
