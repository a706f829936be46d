"""The seams: what the outside world must offer, as small Protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BuyOrSell = Literal["buy", "sell"]
OrderKind = Literal["entry", "exit", "hedge"]


class Progress(Protocol):
    """Told what a long job is doing; must not raise and must be cheap."""

    def step(self, name: str, detail: str = "") -> None:
        """Say that the step ``name`` begins."""

    def advance(self, done: int, total: int) -> None:
        """Say how much of the current step is done, in units of the step's own choice."""

    def done(self, detail: str = "") -> None:
        """Say that the current step ended, with its result in a few words."""


class Silent:
    """A `Progress` that says nothing: the default of every library function."""

    def step(self, name: str, detail: str = "") -> None:
        """Ignore it."""

    def advance(self, done: int, total: int) -> None:
        """Ignore it."""

    def done(self, detail: str = "") -> None:
        """Ignore it."""


class Predictor(Protocol):
    """Scores rows: the same row always gets the same score, in any batch and from any thread.

    A linear model keeps that to the last bit; a network's sums depend on the batch in the last
    digits of a float32. Both are this and nothing more to a server, which asks no model its kind.

    Shape letters: N rows, D feature columns, K classes.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the D features, in order."""

    @property
    def schema_hash(self) -> str:
        """What two models share only if they take the same columns in the same order."""

    def predict(self, features_ND: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return each row's score, and its label; raise nothing for finite features.

        The score has the shape (N,), or (N, K) with a share for each class. The label has the
        shape (N,), and is None for a model that predicts a quantity.
        """


@dataclass(frozen=True)
class OrderTicket:
    """An order as a broker gets it; it is the same order wherever its key is the same.

    Parameters
    ----------
    key : str
        The client order key: 1 to 36 letters, digits, ``-`` and ``_``, never used again.
    strategy, instrument : str
    quantity : float
        Units of the instrument, above 0; contracts where it is traded in contracts.
    limit_price : float, optional
        Worst price, in quote currency per unit; at market where it is None.
    created_at_ns : int
        When it was decided, UTC ns.
    payload : mapping
        What else the broker must know, and why the order was decided; JSON values only.
    """

    key: str
    strategy: str
    instrument: str
    side: BuyOrSell
    kind: OrderKind
    quantity: float
    limit_price: float | None
    created_at_ns: int
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BrokerFill:
    """A part of an order that was executed.

    Parameters
    ----------
    order_key : str
        Of the `OrderTicket`.
    number : int
        Tells the fills of one order apart; the same fill has the same number whenever it is asked.
    ts_event_ns : int
        When it was executed, UTC ns.
    quantity : float
        Units of the instrument, above 0 for buys and sells alike.
    price : float
        Quote currency per unit.
    fees : float
        For this fill as a whole, in quote currency; negative where the broker pays.
    """

    order_key: str
    number: int
    ts_event_ns: int
    quantity: float
    price: float
    fees: float = 0.0


class Broker(Protocol):
    """Takes orders and says what became of them.

    Every method raises `trademl.errors.BrokerError` where the broker cannot be reached or gives no
    clear answer; whether the call took effect is then unknown, and repeating it must be harmless.
    """

    @property
    def name(self) -> str:
        """Which broker and account it is: at most 80 characters, the same after a restart."""

    def send(self, ticket: OrderTicket) -> None:
        """Hand in an order, unless its key was handed in or cancelled before: then do nothing.

        Raises
        ------
        OrderRejectedError
            If the broker refuses the order for good: it will never fill.
        """

    def cancel(self, key: str) -> None:
        """Return once nothing more of that order will fill, even if it is sent later.

        What was filled before stays filled and is among the `fills`. A key that is not known, or
        done with, is no error.
        """

    def fills(self, cursor: str) -> tuple[Sequence[BrokerFill], str]:
        """Return fills that were not returned up to ``cursor``, and the next cursor.

        Parameters
        ----------
        cursor : str
            What an earlier call returned, at most 200 characters; empty asks from the beginning.

        Returns
        -------
        sequence of BrokerFill
            Each order's fills in order. The same cursor returns them again: nothing is lost if the
            caller dies before it has kept them.
        str
            The cursor to go on from.
        """


@dataclass(frozen=True)
class Login:
    """Where a password is for: a server's host and port, and the user of the address, if any."""

    host: str
    port: int
    user: str


@dataclass(frozen=True)
class Credentials:
    """How to get into a database now; the user is None where the source knows none."""

    password: str = field(repr=False)
    user: str | None = None


class SecretSource(Protocol):
    """Knows the password of a database, which may change while a program runs.

    It is asked before every connection that is opened, from any thread.
    """

    def credentials(self, *, renewed: bool = False) -> Credentials:
        """Return user and password.

        Parameters
        ----------
        renewed : bool
            Ask where they come from, not what was kept: the last ones were refused.

        Raises
        ------
        ConfigError
            If there is no password where one was expected.
        CloudError
            If it could not be asked for.
        """
