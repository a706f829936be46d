"""Serve as SageMaker starts a container: the model lies in ``/opt/ml/model``, and so do the rules.

============================== ====================================================================
``model/``                     the files of one ``model.tar.gz``, unpacked by the platform: of one
                               model, or strategies that `trademl.serve.serving_folder` describes
``SAGEMAKER_MULTI_MODEL``      ``true``: models come and go over HTTP, from below ``models/``
``SAGEMAKER_MAX_PAYLOAD_IN_MB`` largest request of a transform job, up to 25 MiB here
``TRADEML_MODEL_ID``           what answers call the model, where it lies there alone
``TRADEML_MODEL_MODE``         its mode, ``live`` or ``shadow``; live only if accepted where not set
``TRADEML_STRATEGY``           what callers may call it in ``X-Trademl-Strategy``
``TRADEML_EMF``                ``off``: no figures for CloudWatch in the log
============================== ====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from trademl.errors import ConfigError, ServeError
from trademl.serve.model_pool import ModelFile
from trademl.serve.served import Mode
from trademl.serve.serving_folder import SERVING_FILE, read_serving
from trademl.serve.settings import EMF_S, MAX_BODY_MIB, MIB, ServerConfig
from trademl.serve.strategies import ServedStrategy, ready

MODEL_DOCUMENT, DEFAULT_NAME = "model.json", "default"


@dataclass(frozen=True)
class ContainerServing:
    """What a container serves, and how it listens."""

    strategies: tuple[ServedStrategy, ...]
    config: ServerConfig


def container_serving(
    root: Path,
    asked: ServerConfig,
    environ: Mapping[str, str],
    *,
    emf: bool | None = None,
    max_body_mib: int | None = None,
) -> ContainerServing:
    """Return what the container below a folder serves.

    Parameters
    ----------
    root : Path
        ``/opt/ml``, or a folder laid out like it.
    asked : ServerConfig
        How it is to listen; the platform has its say on the size of requests and on models that
        come over HTTP.
    environ : mapping of str to str
        The container's environment.
    emf : bool, optional
        Whether figures are logged for CloudWatch; as the environment says where it is None.
    max_body_mib : int, optional
        Largest request; as the environment says where it is None.

    Raises
    ------
    ConfigError
        If a variable is no number.
    ServeError
        If there is no model.
    ConfigError, StoreError, MissingExtraError
        If ``serving.json`` or one of its models cannot be read, or not served by this machine.
    """
    is_multi_model = environ.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true"
    has_figures = environ.get("TRADEML_EMF", "").lower() != "off" if emf is None else emf
    config = replace(
        asked,
        max_body_bytes=(max_body_mib or _payload_mib(environ)) * MIB,
        model_folder=root / "models" if is_multi_model else None,
        emf_s=EMF_S if has_figures else None,
    )
    if is_multi_model:
        return ContainerServing((), config)
    folder = root / "model"
    if (folder / SERVING_FILE).is_file():
        return ContainerServing(tuple(map(ready, read_serving(folder))), config)
    if not (folder / MODEL_DOCUMENT).is_file():
        raise ServeError(
            f"{folder} holds no {MODEL_DOCUMENT} and no {SERVING_FILE}: expected the files of a "
            "model.tar.gz of trademl"
        )
    name, mode = environ.get("TRADEML_MODEL_ID", "model"), environ.get("TRADEML_MODEL_MODE")
    if mode not in (None, "live", "shadow"):
        raise ConfigError(f"TRADEML_MODEL_MODE is {mode!r}, expected live or shadow")
    ladder = (ModelFile(name, str(folder), mode=cast("Mode", mode)),)
    strategy = ServedStrategy(environ.get("TRADEML_STRATEGY") or DEFAULT_NAME, ladder)
    return ContainerServing((strategy,), config)


def _payload_mib(environ: Mapping[str, str]) -> int:
    payload = environ.get("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6")
    if not payload.isdecimal():
        raise ConfigError(f"SAGEMAKER_MAX_PAYLOAD_IN_MB is {payload!r}, expected a number")
    return min(max(int(payload), 1), MAX_BODY_MIB)
