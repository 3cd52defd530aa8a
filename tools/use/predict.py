"""Predict the classes of images: any file that the converter takes, prepared as training's validation images were.

An image goes the whole way that it would have gone through the data set: resized and cut to a square, encoded, decoded,
its centre cut out, the mean subtracted. So an image that is in the data set gets the same answer here as there, unless
its EXIF data say that it lies on its side: the data set keeps it so, here it is turned upright first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alexnet.model.evaluate import log_probabilities
from alexnet.model.placement import choose_placement
from alexnet.pipeline.augment import centre_corner
from alexnet.pipeline.normalize_torch import Normalizer
from alexnet.tools.convert.image import convert_image
from alexnet.tools.convert.opening import orientation
from alexnet.tools.stored_jpeg import rgb_and_quality
from alexnet.tools.use.trained import Trained

Square = npt.NDArray[np.uint8]
"""An image as a data set stores it: RGB, (size, size, 3)."""

_UPRIGHT: dict[int, Callable[[Square], Square]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels.swapaxes(0, 1), 2),
    8: np.rot90,
}
"""What undoes an orientation of EXIF; 1 is upright."""


def upright(square: Square, turn: int) -> Square:
    """Return a square as its EXIF orientation, 1 to 8, says that it should be seen."""
    return np.ascontiguousarray(_UPRIGHT[turn](square)) if turn in _UPRIGHT else square


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Hold one class and how probable a network finds it."""

    label: int
    name: str
    probability: float


class Predictor:
    """Hold one network, ready to run, with what prepares its images.

    `device`: `cpu` or `cuda`, the better of the two if not said.
    """

    def __init__(self, trained: Trained, device: str | None = None) -> None:
        self.trained = trained
        self.placement = choose_placement(device, 1, trained.best_precision())
        self.net = trained.network(self.placement.device)
        normalization = trained.normalization()
        self._means = torch.from_numpy(normalization.means(np.zeros((1, 3), np.float32))).to(self.placement.device)
        self._normalized = Normalizer(normalization, "float32", channels_last=True, device=self.placement.device)

    def stored(self, file: bytes) -> tuple[Square, bool]:
        """Return what the data set would store of an image if it were upright in its file, and whether it was turned.

        Raises UndecodableError, with the reason, if it would have been rejected.
        """
        data = self.trained.data
        pixels = rgb_and_quality(convert_image(file, data.size_px, data.quality).jpeg)[0]
        turn = orientation(file)
        return upright(pixels, turn), turn in _UPRIGHT

    @torch.no_grad()
    def log_probabilities(self, crops: Tensor) -> Tensor:
        """Return float32 (n, classes) of uint8 crops, (n, 3, H, W), or of views of each image, (n, v, 3, H, W)."""
        flat = crops.flatten(0, -4)
        images = self._normalized(flat.movedim(1, -1), self._means.expand(len(flat), 3))
        with self.placement.autocast():
            return log_probabilities(self.net, images.unflatten(0, crops.shape[:-3]))

    def guesses(self, squares: Sequence[Square], most: int = 5) -> list[list[Guess]]:
        """Return the most probable classes of stored squares, uint8 (size, size, 3), the most probable first."""
        trained = self.trained
        crop_px = trained.augment.crop_px
        first = centre_corner(trained.data.size_px, crop_px)
        crops = np.stack([square[first : first + crop_px, first : first + crop_px] for square in squares])
        found = self.log_probabilities(torch.from_numpy(crops).movedim(-1, 1).to(self.placement.device))
        best = found.double().exp().topk(min(most, found.shape[1]), dim=1)
        return [
            [Guess(label=k, name=trained.data.name(k), probability=p) for p, k in zip(ps, ks, strict=True)]
            for ps, ks in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
