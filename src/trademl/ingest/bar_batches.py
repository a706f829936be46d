"""Orders decided at the closes of bars, settled on the bars, published as batches."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from trademl.errors import ConfigError
from trademl.ingest.bar_builds import build_bars
from trademl.ingest.bar_files import closes, read_bars
from trademl.ingest.order_bot import OrderBotConfig, place_orders
from trademl.ingest.replay import publish_batches, published_batches
from trademl.ingest.sources import FeedConfig, quotes_path
from trademl.ledger import Ledger
from trademl.market.bar_clocks import check_clock
from trademl.market.bars import Bars, settle_on_bars
from trademl.market.costs import Costs
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id, digest_file

BARS_VERSION = 1  # raise it when the same file would give other bars

BarsBy = Literal["", "file", "time", "tick", "volume", "dollar"]


@dataclass(frozen=True, slots=True)
class BarsConfig:
    """Whether a strategy trades on bars, and on which: section ``[bars]`` of a strategy file.

    Parameters
    ----------
    by : str
        Empty: on quotes. ``file``: on the bars that the feed's file holds. Otherwise on bars built
        from its ticks, filled by ``time``, ``tick``, ``volume`` or ``dollar``.
    size : float
        Seconds, ticks, units or money of a bar that is built.
    spread : float or None
        Ask minus bid of a file's bars that have one price.
    """

    by: BarsBy = ""
    size: float = 60.0
    spread: float | None = None

    def __post_init__(self) -> None:
        if self.by not in (known := get_args(BarsBy)):
            raise ConfigError(f"bars are by {self.by!r}, expected one of {', '.join(known[1:])}")
        if self.by not in ("", "file"):
            check_clock(self.by, self.size)
        if self.spread is not None and not self.spread >= 0:
            raise ConfigError(f"spread is {self.spread}, expected 0 or more")


def export_on_bars(
    feed: FeedConfig,
    config: BarsConfig,
    bot: OrderBotConfig,
    costs: Costs,
    store: ArtifactStore,
    ledger: Ledger,
) -> list[Artifact]:
    """Place the bot's orders at the closes of bars, settle them there, and publish the batches.

    Returns
    -------
    list of Artifact
        The batches, oldest first; those published before are not made again.

    Raises
    ------
    DataError
        If the recording cannot be used, the spread is as wide as a barrier, or no order could be
        resolved.
    """
    path = quotes_path(feed)
    how = {k: v for k, v in asdict(feed).items() if k not in ("quotes", "allow_bad_quotes")}
    recording = artifact_id(
        "recording",
        {"file": digest_file(path)},
        {**how, "bars": asdict(config)},
        code=f"bars {BARS_VERSION}",
    )
    parameters = {"orders": asdict(bot), "costs": asdict(costs)}
    if (done := published_batches(recording, parameters, store, ledger)) is not None:
        return done
    bars = bars_of_feed(feed, config)
    quotes = closes(bars)
    orders = place_orders(quotes, bot)
    done_on_bars = settle_on_bars(bars, orders, costs)
    return publish_batches(
        recording,
        feed.name,
        quotes,
        orders,
        done_on_bars.transactions,
        bot,
        costs,
        parameters,
        store,
        ledger,
        bars=bars,
    )


def bars_of_feed(feed: FeedConfig, config: BarsConfig) -> Bars:
    """Return the bars that a strategy trades on, read or built.

    Raises
    ------
    ConfigError
        If it trades on quotes.
    DataError
        As `trademl.ingest.bar_files.read_bars` and `trademl.ingest.bar_builds.build_bars`.
    """
    if not config.by:
        raise ConfigError("the strategy trades on quotes: set [bars] by to trade on bars")
    if config.by != "file":
        return build_bars(feed, config.by, config.size).bars
    return read_bars(
        Path(quotes_path(feed)),
        spread=config.spread,
        timezone=feed.timezone,
        instrument=feed.instrument,
    )
