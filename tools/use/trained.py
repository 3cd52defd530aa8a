"""Open a trained network, wherever its weights are: a run folder, one of its checkpoints, or an exported file.

All three say the same things: the settings of the network, how its images are prepared, its classes, its weights.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alexnet.model.checkpoint import NETWORK, candidates, load_checkpoint, read_progress, shapes, under
from alexnet.model.networks.build import Network
from alexnet.model.networks.settings import NetSettings, architecture_of
from alexnet.model.optim import all_finite
from alexnet.model.placement import Precision
from alexnet.model.weights import Weights, misfit, read_weights, shapes_of
from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.normalize import Normalization, normalization_of
from alexnet.shards.errors import InputError
from alexnet.shards.files import of_type
from alexnet.shards.manifest import MEAN_IMAGE_NAME
from alexnet.shards.reader import read_mean_image
from alexnet.tools.console import tell
from alexnet.tools.use.run_files import SETTINGS_NAME, Count, DataRecord, read_data_record, read_settings

_ALLOWED = "give a run folder, one of its checkpoints, or a file that `alexnet-model export` wrote"
_MEAN_IMAGE = "mean_image"  # a tensor of an exported file, beside the parameters
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_CHANNELS = 3  # of the images; a network of one channel reads their mean


@dataclass(frozen=True, kw_only=True)
class About:
    """Hold what is known of a trained network beside its weights, as an exported file says it.

    `step`: after which it was saved. `precision`: that it was trained in.
    """

    step: Count
    net: NetSettings
    augment: AugmentSettings
    precision: str
    data: DataRecord


@dataclass(frozen=True, kw_only=True)
class Trained(About):
    """Hold a trained network and everything needed to use it.

    `path`: of the file or folder that it is from. `mean_image`: float32 (size, size, 3), where its images had that
    subtracted. `weights`: by the names that the network gives its parameters.
    """

    path: Path
    mean_image: npt.NDArray[np.float32] | None
    weights: dict[str, Tensor]

    def network(self, device: torch.device) -> Network:
        """Build the network, in evaluation mode, where it is to run. Raises InputError if the weights are not its."""
        _check_shapes(self.path, self.net, shapes_of(self.weights))
        if not all_finite(self.weights.values()):
            raise InputError(f"{self.path}: holds weights that are not finite; take an earlier checkpoint of its run")
        net = Network(self.net)
        for name, parameter in net.named_parameters():
            parameter.data = self.weights[name].to(parameter.dtype)  # not copied: 244 MB of the network of 2012
        net.eval()
        return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def best_precision(self) -> Precision:
        """Return the precision that it was trained in, or what is best here for one that this version has not."""
        return next((known for known in get_args(Precision) if known == self.precision), "auto")

    def normalization(self) -> Normalization:
        """Return what becomes of a pixel before the network sees it."""
        return normalization_of(self.augment, self.data.colour, self.mean_image, training=False)

    def about(self) -> dict[str, Any]:
        """Return all but the weights as plain values, for the file that they are exported to."""
        return {field.name: msgspec.to_builtins(getattr(self, field.name)) for field in dataclasses.fields(About)}

    def exported(self) -> Weights:
        """Return what goes into a file: the parameters, the mean image where one is subtracted, and `about`."""
        tensors = {name: p.detach().contiguous() for name, p in self.network(torch.device("cpu")).named_parameters()}
        if self.mean_image is not None:
            tensors[_MEAN_IMAGE] = torch.from_numpy(self.mean_image)
        return Weights(tensors=tensors, about=self.about())


def newest_in(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the checkpoint that a run folder would continue from, and its progress; None of what is no run folder.

    One that is damaged is passed over, and said. Raises InputError if there is none.
    """
    if not (path / SETTINGS_NAME).is_file():
        return path, None
    for candidate in candidates(path / "checkpoints"):
        try:
            return candidate, read_progress(candidate)
        except InputError as error:
            tell(f"passed over: {error}", err=True)
    raise InputError(f"{path}: holds no checkpoint yet; the run writes its first after an epoch, or as it is set")


