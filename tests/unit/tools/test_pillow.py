"""Which of the two packages `PIL` is in use is known by its files, and told with what it means for a conversion."""

import pytest

from alexnet.tools.convert.pillow import describe_resizing, distribution, overwritten


@pytest.mark.parametrize(
    ("version", "machine", "is_simd", "is_warned"),
    [
        ("12.1.1.post0", "x86_64", True, False),
        ("12.1.1", "x86_64", False, True),
        ("12.1.1", "aarch64", False, False),  # where pillow-simd cannot be
    ],
)
def test_pillow_is_a_mistake_only_where_pillow_simd_could_be(
    monkeypatch: pytest.MonkeyPatch, version: str, machine: str, is_simd: bool, is_warned: bool
) -> None:
    monkeypatch.setattr("PIL.__version__", version)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert distribution() == ("pillow-simd" if is_simd else "pillow")
    assert describe_resizing().startswith(f"resizing: {'pillow-simd' if is_simd else 'Pillow'} {version}")
    assert (overwritten() is not None) == is_warned
