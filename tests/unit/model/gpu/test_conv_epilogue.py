"""The kernels after a convolution against PyTorch in float64, in Triton's interpreter."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from alexnet.model.gpu import conv_epilogue as module
from alexnet.model.gpu.conv_epilogue import Epilogue, conv_epilogue

NORM = (1e-2, 2.0)


def reference(parts: Sequence[Tensor], bias: Tensor, epilogue: Epilogue) -> list[Tensor]:
    """Return what PyTorch makes of an epilogue, in the type it is given."""
    x = torch.cat(list(parts), dim=1) + bias[None, :, None, None]
    x = x.relu() if epilogue.relu == "before" else x
    if epilogue.norm:
        alpha, k = epilogue.norm
        towers = x.unflatten(1, (epilogue.towers, -1))
        squares = F.pad(towers.square(), (0, 0, 0, 0, 2, 2)).unfold(2, 5, 1).sum(-1)
        x = (towers * (k + alpha * squares) ** -0.75).flatten(1, 2)
    x = F.max_pool2d(x, *epilogue.pool)
    x = x.relu() if epilogue.relu == "after" else x
    return list(x.chunk(epilogue.outputs, dim=1))


# Parts, towers, outputs, maps of all towers.
FORMS = {
    "one to one": (1, 1, 1, 16), "joined to apart": (1, 2, 2, 64), "apart to joined": (2, 2, 1, 32),
    "apart to apart": (2, 2, 2, 48), "maps not in eights": (2, 2, 2, 12), "fewer than a window's": (1, 2, 1, 6),
}  # fmt: skip
WHATS = {
    "paper": Epilogue(relu="before", norm=NORM, pool=(3, 2)),
    "source": Epilogue(relu="after", norm=NORM, pool=(3, 2)),
    "no norm": Epilogue(relu="before", pool=(3, 2)),
    "disjoint": Epilogue(relu="before", pool=(2, 2)),
    "close": Epilogue(relu="none", norm=NORM, pool=(3, 1)),
    "norm alone": Epilogue(relu="none", norm=NORM),
    "relu alone": Epilogue(relu="before"),
    "bias alone": Epilogue(relu="none"),
    "relu last": Epilogue(relu="after", norm=NORM),
}
EVERY = [
    (form, what) for form in FORMS for what in WHATS if what == "paper" or form in ("one to one", "joined to apart")
]


def channels_last(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]


@pytest.mark.parametrize(("form", "what"), EVERY)
def test_values_and_gradients_are_those_of_float64(form: str, what: str) -> None:
    compare(form, what)


@pytest.mark.parametrize(("form", "what"), [("joined to apart", "paper"), ("apart to joined", "no norm")])
def test_many_programs_of_several_turns_each(form: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: up to 54 blocks of pixels forwards, and backwards two programs that take them in turn."""
    monkeypatch.setattr(module, "_ITEMS", 32)
    monkeypatch.setattr(module, "_PROGRAMS", 4)
    compare(form, what)


def compare(form: str, what: str) -> None:
    count, towers, outputs, maps = FORMS[form]
    epilogue = replace(WHATS[what], towers=towers, outputs=outputs)
    generator = torch.Generator().manual_seed(1)
    whole = torch.randn(3, maps, 9, 8, generator=generator) * 8
    whole[1] = whole[1].round()  # windows with more than one largest value: the first one counts
    leaves = [*channels_last(whole.chunk(count, dim=1)), torch.randn(maps, generator=generator)]
    exact_leaves = [leaf.double().requires_grad_() for leaf in leaves]
    *parts, bias = (leaf.requires_grad_() for leaf in leaves)
    found, expected = conv_epilogue(parts, bias, epilogue), reference(exact_leaves[:-1], exact_leaves[-1], epilogue)
    given = channels_last(torch.randn(each.shape, generator=generator) for each in found)
    gradients = torch.autograd.grad(found, leaves, given)
    exact = torch.autograd.grad(expected, exact_leaves, [each.double() for each in given])
    for here, there in zip([*found, *gradients], [*expected, *exact], strict=True):
        assert here.dim() < 4 or here.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(here.double(), there, rtol=1e-5, atol=3e-5)


def passed() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    (x,) = channels_last([torch.randn(2, 16, 13, 13, generator=generator)])
    leaves = x.requires_grad_(), torch.randn(16, generator=generator).requires_grad_()
    (out,) = conv_epilogue([x], leaves[1], WHATS["paper"])
    return out, *torch.autograd.grad(out.square().sum(), leaves)


def test_two_passes_are_equal_to_the_bit_also_with_places_of_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    once = passed()
    monkeypatch.setattr(module, "_LARGE", 1)
    assert all(map(torch.equal, once, passed()))


def test_what_the_kernels_would_read_wrongly_is_refused() -> None:
    with pytest.raises(ValueError, match="not channels-last"):
        conv_epilogue([torch.randn(2, 16, 5, 5)], torch.zeros(16), WHATS["paper"])
    with pytest.raises(ValueError, match="3 towers apart: at most 2"):
        conv_epilogue(channels_last([torch.randn(2, 8, 5, 5)] * 3), torch.zeros(24), Epilogue(towers=3))


def test_shapes_and_memory_are_known_without_values() -> None:
    with FakeTensorMode():
        parts = channels_last(torch.empty(4, 128, 27, 27, dtype=torch.bfloat16) for _ in range(2))
        leaves = [each.requires_grad_() for each in (*parts, torch.empty(256, dtype=torch.bfloat16))]
        (joined,) = conv_epilogue(parts, leaves[2], replace(WHATS["paper"], towers=2))
        first, second = conv_epilogue([joined], leaves[2], Epilogue(towers=2, outputs=2))
        gradients = torch.autograd.grad((first, second), leaves, (first, second))
    assert (joined.shape, first.shape, second.shape) == ((4, 256, 13, 13), (4, 128, 13, 13), (4, 128, 13, 13))
    assert [each.shape for each in gradients] == [each.shape for each in leaves]
    for each in (joined, first, second, *gradients[:2]):
        assert each.dtype == torch.bfloat16
        assert each.is_contiguous(memory_format=torch.channels_last)


def test_what_is_not_a_number_stays_so_and_is_noticed() -> None:
    x = channels_last([torch.randn(1, 8, 5, 5)])[0]
    x[0, 3, 2, 2] = math.nan
    (out,) = conv_epilogue([x], torch.zeros(8), WHATS["paper"])
    assert torch.equal(out.isnan(), reference([x], torch.zeros(8), WHATS["paper"])[0].isnan())
    assert out.isnan().any()