def open_trained(path: Path) -> Trained:
    """Open a run folder (its newest checkpoint), a checkpoint's folder, or a file that `alexnet-model export` wrote."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; {_ALLOWED}")
    if path.is_file():
        return _of_file(path)
    checkpoint, progress = newest_in(path)
    run = checkpoint.absolute().parent.parent
    if not (run / SETTINGS_NAME).is_file():
        raise InputError(f"{path}: is no run folder, and no checkpoint inside of one; {_ALLOWED}")
    return _of_run(path, run, checkpoint, progress)


def _of_run(path: Path, run: Path, checkpoint: Path, progress: dict[str, Any] | None) -> Trained:
    settings, data = read_settings(run, _ALLOWED), read_data_record(run)[0]
    stored = under(NETWORK, shapes(checkpoint))
    _check_together(path, settings.net, settings.augment, data)
    _check_shapes(path, settings.net, stored)
    wanted = {NETWORK + name: torch.empty(shape) for name, shape in stored.items()}
    saved = load_checkpoint(checkpoint, wanted, progress)  # half of it: the momentum is of no use here
    mean_image = None
    if settings.augment.mean == "image":
        mean_image = read_mean_image(run / MEAN_IMAGE_NAME, data.size_px, mend="copy the data set's there")
    return _checked(
        Trained(
            path=path,
            step=saved.step,
            net=settings.net,
            augment=settings.augment,
            precision=settings.train.precision,
            data=data,
            mean_image=mean_image,
            weights=under(NETWORK, saved.tensors),
        )
    )


def _of_file(path: Path) -> Trained:
    file = read_weights(path)
    try:
        about = of_type(file.about, About)
    except ValueError as error:
        what = "does not say what network it is and how its images are prepared"
        raise InputError(f"{path}: {what} ({error}); {_ALLOWED}") from None
    _check_together(path, about.net, about.augment, about.data)
    weights = dict(file.tensors)
    mean_image = weights.pop(_MEAN_IMAGE, None)
    pixels = None if mean_image is None else mean_image.float().numpy()
    return _checked(Trained(**vars(about), path=path, mean_image=pixels, weights=weights))


def _check_together(path: Path, net: NetSettings, augment: AugmentSettings, data: DataRecord) -> None:
    """Raise InputError unless network, augmentation and data set go together."""
    if net.classes != len(data.classes):
        raise InputError(f"{path}: has names for {len(data.classes):,} classes, and a network of {net.classes:,}")
    if net.input_channels not in (1, _CHANNELS):
        raise InputError(f"{path}: net.channels={net.channels}: must be 3, or 1 for the mean of the colours")
    try:
        augment.check(data.size_px)
        architecture_of(net).check_px(augment.crop_px)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _check_shapes(path: Path, net: NetSettings, stored: Mapping[str, torch.Size]) -> None:
    """Raise InputError unless stored tensors are those of the network, before any memory is taken for it."""
    with torch.device("meta"):
        wanted = shapes_of(dict(Network(net).named_parameters()))
    if why := misfit(stored, wanted):
        raise InputError(f"{path}: is of another network than {net.arch}: {why}")


def _checked(trained: Trained) -> Trained:
    """Return a network whose weights and colours are numbers. Raises InputError if they are not."""
    path = trained.path
    if wrong := next((name for name, tensor in trained.weights.items() if tensor.dtype not in _FLOATS), None):
        raise InputError(f"{path}: {wrong} holds no numbers of 16, 32 or 64 bits with a point; {_ALLOWED}")
    try:
        with np.errstate(all="ignore"):
            normalization = trained.normalization()
    except (ValueError, LookupError, ArithmeticError) as error:
        raise InputError(f"{path}: {error}; {_ALLOWED}") from None
    mean, scale = normalization.mean, normalization.scale
    sound = ((mean >= 0) & (mean <= 255)).all() and ((scale > 0) & (scale < 1e6)).all()
    if not sound or mean.shape[-1:] != (_CHANNELS,) or scale.shape != (_CHANNELS,):
        raise InputError(f"{path}: its colours are no means and deviations of pixels of 0 to 255; {_ALLOWED}")
    return trained
