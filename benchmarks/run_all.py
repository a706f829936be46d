"""Run every benchmark, one after the other, and keep each result as ``results/<date>-<name>.json``.

With ``--quick`` nothing is kept. The exit code is the highest of theirs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOT_BENCHMARKS = {
    *("harness.py", "run_all.py", "parallel_ranks.py"),
    *("backtest_sweep.py", "backtest_year.py"),
    *("serve_arrivals.py", "serve_load.py", "serve_worker.py"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes; results are not kept")
    quick = parser.parse_args().quick
    scripts = sorted(path for path in HERE.glob("*.py") if path.name not in NOT_BENCHMARKS)
    return max(run(script, quick=quick) for script in scripts)


def run(script: Path, *, quick: bool) -> int:
    """Run one benchmark, keep its result where it has one, and return its exit code."""
    print(f"== {script.stem}", file=sys.stderr)
    options = ["--json", *(["--quick"] if quick else [])]
    done = subprocess.run([sys.executable, script, *options], stdout=subprocess.PIPE, check=False)
    if done.stdout and not quick:
        result = json.loads(done.stdout)
        day = datetime.now(UTC).date().isoformat()
        path = HERE / "results" / f"{day}-{result['name']}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
        print(f"kept {path.relative_to(HERE.parent)}", file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
