"""A strategy's hedge, as of yesterday."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def day(days):
    return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()


HEDGE = f"""
[hedge]
home = "hk"
instrument = "TEST"
etf = "EWH"
beta = 0.9
implied_volatility = 0.2
as_of = "{day(-1)}"
expiry = "{day(60)}"
multiplier = 0.001
budget = 1000.0
"""
