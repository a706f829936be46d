"""A paper broker for options: an order fills whole at its limit, or rests, as it is told.

It keeps all that it was told in a file of its own, one JSON line each, as a broker outlives whoever
trades with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trademl.errors import BrokerError, OrderRejectedError
from trademl.ports import BrokerFill, OrderTicket


class PaperOptions:
    """Fills orders at their limit price, the premium; a `Broker` of one process at a time.

    Parameters
    ----------
    journal : Path
        Made if it is not there; a last line cut short by a crash counts as never written.
    fee_per_contract : float
        Quote currency.
    fills_at_once : bool
        Whether an order fills when it comes; else it rests until it is cancelled.
    name : str
        Another for each journal: the ledger keeps up to where it has read its fills.
    """

    def __init__(
        self,
        journal: Path,
        *,
        fee_per_contract: float = 0.0,
        fills_at_once: bool = True,
        name: str = "paper-options",
    ) -> None:
        self._journal, self._fee = journal, fee_per_contract
        self._fills_at_once, self._name = fills_at_once, name

    @property
    def name(self) -> str:
        return self._name

    def send(self, ticket: OrderTicket) -> None:
        if ticket.limit_price is None or ticket.limit_price <= 0:
            raise OrderRejectedError(
                f"order {ticket.key} has no premium: a paper option fills at its limit price"
            )
        if any(line["key"] == ticket.key for line in self._lines()):
            return
        line: dict[str, Any] = {"did": "sent", "key": ticket.key}
        if self._fills_at_once:
            line |= {
                "did": "filled",
                "ts_event_ns": ticket.created_at_ns,
                "quantity": ticket.quantity,
                "price": ticket.limit_price,
                "fees": ticket.quantity * self._fee,
            }
        self._write(line)

    def cancel(self, key: str) -> None:
        if not any(line["key"] == key and line["did"] != "sent" for line in self._lines()):
            self._write({"did": "cancelled", "key": key})

    def fills(self, cursor: str) -> tuple[Sequence[BrokerFill], str]:
        lines = self._lines()
        fills = [
            BrokerFill(
                line["key"], 1, line["ts_event_ns"], line["quantity"], line["price"], line["fees"]
            )
            for line in lines[int(cursor or "0") :]
            if line["did"] == "filled"
        ]
        return fills, str(len(lines))

    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = self._journal.read_text()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BrokerError(f"{self._journal}: {error.strerror}") from error
        whole, _, _ = text.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def _write(self, line: dict[str, Any]) -> None:
        try:
            with self._journal.open("a+b") as file:
                size = file.seek(0, os.SEEK_END)
                if size and not self._ends_whole(size):
                    file.truncate(self._journal.read_bytes().rfind(b"\n") + 1)
                file.write(json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise BrokerError(f"{self._journal}: {error.strerror}") from error

    def _ends_whole(self, size: int) -> bool:
        with self._journal.open("rb") as file:
            file.seek(size - 1)
            return file.read(1) == b"\n"
