"""Networks side by side against torch's own layers and optimiser, one after the other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lib.temperature_scaling import Networks, train_networks
from lib.temperature_scaling.networks import mix


def alone(networks: Networks, index: int) -> nn.Sequential:
    """One of the networks as torch's layers."""
    layers: list[nn.Module] = []
    for weight, bias in zip(networks.weights, networks.biases, strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[2])
        layer.weight = nn.Parameter(weight[index].detach().T.clone())
        layer.bias = nn.Parameter(bias[index, 0].detach().clone())
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def data(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(2, n, 3, generator=source)
    return x, torch.randint(4, (2, n), generator=source)


def test_outputs_are_those_of_separate_networks() -> None:
    networks, (x, _) = Networks(2, (3, 8, 5, 4), generator=torch.Generator().manual_seed(1)), data()
    for i in range(2):
        torch.testing.assert_close(networks(x)[i], alone(networks, i)(x[i]), rtol=1e-4, atol=1e-6)
    for weight in networks.weights:
        edge = 1 / math.sqrt(weight.shape[1])
        assert 0.8 * edge < weight.abs().max() <= edge
        assert abs(weight.mean()) < 0.3 * edge
    assert not torch.equal(networks.weights[0][0], networks.weights[0][1])


def test_training_on_whole_passes_is_adam_along_a_cosine() -> None:
    networks, (x, y) = Networks(2, (3, 8, 4), generator=torch.Generator().manual_seed(1)), data()
    copies, passes = [alone(networks, i) for i in range(2)], 25
    seen: list[int] = []
    loss = train_networks(networks, x, y, epochs=passes, batch_size=1000, lr=0.02, after_epoch=seen.append)
    assert seen == list(range(1, passes + 1))
    for i, copy in enumerate(copies):
        optimiser = torch.optim.Adam(copy.parameters())
        last = torch.zeros(())
        for step in range(passes):
            optimiser.param_groups[0]["lr"] = 0.02 * (1 + math.cos(math.pi * step / passes)) / 2
            optimiser.zero_grad()
            last = nn.functional.cross_entropy(copy(x[i]), y[i])
            last.backward()
            optimiser.step()
        assert loss[i].item() == pytest.approx(last.item(), rel=1e-3)
        torch.testing.assert_close(networks(x)[i], copy(x[i]), rtol=1e-2, atol=2e-3)


def test_small_batches_interpolate_random_labels_and_mixtures_do_not() -> None:
    x, y = data(30)
    losses = []
    for points in (1, 2, [1, 3]):
        source = torch.Generator().manual_seed(2)
        networks = Networks(2, (3, 64, 4), generator=source)
        losses.append(
            train_networks(networks, x, y, epochs=300, batch_size=10, lr=0.02, points=points, generator=source)
        )
    plain, mixed, both = losses
    assert plain.max() < 0.2
    assert mixed.min() > 0.4
    assert both[0] < 0.2
    assert both[1] > 0.4


def test_mixtures_are_convex_and_labels_follow_their_inputs() -> None:
    y = torch.eye(5).repeat(4, 1).expand(3, 20, 5)
    mixed, target = mix((y, y), torch.tensor([1, 2, 4]), torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed, target)
    torch.testing.assert_close(target.sum(-1), torch.ones(3, 20))
    assert bool((target >= 0).all())
    assert torch.equal(target[0], y[0])
    assert [int((row > 0).sum(-1).max()) for row in target] == [1, 2, 4]


@pytest.mark.parametrize(("points", "square"), [(2, 1 / 3), (3, 1 / 6), (5, 1 / 15)])
def test_weights_are_uniform_on_the_simplex(points: int, square: float) -> None:
    rows = torch.eye(3000).unsqueeze(0)
    _, target = mix((rows, rows), torch.tensor([points]), torch.Generator().manual_seed(0))
    own = target[0].diagonal()  # but for the rare partner that is the row itself
    assert own.mean().item() == pytest.approx(1 / points, abs=5 * 0.3 / 3000**0.5)
    assert own.square().mean().item() == pytest.approx(square, abs=5 * 0.3 / 3000**0.5)


def test_what_is_wrong_is_named() -> None:
    networks, (x, y) = Networks(2, (3, 4)), data()
    for inputs, labels, name in ((x[0], y[0], "inputs"), (x[:1], y[:1], "inputs")):
        with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
            train_networks(networks, inputs.tolist(), labels.tolist(), epochs=1)
    for wrong in ((y + 4).tolist(), y[0].tolist(), [[0] * 39] * 2):
        with pytest.raises(ValueError, match=r"^labels: got .*want "):
            train_networks(networks, x, wrong, epochs=1)
    for epochs, batch_size in ((0, 10), (1, 0)):
        with pytest.raises(ValueError, match=r"^epochs and batch_size: got .*want "):
            train_networks(networks, x, y, epochs=epochs, batch_size=batch_size)
    for points in (0, [1, 2, 3]):
        with pytest.raises(ValueError, match=r"^points: got .*want "):
            train_networks(networks, x, y, epochs=1, points=points)
    for arguments in ((0, (3, 4)), (2, (3,)), (2, (3, 0))):
        with pytest.raises(ValueError, match=r"^networks and widths: got .*want "):
            Networks(*arguments)
