"""A long file of scores in a process of its own: `python backtest_year.py FILE RULE-AND-COSTS`.

Prints the median seconds of trading it and the peak of memory; what it is told is one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from trademl.backtest.score_rule import ScoreRule
from trademl.backtest.streaming import trade_scores_of_file
from trademl.market.costs import Costs

REPEATS = 3

path, told = Path(sys.argv[1]), json.loads(sys.argv[2])
rule, costs = ScoreRule(**told["rule"]), Costs(**told["costs"])
found = []
for _ in range(1 + REPEATS):  # compiled code is read from the disk the first time
    start = time.perf_counter()
    trade_scores_of_file(path, rule, costs)
    found.append(time.perf_counter() - start)
status = Path("/proc/self/status").read_text()
peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
print(np.median(found[1:]), 1024 * peak_kib)
