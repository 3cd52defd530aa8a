"""Whether settings, network and data fit together. Asked once, when all are known and before any work."""

from alexnet.model.full_layers import divided_layers
from alexnet.model.networks.drawing import Drawing
from alexnet.model.networks.settings import drawing_of
from alexnet.model.networks.trace import weighted_names
from alexnet.model.placement import Layout
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Manifest
from alexnet.tools.run.settings import RunSettings

_STREAM_CHANNELS = 3
_SEEDS = 2**32  # what dropout's hash takes of a seed
_DATA_OF_SIZE = {28: "MNIST", 32: "CIFAR-10"}


def check_fit(settings: RunSettings, manifest: Manifest) -> None:
    """Raise InputError if settings contradict each other, the network or the data."""
    drawing = drawing_of(settings.net)
    _check_network(settings, drawing)
    _check_data(settings, drawing, manifest)
    if not 0 <= settings.train.seed < _SEEDS:
        raise InputError(f"train.seed={settings.train.seed}: must be at least 0 and below {_SEEDS}")
    if settings.train.deterministic and settings.stream.decode == "auto":
        raise InputError(
            "stream.decode=auto: settles on what is fastest, which may differ from run to run, so not with "
            "train.deterministic=true; --decode default does not"
        )
    if settings.schedule.drop_epochs and settings.schedule.kind != "steps":
        raise InputError(
            f"schedule.drop_epochs={','.join(map(str, settings.schedule.drop_epochs))}: says nothing to "
            f"schedule.kind={settings.schedule.kind}; set that to steps, or leave drop_epochs out"
        )


def check_layout(settings: RunSettings, layout: Layout) -> None:
    """Raise InputError if the settings do not suit so many processes."""
    if settings.train.batch_images < layout.ranks:
        raise InputError(
            f"train.batch_images={settings.train.batch_images}: must be at least {layout.ranks}, one for each process"
        )
    if layout.owt:
        divided_layers(settings.net, layout.ranks)
    if layout.ranks > 1 and settings.stream.on_error == "skip":
        raise InputError(
            "stream.on_error=skip: works with --gpus 1 only, as several processes must agree on what is in a batch; "
            "--set stream.on_error=stop"
        )


def _check_network(settings: RunSettings, drawing: Drawing) -> None:
    channels = settings.net.input_channels
    if channels not in (1, _STREAM_CHANNELS):
        raise InputError(f"net.channels={channels}: must be 3, or 1 for the mean of the colours; the stream yields RGB")
    settings.init.check(drawing.name, weighted_names(drawing))


def _check_data(settings: RunSettings, drawing: Drawing, manifest: Manifest) -> None:
    """Look at the size of the stored images first: where it is wrong, the crop's is, too, and is not the reason."""
    if drawing.shards_px and manifest.size_px not in drawing.shards_px:
        px = drawing.shards_px[0]
        raise InputError(
            f"net.arch={drawing.name}: takes images stored at {drawing.sizes()}, these shards hold {manifest.size_px} "
            f"px; `alexnet-prep shard SOURCE --size {px}` makes them, SOURCE being {_DATA_OF_SIZE[px]} or other images"
        )
    try:
        drawing.check_px(settings.augment.crop_px)
    except InputError:
        raise InputError(
            f"augment.crop_px={settings.augment.crop_px}: {drawing.name} takes {drawing.sizes()}; "
            f"--set augment.crop_px={drawing.input_px[0]}"
        ) from None
    if settings.schedule.kind == "plateau" and not manifest.counts["val"].written:
        raise InputError(
            "schedule.kind=plateau: the data set has no validation images to tell when to lower the rate; "
            "--set schedule.kind=linear-tail does without"
        )
