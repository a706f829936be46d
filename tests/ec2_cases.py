"""A machine on EC2 whose programs are stubs, and an account that tells it what to do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aws_cases import DocumentedServer

# What the script calls, answering as on a machine; each call is a line of $LOG. The call that
# matches $FAIL fails, the first time only where $FAIL_ONCE is a file that is not there yet.
# $ANSWERS/<strategy> holds another score and model than $SCORE and $MODEL, and a reason.
STUB = """#!/bin/bash
call="$(basename "$0") $*"
echo "$call" >> "$LOG"
if [[ -n "${FAIL:-}" && "$call" == $FAIL && ! -e "${FAIL_ONCE:-/none}" ]]; then
  [ -z "${FAIL_ONCE:-}" ] || touch "$FAIL_ONCE"
  exit 1
fi
case "$call" in
  aws\\ s3*) cp "$ARCHIVE" "${@: -1}" ;;
  aws\\ ssm*) printf '%s\n' "$TOKENS" ;;
  curl*invocations*)
    for word in "$@"; do case "$word" in @/dev/*) sent="$(cat "${word#@}")" ;; esac; done
    echo "$sent" >> "$LOG"
    strategy="$(sed -n 's/^X-Trademl-Strategy: //p' <<< "$sent")"
    read -r score model reason < <(cat "$ANSWERS/$strategy" 2>/dev/null || echo "$SCORE $MODEL")
    printf 'HTTP/1.1 200 OK\r\nX-Trademl-Model: %s\r\nX-Trademl-Reason: %s\r\n\r\n' \
      "$model" "${reason:-normal}"
    printf '{"predictions":[{"score":%s,"predicted_label":0.0}]}' "$score" ;;
  curl*ping*) exit "${PING:-0}" ;;
esac
"""


def stub_machine(root: Path) -> dict[str, str]:
    """Return the environment of a machine whose programs are stubs."""
    folder = root / "bin"
    folder.mkdir()
    for name in ("aws", "docker", "systemctl", "curl", "chown"):
        (folder / name).write_text(STUB)
        (folder / name).chmod(0o755)
    (root / "units").mkdir()
    (root / "answers").mkdir()
    return {"PATH": f"{folder}:{os.environ['PATH']}", "LOG": str(root / "log"),
            "ANSWERS": str(root / "answers")}  # fmt: skip


COMMAND = "11111111-2222-3333-4444-555555555555"


class Ssm:
    """SSM of an account whose machines run what they are sent, here."""

    def __init__(
        self, machine: dict[str, str], rewrite: Callable[[str], str] = lambda script: script
    ) -> None:
        self.machine, self.rewrite = machine, rewrite
        self.done: dict[str, subprocess.CompletedProcess[str]] = {}
        self.server = DocumentedServer(
            {
                "DescribeInstanceInformation": self.online,
                "SendCommand": self.send,
                "GetCommandInvocation": self.result,
            }
        )

    def online(self, request: dict[str, Any]) -> dict[str, Any]:
        names = request["Filters"][0]["Values"]
        return {
            "InstanceInformationList": [{"InstanceId": n, "PingStatus": "Online"} for n in names]
        }

    def send(self, request: dict[str, Any]) -> dict[str, Any]:
        script = self.rewrite("\n".join(request["Parameters"]["commands"]))
        self.done[COMMAND] = subprocess.run(
            ["bash", "-c", script], env=self.machine, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip
        return {"Command": {"CommandId": COMMAND}}

    def result(self, request: dict[str, Any]) -> dict[str, Any]:
        done = self.done[request["CommandId"]]
        status = "Failed" if done.returncode else "Success"
        return {"Status": status, "StandardOutputContent": done.stdout,
                "StandardErrorContent": done.stderr}  # fmt: skip
