"""A split's images by sample id, as torch's map-style datasets give them: to look at, not for speed."""

import io

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from alexnet.pipeline.settings import whole
from alexnet.shards.manifest import ClassRecord
from alexnet.shards.planes import rgb_of_planes
from alexnet.shards.reader import SplitReader


class StoredImages(Dataset[tuple[torch.Tensor, int]]):
    """Give (image, label) by sample id: uint8 (3, size, size), RGB as stored, neither cut nor normalized, and an int.

    `classes`: WNID and words of each label. Raises IndexError for an id that is none, and SampleError for an image that
    cannot be used. It can be pickled, so torch's `DataLoader` takes it with any number of workers.
    """

    def __init__(self, reader: SplitReader) -> None:
        self._reader = reader
        self.classes: tuple[ClassRecord, ...] = reader.manifest.classes

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, sample_id: int) -> tuple[torch.Tensor, int]:
        sample_id = whole("sample_id", sample_id)
        if not 0 <= sample_id < len(self):
            raise IndexError(f"sample_id={sample_id}: the split has ids 0 to {len(self) - 1}")
        pixels = np.ascontiguousarray(self._rgb(sample_id).transpose(2, 0, 1))
        return torch.from_numpy(pixels), int(self._reader.labels[sample_id])

    def _rgb(self, sample_id: int) -> npt.NDArray[np.uint8]:
        """Decode a stored image in code that the stream's decoders do not share: uint8 (size, size, 3)."""
        from PIL import Image

        size, stored = self._reader.manifest.size_px, self._reader.stored(sample_id)
        if self._reader.manifest.stored.encoding != "jpeg":
            return rgb_of_planes(stored, size, size)
        try:
            with Image.open(io.BytesIO(stored.tobytes()), formats=("JPEG",)) as image:
                return np.array(image.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise self._reader.error(sample_id, f"cannot be decoded: {error}") from None
