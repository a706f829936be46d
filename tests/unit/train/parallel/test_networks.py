"""Networks as rows of layers: the same weights however they are cut, no look ahead, true costs."""

from __future__ import annotations

import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from trademl.errors import StoreError
from trademl.train.model import LinearModel, load_model, save_model
from trademl.train.model_archive import is_network_file, pack
from trademl.train.network_config import NetworkConfig
from trademl.train.network_file import NetworkModel, load_network, save_network
from trademl.train.networks import Layers, build_layers, build_network
from trademl.train.parallel.costs import layer_costs

CONVOLUTION = NetworkConfig("temporal_convolution", n_steps=12, width=8, depth=3)
TRANSFORMER = NetworkConfig("transformer", n_steps=12, width=8, depth=2, heads=2)
BOTH = pytest.mark.parametrize("config", [CONVOLUTION, TRANSFORMER], ids=lambda c: c.kind)
D = 12 * 2 + 3  # two channels a step, three columns of no step


def rows(n: int = 5, d: int = D) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def unpack(path):
    with tarfile.open(path) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


@BOTH
def test_parts_in_a_row_are_the_whole(config):
    whole = build_network(config, D, seed=3)
    parts = [
        Layers(build_layers(config, D, numbers, seed=3))
        for numbers in (range(2), range(2, config.n_layers))
    ]

    names = [name for part in parts for name in part.state_dict()]
    assert names == list(whole.state_dict())
    torch.testing.assert_close(parts[1](parts[0](rows())), whole(rows()), rtol=0, atol=0)


def test_a_convolution_at_a_step_reads_no_later_step():
    body = Layers(build_layers(CONVOLUTION, D, range(1, 4), seed=3))
    x_BTW = torch.randn(2, 12, 8)
    tampered_BTW = x_BTW.clone()
    tampered_BTW[:, 7:] = torch.randn(2, 5, 8)  # a constant more would be lost in the norms

    torch.testing.assert_close(body(tampered_BTW)[:, :7], body(x_BTW)[:, :7])


def test_a_deep_convolution_reads_the_whole_window():
    config = NetworkConfig("temporal_convolution", n_steps=64, width=4, depth=6)
    x_BTW = torch.randn(1, 64, 4, requires_grad=True)
    Layers(build_layers(config, 64, range(1, 7), seed=3))(x_BTW)[:, -1].sum().backward()

    assert (x_BTW.grad.abs().sum(dim=2) > 0).sum() >= 63


@BOTH
def test_recomputing_changes_no_gradient(config):
    def gradients(recompute):
        network = Layers(
            build_layers(config, D, range(config.n_layers), seed=1, recompute=recompute)
        )
        network.train()(rows()).sum().backward()
        return {name: p.grad for name, p in network.named_parameters()}

    for name, found in gradients(True).items():
        torch.testing.assert_close(found, gradients(False)[name], rtol=0, atol=0)


@BOTH
def test_costs_are_those_of_a_real_pass(config):
    """Weights and kept bytes, counted on real tensors by the memory they lie in."""
    costs = layer_costs(config, D)
    x = rows(16)
    for number, cost in enumerate(costs):
        layer = Layers(build_layers(config, D, [number], seed=0))
        weights = {p.untyped_storage().data_ptr() for p in layer.parameters()}
        kept, held = {}, []

        def keep(tensor, kept=kept, held=held):
            held.append(tensor)
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        x = x.detach().requires_grad_()
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            x = layer(x)
        n_bytes = sum(size for place, size in kept.items() if place not in weights)
        assert cost.n_weights == sum(p.numel() for p in layer.parameters())
        # what does not grow with the rows, such as the scale of features, counts a little more
        assert cost.activation_bytes * 16 == pytest.approx(n_bytes, rel=0.05, abs=16 * D * 4)


def test_flops_of_an_encoder_block_by_hand():
    t, w, e = 12, 8, 4
    products = (
        t * w * 3 * w + t * w * w + 2 * t * w * e * w
    )  # query, key, value; gather; two layers
    attention = 2 * t * t * w

    assert layer_costs(TRANSFORMER, D)[1].flops == 2 * (products + attention)


@pytest.fixture
def model() -> NetworkModel:
    network = build_network(TRANSFORMER, D, seed=5)
    return NetworkModel(
        config=TRANSFORMER,
        weights={name: w.numpy() for name, w in network.state_dict().items()},
        loss="logistic",
        threshold=0.4,
        columns=tuple(f"c{i}" for i in range(D)),
        metrics={"validation_loss": 0.5},
    )


