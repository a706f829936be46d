"""A sweep in a process of its own, which loads nothing else: `python backtest_sweep.py WEEK.npz`.

Reads thresholds and barriers from stdin as JSON; prints the median seconds and the peak of memory.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from trademl.backtest.score_rule import ScoreRule, sweep_scores
from trademl.market.costs import Costs
from trademl.market.quotes import Quotes

REPEATS = 5

told = json.load(sys.stdin)
held = np.load(sys.argv[1])
price, ts_event, score = held["price"], held["ts"], held["score"]
quotes = Quotes(ts_event, price, price, price, price, price, np.zeros(len(price), np.uint8))
rules = [ScoreRule(t, b, b, told["limit_s"], rest_quotes=1) for t, b in told["grid"]]
costs = Costs(**told["costs"])
sweep_scores(quotes, score, rules[:2], costs)
found = []
for _ in range(REPEATS):
    start = time.perf_counter()
    sweep_scores(quotes, score, rules, costs)
    found.append(time.perf_counter() - start)
# not of getrusage, which counts what the process that started this one held
status = Path("/proc/self/status").read_text()
peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
print(np.median(found), 1024 * peak_kib)
