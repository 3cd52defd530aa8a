"""Shards in, batches out: an exact, resumable stream of augmented images.

One idea carries it: the order and the augmentation of every image are a pure function of (seed, epoch, sample). They
are computed here, in NumPy; a decoder only executes them. This folder never imports `alexnet.model` and knows
nothing of process groups: a rank is two integers it is given.
"""

from alexnet.pipeline.augment import AugmentSettings, BatchPlan
from alexnet.pipeline.settings import StreamSettings
from alexnet.pipeline.stream import ImageStream

__all__ = ["AugmentSettings", "BatchPlan", "ImageStream", "StreamSettings"]
