"""Too little room is shown as too little, however small the numbers are."""

import pytest

from alexnet.tools.output_folder import needed_and_free


@pytest.mark.parametrize(
    ("needed", "free", "said"),
    [
        (2.5e11, 1e11, "about 250.0 GB are needed and 100.0 GB are free"),
        (14e6, 13e6, "about 14.0 MB are needed and 13.0 MB are free"),
        (14_000, 0, "about 14.0 kB are needed and 0.0 kB are free"),
        (400, 100, "about 0.4 kB are needed and 0.1 kB are free"),
        (2.0004e9, 2.0003e9, "about 2.000 GB are needed and 2.000 GB are free"),
        (2.04e9, 2.03e9, "about 2.04 GB are needed and 2.03 GB are free"),
    ],
)
def test_that_there_is_too_little_room_shows(needed: float, free: float, said: str) -> None:
    assert needed_and_free(needed, free) == said
