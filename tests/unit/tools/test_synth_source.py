"""What is listed is what was asked for, and what is opened is the picture that was drawn."""

import pickle

import numpy as np
import pytest
from PIL import Image

from alexnet.shards.errors import InputError
from alexnet.tools.synth.classes import traits_of, wnid_of, words_of
from alexnet.tools.synth.picture import draw_picture
from alexnet.tools.synth.randomness import Draws
from alexnet.tools.synth.settings import MAX_IMAGES, SynthSettings, default_val_images
from alexnet.tools.synth.source import drawn_source


def test_pictures_are_dealt_out_evenly() -> None:
    source = drawn_source(SynthSettings(classes=7, images=100, val_images=17))
    train, val = (source.members[split] for split in ("train", "val"))
    assert (len(train), len(val)) == (100, 17)
    assert np.bincount([m.label for m in train]).tolist() == [15, 15, 14, 14, 14, 14, 14]
    assert [m.label for m in val] == [k % 7 for k in range(17)]
    assert [(c.wnid, c.words) for c in source.classes] == [(wnid_of(k), words_of(k)) for k in range(7)]


def test_names_are_unique_and_in_the_order_that_an_archive_is_listed_in() -> None:
    source = drawn_source(SynthSettings(classes=3, images=60, val_images=40))
    train, val = (source.members[split] for split in ("train", "val"))
    assert [(m.label, m.name) for m in train] == sorted({(m.label, m.name) for m in train})
    assert [m.name for m in val] == sorted({m.name for m in val})


def test_the_digest_tells_sets_apart() -> None:
    sets = [(3, 60, 40), (4, 60, 40), (3, 61, 40), (3, 60, 41)]
    digests = {drawn_source(SynthSettings(classes=c, images=n, val_images=v)).digest() for c, n, v in sets}
    assert len(digests) == len(sets)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_opened_file_is_the_picture(split: str) -> None:
    source = drawn_source(SynthSettings(classes=5, images=20, val_images=20, seed=9))
    root = pickle.loads(pickle.dumps(source.root))  # as a worker gets it
    member = next(m for m in source.members["train" if split == "train" else "val"] if m.label == 3)
    with (root / member.file).open("rb") as file:
        data = file.read()
        file.seek(0)
        decoded = np.asarray(Image.open(file))
    assert len(data) == member.length
    stem = member.name.removesuffix(".bmp")
    drawn = draw_picture(traits_of(3), Draws(f"9 {stem}"))
    assert np.array_equal(decoded, np.stack([drawn >> 16 & 255, drawn >> 8 & 255, drawn & 255], axis=-1))


def test_validation_pictures_are_a_twentieth_and_of_every_class() -> None:
    assert default_val_images(1000, 100_000) == 5000
    assert default_val_images(10, 100) == 10


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("classes", 0, "between 1 and 4,096"),
        ("classes", 4097, "between 1 and 4,096"),
        ("images", 9, "between 10 and 20,000,000, one for each class"),
        ("images", MAX_IMAGES + 1, "between 10 and 20,000,000"),
        ("val_images", -1, "between 0 and"),
        ("seed", -1, "between 0 and"),
    ],
)
def test_what_is_out_of_range_is_refused(field: str, value: int, allowed: str) -> None:
    given = {"classes": 10, "images": 10_000, "val_images": 10, "seed": 0, field: value}
    with pytest.raises(InputError, match=f"^{field}={value}: must be {allowed}"):
        SynthSettings(**given)
