"""LeNet-5 (LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998).

As section II-B describes it up to F6: C3's connection table, subsampling with a coefficient and a bias a map, and the
scaled tanh. One thing differs: its output layer compared F6 with fixed 7x12 bitmaps of the characters (RBF units); here
it is an ordinary layer, trained with the cross-entropy that all the other networks here are trained with.
"""

from alexnet.model.networks.drawing import FLATTEN, SCALED_TANH, Conv, Drawing, Full, PadTo, Subsample

# Table I: which of S2's six maps each map of C3 reads. Threes, then fours of neighbours, fours that are not, and all.
C3_READS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip

LENET_5 = Drawing(
    name="lenet-5",
    about="LeCun, Bottou, Bengio and Haffner 1998, section II-B, with a softmax for its RBF output",
    channels=1,
    input_px=(28, 32),
    shards_px=(28, 32),
    layers=(
        PadTo(32),  # MNIST's images are 28x28: the margin brings the ends of strokes to the middle of C1's windows
        Conv("c1", 6, window=5), SCALED_TANH,
        Subsample("s2"), SCALED_TANH,
        Conv("c3", 16, window=5, table=C3_READS), SCALED_TANH,
        Subsample("s4"), SCALED_TANH,
        Conv("c5", 120, window=5), SCALED_TANH,
        FLATTEN,
        Full("f6", 84), SCALED_TANH,
        Full("output"),
    ),
)  # fmt: skip
