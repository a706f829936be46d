"""What each layer of a network costs, counted on shapes alone: no memory is taken, no sum made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from trademl.train.network_config import NetworkConfig, Precision
from trademl.train.networks import Layers, build_layers

BYTES_PER_WEIGHT = 4
STATES_PER_WEIGHT = 4  # the weight, its gradient, and the two moments of Adam
_ROWS = 2  # one row would let torch leave out a dimension


@dataclass(frozen=True)
class LayerCost:
    """One layer of a network.

    Parameters
    ----------
    n_weights : int
        Trainable numbers.
    activation_bytes : int
        Kept for the backward pass, per row.
    output_bytes : int
        Handed to the next layer, per row.
    flops : int
        Floating point operations of a forward pass, per row; a multiplication and an addition are
        two. A backward pass takes twice as many.
    """

    n_weights: int
    activation_bytes: int
    output_bytes: int
    flops: int

    @property
    def state_bytes(self) -> int:
        """Weights, gradients and moments."""
        return self.n_weights * BYTES_PER_WEIGHT * STATES_PER_WEIGHT


def layer_costs(
    config: NetworkConfig,
    feature_dim: int,
    *,
    precision: Precision = "float32",
    recompute: bool = False,
) -> list[LayerCost]:
    """Return the cost of each layer, embedding first.

    A tensor that several operations keep counts once; one that two layers share counts for the
    layer that receives it.
    """
    costs = []
    with FakeTensorMode():
        layers = build_layers(
            config, feature_dim, range(config.n_layers), seed=0, recompute=recompute
        )
        x = torch.empty(_ROWS, feature_dim)
        for number, layer in layers.items():
            layer.train()
            cost, x = _measure(Layers({number: layer}, precision), x)
            costs.append(cost)
    return costs


def _measure(layer: nn.Module, x: Tensor) -> tuple[LayerCost, Tensor]:
    weights = {id(p.untyped_storage()) for p in layer.parameters()}
    kept: dict[int, UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[id(storage)] = storage  # held, or another storage could be given the same id
        return tensor

    x = x.detach().requires_grad_()
    attention = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")  # noqa: B009
    counter = FlopCounterMode(display=False, custom_mapping={attention: _attention_flops})
    with counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        output: Tensor = layer(x)
    return LayerCost(
        n_weights=sum(p.numel() for p in layer.parameters()),
        activation_bytes=sum(s.nbytes() for i, s in kept.items() if i not in weights) // _ROWS,
        output_bytes=output.untyped_storage().nbytes() // _ROWS,
        flops=int(counter.get_total_flops()) // _ROWS,
    ), output.detach()


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """Return the operations of attention, which torch counts for GPUs alone; of shapes."""
    batch, heads, n_queries, width = query
    n_keys, value_width = key[2], value[3]
    return 2 * batch * heads * n_queries * n_keys * (width + value_width)
