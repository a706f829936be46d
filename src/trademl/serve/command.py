"""The command line of ``trademl serve``, as whatever starts a server for a user writes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from trademl.errors import ConfigError

MAX_WORKERS = 256


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What a user says of a server that is started for him.

    Each field is the option of ``trademl serve`` with its name; None leaves it to the server.

    Parameters
    ----------
    workers : int, optional
        Processes that answer.
    capture : str, optional
        Folder or ``s3://bucket/prefix`` of a sample of requests and answers.
    capture_percent : float, optional
        How large that sample is.
    log_requests : float, optional
        Successes a second that are logged.
    emf : bool, optional
        Log figures for CloudWatch.
    memory_mib : int, optional
        Most memory of each worker for models that are read from files.

    Raises
    ------
    ConfigError
        If one is out of its range, or says something about another that is not there.
    """

    workers: int | None = None
    capture: str | None = None
    capture_percent: float | None = None
    log_requests: float | None = None
    emf: bool | None = None
    memory_mib: int | None = None

    def __post_init__(self) -> None:
        percent, rate = self.capture_percent, self.log_requests
        if self.workers is not None and not 1 <= self.workers <= MAX_WORKERS:
            raise ConfigError(f"workers is {self.workers}, expected from 1 to {MAX_WORKERS}")
        if self.memory_mib is not None and self.memory_mib < 1:
            raise ConfigError(f"memory_mib is {self.memory_mib}, expected 1 or more")
        if self.capture == "":
            raise ConfigError("capture is empty, expected a folder or s3://bucket/prefix")
        if percent is not None and not 0 < percent <= 100:
            raise ConfigError(f"capture_percent is {percent:g}, expected above 0, up to 100")
        if percent is not None and self.capture is None:
            raise ConfigError(
                f"capture_percent is {percent:g}, but nothing is captured: say with capture where "
                "it goes"
            )
        if rate is not None and not 0 <= rate < math.inf:
            raise ConfigError(f"log_requests is {rate:g}, expected 0 or more a second")

    def words(self) -> list[str]:
        """Return them as words of a command line.

        Examples
        --------
        >>> ServeOptions(workers=2, capture="kept", emf=False).words()
        ['--workers', '2', '--capture', 'kept', '--no-emf']
        """
        found = []
        for name, value in self.given().items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                found.append(f"--{option}" if value else f"--no-{option}")
            else:
                found += [f"--{option}", str(value)]
        return found

    def changed(self, **given: Any) -> ServeOptions:
        """Return them with others, of which None changes nothing."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def given(self) -> dict[str, int | float | str | bool]:
        """Return those that are said, by their names."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}
