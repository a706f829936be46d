"""What an hour of a training machine costs: a bundled table, or one asked of AWS.

The bundled one holds what AWS's price list said for three regions of the United States; refresh
it (``trademl aws prices --refresh``) for any other, and before a budget that must hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from trademl.aws.clients import PRICING_REGION, client
from trademl.aws.failures import aws_errors
from trademl.errors import CloudError, StoreError
from trademl.store.artifacts import storage_errors, write_atomically

FILE = "aws-prices.json"
_USAGE = re.compile(r"(?:^|-)Train:(ml\.[a-z0-9\-]+\.[a-z0-9]+)$")


@dataclass(frozen=True)
class PriceTable:
    """On-demand prices of training machines in one region.

    Parameters
    ----------
    region : str
    usd_per_hour : mapping of str to float
        By instance type.
    as_of : str
        When AWS said so, as a date.
    source : str
    """

    region: str
    usd_per_hour: Mapping[str, float]
    as_of: str
    source: str


def load_prices(region: str, folder: Path | None = None) -> PriceTable:
    """Return the prices of a region: those refreshed into ``folder``, else the bundled ones.

    A region that is in neither has an empty table.

    Raises
    ------
    StoreError
        If the refreshed file is damaged.
    """
    refreshed = folder / FILE if folder else None
    if refreshed is not None and refreshed.is_file():
        tables = _read(refreshed.read_bytes(), str(refreshed))
        if region in tables:
            return tables[region]
    bundled = resources.files("trademl.aws").joinpath("prices.json").read_bytes()
    return _read(bundled, "prices.json").get(region, PriceTable(region, {}, "never", "no table"))


def refresh_prices(
    region: str, folder: Path, *, now: Callable[[], datetime] | None = None
) -> PriceTable:
    """Ask AWS for the prices of a region and keep them in ``folder``.

    Raises
    ------
    CloudError
        If the Price List cannot be asked, or knows no training machine in the region.
    StoreError
        If the folder cannot be written, or its file is damaged.
    """
    found = dict(_ask(client("pricing", PRICING_REGION), region))
    if not found:
        raise CloudError(
            f"the Price List knows no training machine in {region!r}: correct aws.region"
        )
    today = (now or (lambda: datetime.now(UTC)))().date().isoformat()
    table = PriceTable(region, dict(sorted(found.items())), today, "AWS Price List")
    path = folder / FILE
    tables = _read(path.read_bytes(), str(path)) if path.is_file() else {}
    with storage_errors(folder):
        write_atomically(path, _written({**tables, region: table}))
    return table


def _ask(pricing: Any, region: str) -> Iterator[tuple[str, float]]:
    pages = pricing.get_paginator("get_products").paginate(
        ServiceCode="AmazonSageMaker",
        Filters=[{"Type": "TERM_MATCH", "Field": "regionCode", "Value": region}],
        FormatVersion="aws_v1",
    )
    with aws_errors(f"asking for prices of {region}"):
        for page in pages:
            for text in page["PriceList"]:
                yield from _price(json.loads(text))


def _price(product: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield a product's type and price, where it is an hour of training on demand."""
    usage = str(product["product"]["attributes"].get("usagetype", ""))
    if not (found := _USAGE.search(usage)):
        return
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = float(dimension["pricePerUnit"].get("USD", 0.0))
            if usd > 0 and str(dimension.get("unit", "Hrs")).lower().startswith("h"):
                yield found[1], usd


def _read(content: bytes, where: str) -> dict[str, PriceTable]:
    try:
        tables = json.loads(content)["regions"]
        return {
            region: PriceTable(
                region,
                {kind: float(usd) for kind, usd in table["usd_per_hour"].items()},
                str(table["as_of"]),
                str(table["source"]),
            )
            for region, table in tables.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{where} is damaged ({error}): delete it and refresh again") from error


def _written(tables: Mapping[str, PriceTable]) -> bytes:
    regions = {
        region: {"as_of": t.as_of, "source": t.source, "usd_per_hour": dict(t.usd_per_hour)}
        for region, t in tables.items()
    }
    return json.dumps({"regions": regions}, indent=1).encode()
