"""Where AWS keeps the image of Linear Learner: one account for each region."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from trademl.errors import ConfigError
from trademl.train.hyperparameters import closest

# Where names of hosts do not end in amazonaws.com: botocore's partitions.
_SUFFIXES = {
    "cn-": "amazonaws.com.cn",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
}


def linear_learner_image(region: str) -> str:
    """Return the address of Linear Learner's image.

    Raises
    ------
    ConfigError
        If no account is known for the region; the closest known one is named.

    Examples
    --------
    >>> linear_learner_image("eu-west-2")
    '644912444149.dkr.ecr.eu-west-2.amazonaws.com/linear-learner:1'
    """
    accounts = _accounts()
    if region not in accounts:
        raise ConfigError(
            f"no Linear Learner image is known for region {region!r}{closest(region, accounts)}"
        )
    suffix = next((s for start, s in _SUFFIXES.items() if region.startswith(start)), None)
    return f"{accounts[region]}.dkr.ecr.{region}.{suffix or 'amazonaws.com'}/linear-learner:1"


@cache
def _accounts() -> dict[str, str]:
    text = resources.files("trademl.aws").joinpath("linear_learner_accounts.json").read_text()
    accounts: dict[str, str] = json.loads(text)["accounts"]
    return accounts