def test_a_saved_network_predicts_as_before(model, tmp_path):
    save_network(model, tmp_path / "model.tar.gz")
    again = load_network(tmp_path / "model.tar.gz")

    features_ND = rows(50).numpy()
    score_N, label_N = again.predict(features_ND)
    np.testing.assert_array_equal(score_N, model.predict(features_ND)[0])
    np.testing.assert_array_equal(label_N, score_N >= np.float32(0.4))
    assert (again.columns, again.schema_hash) == (model.columns, model.schema_hash)
    assert is_network_file(tmp_path / "model.tar.gz")


def test_the_same_network_gives_the_same_bytes_and_no_pickle(model, tmp_path):
    for name in ("a", "b"):
        save_network(model, tmp_path / name)
    members = unpack(tmp_path / "a")

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert {name.rpartition(".")[2] for name in members} == {"json", "npy"}
    assert all(c.startswith(b"\x93NUMPY") for n, c in members.items() if n.endswith("npy"))


def without_a_weight(members):
    return {n: c for n, c in members.items() if n != "weights/layers.1.gather.bias.npy"}


def with_other_columns(members):
    changed = members["model.json"].replace(b'"c0"', b'"zz"')
    return members | {"model.json": changed}


def with_an_unknown_kind(members):
    return members | {"model.json": members["model.json"].replace(b"transformer", b"lstm")}


def with_a_thousand_million_layers(members):
    return members | {
        "model.json": members["model.json"].replace(b'"depth": 2', b'"depth": 1000000000')
    }


def with_a_width_that_fills_the_memory(members):
    return members | {
        "model.json": members["model.json"].replace(b'"width": 8', b'"width": 8000000')
    }


@pytest.mark.parametrize("damage", [
    without_a_weight, with_other_columns, with_an_unknown_kind, with_a_thousand_million_layers,
    with_a_width_that_fills_the_memory,
])  # fmt: skip
def test_a_damaged_network_is_one_line(model, tmp_path, damage):
    path = tmp_path / "model.tar.gz"
    save_network(model, path)
    path.write_bytes(pack(damage(unpack(path))))

    with pytest.raises(StoreError, match="train again") as caught:
        load_network(path)
    assert "\n" not in str(caught.value)


LINEAR = LinearModel(
    weights_D=np.linspace(-1, 1, D),
    bias=0.1,
    mean_D=np.zeros(D),
    scale_D=np.ones(D),
    threshold=0.4,
    columns=tuple(f"c{i}" for i in range(D)),
)


@pytest.mark.parametrize("kind", ["linear", "network"])
def test_both_kinds_of_model_are_one_to_whoever_asks(model, tmp_path, kind):
    asked = LINEAR if kind == "linear" else model
    save_model(asked, tmp_path / "model.tar.gz")
    found = load_model(tmp_path / "model.tar.gz")

    features_ND = rows(6).numpy()
    score_N, label_N = found.predict(features_ND)
    alone_N = np.concatenate([found.predict(row[None])[0] for row in features_ND])
    assert (score_N.shape, score_N.dtype, label_N.shape) == ((6,), np.float32, (6,))
    np.testing.assert_allclose(alone_N, score_N, rtol=0, atol=0 if kind == "linear" else 1e-6)
    np.testing.assert_array_equal(label_N, score_N >= np.float32(found.threshold))
    assert (found.columns, found.schema_hash) == (asked.columns, asked.schema_hash)
    assert (found.status, found.reasons) == ("refused", asked.reasons)
    assert found.mean_D.shape == found.scale_D.shape == (D,)


def test_a_network_of_values_has_no_labels(model):
    network = NetworkModel(**{**vars_of(model), "loss": "squared"})

    score_N, label_N = network.predict(rows(4).numpy())
    assert label_N is None
    np.testing.assert_array_equal(score_N, network.outputs(rows(4).numpy())[:, 0])


def vars_of(model):
    return {name: getattr(model, name) for name in model.__dataclass_fields__}


def test_a_linear_model_is_served_without_torch(tmp_path):
    save_model(LINEAR, tmp_path / "model.tar.gz")
    program = (
        "import sys; from pathlib import Path; from trademl.serve.placement import load_on; "
        f"load_on(Path({str(tmp_path / 'model.tar.gz')!r}), 'cpu'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
