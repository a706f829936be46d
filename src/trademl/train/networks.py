"""Networks as a row of layers that may be cut anywhere, so that a pipeline can hold a part.

Shape letters: B rows, D feature columns, T steps, C channels of a step, S columns of no step,
W width, K outputs.

Every layer takes one tensor and returns one. It is made from a seed and its number alone: a process
makes the layers that it holds and no others, and they are the same whoever makes them. Between the
embedding and the head the tensor is ``x_BTW``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trademl.train.network_config import NetworkConfig, Precision


class Layers(nn.Module):
    """Consecutive layers of a network, each under its number in the whole.

    So a weight has one name, however the network is cut: ``layers.<number>.<name>``.
    """

    def __init__(self, layers: dict[int, nn.Module], precision: Precision = "float32") -> None:
        super().__init__()
        self.layers = nn.ModuleDict({str(number): layer for number, layer in layers.items()})
        self._is_low = precision == "bfloat16"

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._is_low):
            for layer in self.layers.values():
                x = layer(x)
        return x


def build_layers(
    config: NetworkConfig,
    feature_dim: int,
    numbers: Iterable[int],
    *,
    seed: int,
    recompute: bool = False,
) -> dict[int, nn.Module]:
    """Return the layers of the given numbers, on the default device.

    Parameters
    ----------
    feature_dim : int
        Columns of a row, D.
    numbers : iterable of int
        From 0, the embedding, to ``config.n_layers - 1``, the head.
    recompute : bool
        Compute activations inside blocks again in the backward pass instead of keeping them.
    """
    return {n: _build_layer(config, feature_dim, n, seed, recompute) for n in numbers}


def build_network(
    config: NetworkConfig, feature_dim: int, *, seed: int, precision: Precision = "float32"
) -> Layers:
    """Return the whole network."""
    return Layers(build_layers(config, feature_dim, range(config.n_layers), seed=seed), precision)


def _build_layer(
    config: NetworkConfig, feature_dim: int, number: int, seed: int, recompute: bool
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((seed << 20) + number)
        if number == 0:
            return Embedding(config, feature_dim)
        if number == config.n_layers - 1:
            return Head(config)
        block: Block
        if config.kind == "transformer":
            block = EncoderBlock(config)
        else:
            block = ConvolutionBlock(config, dilation=_dilation(config, number))
        block.recompute = recompute
        return block


def _dilation(config: NetworkConfig, number: int) -> int:
    """Return the distance between a block's taps: doubled with each block while it fits T steps."""
    longest = max(1, config.n_steps // max(1, config.kernel - 1))
    n_powers = longest.bit_length()
    return int(2 ** ((number - 1) % n_powers))


class Embedding(nn.Module):
    """Raw rows to steps: standardise, fold columns into steps, project to the width.

    ``mean_D`` and ``scale_D`` are taken from training rows and travel with the weights; the network
    takes raw features.
    """

    mean_D: Tensor
    scale_D: Tensor

    def __init__(self, config: NetworkConfig, feature_dim: int) -> None:
        super().__init__()
        self._n_channels, self._n_static = config.channels(feature_dim)
        self._n_steps = config.n_steps
        self.register_buffer("mean_D", torch.zeros(feature_dim))
        self.register_buffer("scale_D", torch.ones(feature_dim))
        self.project = nn.Linear(self._n_channels + self._n_static, config.width)
        self.position_TW = nn.Parameter(0.02 * torch.randn(config.n_steps, config.width))

    def forward(self, x_BD: Tensor) -> Tensor:
        x_BD = (x_BD - self.mean_D) / self.scale_D
        steps_BTC = x_BD[:, self._n_static :].view(-1, self._n_steps, self._n_channels)
        if self._n_static:
            static_BTS = x_BD[:, None, : self._n_static].expand(-1, self._n_steps, -1)
            steps_BTC = torch.cat([steps_BTC, static_BTS], dim=2)
        projected: Tensor = self.project(steps_BTC)
        return projected + self.position_TW


class Block(nn.Module, ABC):
    """A layer from ``x_BTW`` to ``x_BTW`` that may compute its activations twice."""

    recompute = False

    @abstractmethod
    def transform(self, x_BTW: Tensor) -> Tensor:
        """Return what the block makes of its input."""

    def forward(self, x_BTW: Tensor) -> Tensor:
        if self.recompute and self.training:
            again: Any = checkpoint(self.transform, x_BTW, use_reentrant=False)
            return again  # type: ignore[no-any-return]
        return self.transform(x_BTW)


class ConvolutionBlock(Block):
    """A dilated causal convolution with a residual: step t reads steps at or before t.

    After Bai, Kolter and Koltun (2018), section 3, with layer norm in place of weight norm.
    """

    def __init__(self, config: NetworkConfig, *, dilation: int) -> None:
        super().__init__()
        self._padding = (config.kernel - 1) * dilation
        self.norm = nn.LayerNorm(config.width)
        self.convolve = nn.Conv1d(config.width, config.width, config.kernel, dilation=dilation)
        self.mix = nn.Linear(config.width, config.width)

    def transform(self, x_BTW: Tensor) -> Tensor:
        past_BWT = functional.pad(self.norm(x_BTW).transpose(1, 2), (self._padding, 0))
        inner_BTW = functional.gelu(self.convolve(past_BWT)).transpose(1, 2)
        mixed_BTW: Tensor = self.mix(inner_BTW)
        return x_BTW + mixed_BTW


class EncoderBlock(Block):
    """Self-attention over the steps, then a two-layer network at each, both with a residual.

    Norms come first (Xiong et al., 2020). Every step lies in the past of the row's decision, so
    steps may look at one another both ways.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width, inner = config.width, config.width * config.expansion
        self._heads = config.heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.gather = nn.Linear(width, width)
        self.step_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, inner)
        self.contract = nn.Linear(inner, width)

    def transform(self, x_BTW: Tensor) -> Tensor:
        x_BTW = x_BTW + self.gather(self._attend(self.attention_norm(x_BTW)))
        step_BTW: Tensor = self.contract(functional.gelu(self.expand(self.step_norm(x_BTW))))
        return x_BTW + step_BTW

    def _attend(self, x_BTW: Tensor) -> Tensor:
        parts = self.query_key_value(x_BTW).chunk(3, dim=2)
        query, key, value = (p.unflatten(2, (self._heads, -1)).transpose(1, 2) for p in parts)
        found = functional.scaled_dot_product_attention(query, key, value)
        return found.transpose(1, 2).flatten(2)


class Head(nn.Module):
    """Steps to outputs: the last step of a convolution, the mean step of a transformer."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self._takes_last = config.kind == "temporal_convolution"
        self.norm = nn.LayerNorm(config.width)
        self.project = nn.Linear(config.width, config.n_outputs)
        nn.init.zeros_(self.project.bias)

    def forward(self, x_BTW: Tensor) -> Tensor:
        x_BW = x_BTW[:, -1] if self._takes_last else x_BTW.mean(dim=1)
        output_BK: Tensor = self.project(self.norm(x_BW))
        return output_BK
