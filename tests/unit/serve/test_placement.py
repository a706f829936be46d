"""Where models compute."""

from __future__ import annotations

import numpy as np
import pytest

from serving_cases import linear_model
from trademl.errors import ConfigError
from trademl.serve.deployments import RungConfig, ServingConfig
from trademl.serve.placement import check_device, load_on
from trademl.train.model import save_model


@pytest.fixture
def network(tmp_path):
    torch = pytest.importorskip("torch")
    from trademl.train.network_config import NetworkConfig
    from trademl.train.network_file import NetworkModel, save_network
    from trademl.train.networks import build_network

    config = NetworkConfig("temporal_convolution", n_steps=4, width=4, depth=1)
    built = build_network(config, 4, seed=1)
    weights = {name: w.detach().numpy() for name, w in built.state_dict().items()}
    path = tmp_path / "network.tar.gz"
    save_network(NetworkModel(config, weights, "logistic", 0.5, tuple("abcd")), path)
    return path, built, torch


def without_cuda():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")


def test_a_network_is_served_as_torch_computes_it(network):
    path, built, torch = network
    rows_ND = np.arange(12, dtype=np.float32).reshape(3, 4)
    with torch.inference_mode():
        expected_N = torch.sigmoid(built.eval()(torch.from_numpy(rows_ND))[:, 0]).numpy()

    score_N, _ = load_on(path, "cpu").predict(rows_ND)

    np.testing.assert_allclose(score_N, expected_N, rtol=1e-6)


def test_a_network_on_a_card_that_is_not_there_is_refused(network):
    without_cuda()

    with pytest.raises(ConfigError, match="this machine has no CUDA device: write device = 'cpu'"):
        load_on(network[0], "cuda")


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_card_that_is_not_there_is_refused_before_anything_is_read(device):
    without_cuda()

    with pytest.raises(ConfigError, match="no CUDA device"):
        check_device(device)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "CPU", ""])
def test_another_name_is_refused(device):
    with pytest.raises(ConfigError, match="expected cpu, cuda or cuda:NUMBER"):
        RungConfig("deployed", device)


def test_a_linear_model_has_no_place_on_a_card(tmp_path):
    save_model(linear_model(1.0), tmp_path / "model.tar.gz")

    with pytest.raises(ConfigError, match="computes on the processor alone"):
        load_on(tmp_path / "model.tar.gz", "cuda")


@pytest.mark.parametrize("n", [0, 2])
def test_rungs_hold_the_deployed_model_once(n):
    rungs = (RungConfig("network-1"), *[RungConfig("deployed")] * n)

    with pytest.raises(ConfigError, match=f"name the deployed model {n} times"):
        ServingConfig(rungs=rungs)
