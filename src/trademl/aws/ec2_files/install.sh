#!/bin/bash
# Brings release @@{release} up, asks it one question, and goes back to the one before where it fails.
set -euo pipefail
root=@@{root}
units=@@{units}
release="$root/releases/@@{release}"
previous="$(readlink "$root/current" 2>/dev/null || true)"

switch_to() {
  ln -sfn "$1" "$root/current"
  cp "$1/trademl.service" "$units/trademl.service"
  systemctl daemon-reload
  systemctl enable trademl.service
  systemctl restart trademl.service
}

go_back() {
  trap - ERR
  if [ -n "$previous" ] && [ "$previous" != "$release" ] && [ -f "$previous/trademl.service" ]; then
    switch_to "$previous"
    echo "trademl: release @@{release} failed, ${previous##*/} runs again" >&2
  else
    systemctl stop trademl.service || true
    rm -f "$root/current"
    echo "trademl: release @@{release} failed, and there is none before it" >&2
  fi
  exit 1
}

for _ in $(seq @@{tries}); do [ -e "$root/ready" ] || command -v docker >/dev/null && break; sleep 2; done
mkdir -p "$release/model"
base64 --decode > "$release/trademl.service" <<'END'
@@{unit_base64}
END
base64 --decode > "$release/compose.yaml" <<'END'
@@{compose_base64}
END
aws s3 cp --only-show-errors --region @@{region} @@{uri} "$release/model.tar.gz"
echo "@@{sha256}  $release/model.tar.gz" | sha256sum --check --quiet
tar --extract --gzip --no-same-owner --file "$release/model.tar.gz" --directory "$release/model"
chmod -R a+rX "$release/model"
@@{login}
docker pull --quiet @@{image}

trap go_back ERR
switch_to "$release"
for attempt in $(seq @@{tries}); do
  curl --fail --silent --show-error --max-time 2 http://127.0.0.1:@@{port}/ping && break
  [ "$attempt" -lt @@{tries} ]
  sleep 1
done
answer="$(curl --fail --silent --show-error --max-time 10 --header 'Content-Type: application/json' \
  --data '@@{row}' http://127.0.0.1:@@{port}/invocations)"
score="$(printf '%s' "$answer" | sed -n 's/.*"score": *\([-+0-9.eE]*\).*/\1/p')"
awk -v found="$score" -v expected=@@{score} \
  'BEGIN { d = found - expected; exit !(found != "" && d < 1e-6 && d > -1e-6) }'
trap - ERR
echo "trademl: release @@{release} answers, score $score"
