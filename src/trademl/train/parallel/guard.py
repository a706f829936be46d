"""No process outlives the one that started it."""

from __future__ import annotations

import os
import threading
import time

_EVERY_S = 0.2
ORPHANED = 1


def die_with_parent(parent: int) -> None:
    """End this process soon after its parent, whatever ended that one; asks the system each 0.2 s.

    Parameters
    ----------
    parent : int
        Process id. Where it is not the parent's any more, this process ends at once.
    """
    threading.Thread(target=_watch, args=(parent,), name="guard", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_EVERY_S)
    os._exit(ORPHANED)
