"""Open a trained network, wherever its weights are: a run folder, one of its checkpoints, or an exported file.

All three say the same things: the settings of the network, how its images are prepared, its classes, its weights.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alexnet.model.checkpoint import candidates, load_checkpoint, read_progress, shapes
from alexnet.model.networks.build import build_network
from alexnet.model.networks.network import Network
from alexnet.model.networks.settings import NetSettings
from alexnet.model.placement import Precision
from alexnet.model.warm_start import PREFIX, network_tensors
from alexnet.model.weights_file import Weights, read_weights
from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.finish import Finish, finish_of
from alexnet.shards.errors import InputError
from alexnet.tools.command import tell
from alexnet.tools.run.data_record import DataRecord, read_data_record, read_mean_image

Component = TypeVar("Component", NetSettings, AugmentSettings)

_SETTINGS = "settings.json"
_MEAN_IMAGE = "mean_image"  # a tensor of an exported file, beside the parameters


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Hold a trained network and everything needed to use it.

    `path`: of the file or folder that it is from. `step`: after which it was saved. `mean_image`: float32 (size, size,
    3), where its images had that subtracted. `weights`: by the names that the network gives its parameters.
    """

    path: Path
    step: int
    net: NetSettings
    augment: AugmentSettings
    precision: Precision
    data: DataRecord
    mean_image: npt.NDArray[np.float32] | None
    weights: dict[str, Tensor]

    def network(self, device: torch.device) -> Network:
        """Build the network, in evaluation mode, where it is to run. Raises InputError if the weights are not its."""
        net = build_network(self.net)
        for name, parameter in net.named_parameters():
            stored = self.weights.get(name)
            if stored is None or stored.shape != parameter.shape:
                found = "nothing" if stored is None else tuple(stored.shape)
                raise InputError(f"{self.path}: holds {found} for {name}, {self.net.arch} has {tuple(parameter.shape)}")
            parameter.data = stored.to(parameter.dtype)  # not copied: 244 MB of the network of 2012
        net.eval()
        return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def finish(self) -> Finish:
        """Return what becomes of a pixel before the network sees it."""
        return finish_of(self.augment, self.data.colour, self.mean_image, training=False)

    def about(self) -> dict[str, Any]:
        """Return all but the weights as plain values, for the file that they are exported to."""
        fields = {
            "step": self.step,
            "net": dataclasses.asdict(self.net),
            "augment": dataclasses.asdict(self.augment),
            "precision": self.precision,
            "data": self.data.as_json(),
        }
        plain: dict[str, Any] = json.loads(json.dumps(fields))
        return plain

    def exported(self) -> Weights:
        """Return what goes into a file: the parameters, the mean image where one is subtracted, and `about`."""
        tensors = {name: p.detach().contiguous() for name, p in self.network(torch.device("cpu")).named_parameters()}
        if self.mean_image is not None:
            tensors[_MEAN_IMAGE] = torch.from_numpy(self.mean_image)
        return Weights(tensors=tensors, about=self.about())


def newest_in(path: Path) -> Path:
    """Return the checkpoint that a run folder would continue from; what is no run folder stays as it is.

    One that is damaged is passed over, and said. Raises InputError if there is none.
    """
    if not (path / _SETTINGS).is_file():
        return path
    for candidate in candidates(path / "checkpoints"):
        try:
            read_progress(candidate)
        except InputError as error:
            tell(f"passed over: {error}", err=True)
        else:
            return candidate
    raise InputError(f"{path}: holds no checkpoint yet; the run writes its first after an epoch, or as it is set")


def open_trained(path: Path) -> Trained:
    """Open a run folder (its newest checkpoint), a checkpoint's folder, or a file that `alexnet-model export` wrote."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; {_ALLOWED}")
    if path.is_file():
        return _of_file(path)
    checkpoint = newest_in(path)
    run = checkpoint.absolute().parent.parent
    if not (run / _SETTINGS).is_file():
        raise InputError(f"{path}: is no run folder, and no checkpoint inside of one; {_ALLOWED}")
    return _of_run(path, run, checkpoint)


_ALLOWED = "give a run folder, one of its checkpoints, or a file that `alexnet-model export` wrote"


def _of_run(path: Path, run: Path, checkpoint: Path) -> Trained:
    try:
        settings = json.loads((run / _SETTINGS).read_text(encoding="utf-8"))
        net, augment = settings["net"], settings["augment"]
        precision = settings["train"]["precision"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run / _SETTINGS}: cannot be read ({error!r})") from None
    augmentation = component(AugmentSettings, augment)
    wanted = {name: torch.empty(shape) for name, shape in shapes(checkpoint).items() if name.startswith(PREFIX)}
    saved = load_checkpoint(checkpoint, wanted)  # half of it: the momentum is of no use here
    return Trained(
        path=path,
        step=saved.step,
        net=component(NetSettings, net),
        augment=augmentation,
        precision=precision if precision in get_args(Precision) else "auto",
        data=read_data_record(run)[0],
        mean_image=read_mean_image(run) if augmentation.mean == "image" else None,
        weights=network_tensors(saved.tensors),
    )


def _of_file(path: Path) -> Trained:
    file = read_weights(path)
    about, weights = file.about, dict(file.tensors)
    mean_image = weights.pop(_MEAN_IMAGE, None)
    try:
        return Trained(
            path=path,
            step=int(about["step"]),
            net=component(NetSettings, about["net"]),
            augment=component(AugmentSettings, about["augment"]),
            precision=about["precision"] if about["precision"] in get_args(Precision) else "auto",
            data=DataRecord.from_json(about["data"]),
            mean_image=None if mean_image is None else mean_image.numpy(),
            weights=weights,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: does not say what network it is and how its images are prepared; {_ALLOWED}"
        ) from None


def component(kind: type[Component], fields: Mapping[str, Any]) -> Component:
    """Rebuild a component's settings from JSON; what another version had and this one has not is left out."""
    known = get_type_hints(kind)
    return kind(**{name: value for name, value in fields.items() if name in known})
