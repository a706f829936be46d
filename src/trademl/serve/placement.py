"""Where a model computes: the processor, or a graphics card for a network of torch."""

from __future__ import annotations

import re
from pathlib import Path

from trademl.errors import ConfigError
from trademl.ports import Predictor
from trademl.train.model import load_model
from trademl.train.model_archive import is_network_file

CPU = "cpu"
_DEVICE = re.compile(r"cpu|cuda(:\d+)?")


def check_device_name(device: str) -> None:
    """Return if a name is one of a device.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if not _DEVICE.fullmatch(device):
        raise ConfigError(f"device is {device!r}: expected cpu, cuda or cuda:NUMBER")


def check_device(device: str) -> None:
    """Return if this machine has a device; torch is imported only where it is a graphics card.

    Raises
    ------
    ConfigError
        If it has not.
    """
    check_device_name(device)
    if device == CPU:
        return
    import torch

    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(device.partition(":")[2] or 0)
    if number >= n:
        found = f"{n} CUDA devices" if n else "no CUDA device"
        raise ConfigError(f"device is {device!r}, this machine has {found}: write device = 'cpu'")


def load_on(path: Path, device: str) -> Predictor:
    """Return a model of any kind that computes on a device.

    Raises
    ------
    ConfigError
        If a linear model is to compute anywhere but on the processor, or the device is not there.
    StoreError
        If it cannot be read.
    """
    model = load_model(path)
    if device == CPU:
        return model
    if not is_network_file(path):
        raise ConfigError(f"{path} is a linear model, which computes on the processor alone")
    check_device(device)
    from trademl.train.network_file import NetworkModel

    return model.on(device) if isinstance(model, NetworkModel) else model
