"""The two layers PyTorch lacks: against PyTorch's own where it has one, and invariant over layout."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from alexnet.model.layers import HashDropout, LocalResponseNorm, SameMapNorm, StepClock


@pytest.mark.parametrize("channels", [48, 128, 3])
def test_normalisation_equals_pytorchs(channels: int) -> None:
    x = (torch.randn(4, channels, 7, 7, generator=torch.Generator().manual_seed(0)) * 40).requires_grad_()
    theirs = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)  # PyTorch divides alpha by size
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    ours_out, theirs_out = LocalResponseNorm(channels)(x), theirs(x)
    torch.testing.assert_close(ours_out, theirs_out, rtol=2e-6, atol=2e-6)
    (ours_grad,) = torch.autograd.grad((ours_out * weights).sum(), x)
    (theirs_grad,) = torch.autograd.grad((theirs_out * weights).sum(), x)
    torch.testing.assert_close(ours_grad, theirs_grad, rtol=2e-5, atol=2e-6)


def test_normalisation_keeps_channels_last() -> None:
    x = torch.randn(2, 48, 9, 9).to(memory_format=torch.channels_last)
    assert LocalResponseNorm(48)(x).is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def gpu_autocast() -> Iterator[None]:
    """Switch on the rules by which bf16 autocast picks types on a GPU; tensors without memory follow them anywhere."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    yield
    torch.set_autocast_enabled("cuda", False)
    torch.set_autocast_dtype("cuda", before)


@pytest.mark.usefixtures("gpu_autocast")
@pytest.mark.parametrize("norm", [LocalResponseNorm(48), SameMapNorm(5, 4e-5)])
def test_normalisation_stays_in_bf16_on_a_gpu(norm: nn.Module) -> None:
    with FakeTensorMode():
        for name, _ in list(norm.named_buffers()):
            setattr(norm, name, torch.empty(48, 48, 1, 1, device="cuda"))
        x = torch.empty(2, 9, 9, 48, dtype=torch.bfloat16, device="cuda").movedim(-1, 1)
        assert x.square().dtype == torch.float32, "what autocast makes of it elsewhere"
        y = norm(x)
        assert y.dtype == torch.bfloat16
        assert y.is_contiguous(memory_format=torch.channels_last)


def test_normalisation_in_bf16_is_that_of_its_type() -> None:
    """Autocast changes nothing of it: the same bits."""
    x = (torch.randn(2, 48, 9, 9, generator=torch.Generator().manual_seed(0)) * 40).bfloat16()
    alone = LocalResponseNorm(48)(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(LocalResponseNorm(48)(x), alone)
    torch.testing.assert_close(alone.float(), LocalResponseNorm(48)(x.float()), rtol=2e-2, atol=0)  # four roundings


def dropout(first_unit: int = 0, layer: int = 6, step: int = 5, first_row: int = 0, seed: int = 1) -> HashDropout:
    clock = StepClock()
    clock.set(seed, step, first_row)
    return HashDropout(clock, layer, first_unit).train()


def test_half_of_the_units_stay_and_are_not_scaled() -> None:
    kept = dropout()(torch.ones(256, 4096))
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    n = kept.numel()
    assert abs(float(kept.mean()) - 0.5) < 5 * 0.5 / n**0.5
    rows, units = kept.mean(dim=1), kept.mean(dim=0)
    assert float((rows - 0.5).abs().max()) < 6 * 0.5 / 4096**0.5
    assert float((units - 0.5).abs().max()) < 6 * 0.5 / 256**0.5


def test_evaluation_halves() -> None:
    x = torch.randn(3, 8)
    assert torch.equal(dropout().eval()(x), x * 0.5)


@pytest.mark.parametrize("change", [{"step": 6}, {"seed": 2}, {"layer": 7}, {"first_row": 1}, {"first_unit": 1}])
def test_masks_of_other_steps_seeds_layers_and_rows_are_independent(change: dict[str, int]) -> None:
    a, b = dropout()(torch.ones(64, 2048)), dropout(**change)(torch.ones(64, 2048))
    agreement = float((a == b).float().mean())
    assert abs(agreement - 0.5) < 5 * 0.5 / a.numel() ** 0.5


def test_the_mask_does_not_depend_on_the_layout() -> None:
    whole = dropout()(torch.ones(10, 4096))
    towers = torch.cat([dropout(first_unit=t * 2048)(torch.ones(10, 2048)) for t in range(2)], dim=1)
    ranks = torch.cat([dropout(first_row=0)(torch.ones(7, 4096)), dropout(first_row=7)(torch.ones(3, 4096))])
    assert torch.equal(whole, towers)
    assert torch.equal(whole, ranks)


def test_gradients_flow_through_kept_units_alone() -> None:
    x = torch.ones(4, 64, requires_grad=True)
    kept = dropout()(x)
    kept.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, kept.detach())
