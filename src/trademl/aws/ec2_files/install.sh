#!/bin/bash
# Brings release @@{release} up, asks it one question, and goes back to the one before where it fails.
set -euo pipefail
root=@@{root}
units=@@{units}
release="$root/releases/@@{release}"
previous="$(readlink "$root/current" 2>/dev/null || true)"
[ "$previous" != "$release" ] || previous="$(readlink "$root/before" 2>/dev/null || true)"

switch_to() {
  ln -sfn "$1" "$root/current" && cp "$1/trademl.service" "$units/trademl.service" \
    && systemctl daemon-reload && systemctl enable trademl.service \
    && systemctl restart trademl.service
}

is_up() {
  local url
  url="$(cat "$1/url" 2>/dev/null || echo @@{url})"
  for _ in $(seq @@{tries}); do
    if curl --fail --silent --max-time 2 "$url/ping"; then return 0; fi
    sleep 1
  done
  echo "trademl: nothing answers at $url/ping" >&2
  return 1
}

leave() {
  echo "trademl: release @@{release} is not installed, what ran before runs on" >&2
}

# A trap on EXIT: one on ERR is not inherited by functions, and would run twice in a $( ).
go_back() {
  trap - EXIT
  if [ -z "$previous" ] || [ ! -f "$previous/trademl.service" ]; then
    systemctl disable --now trademl.service || true
    rm -f "$root/current"
    echo "trademl: release @@{release} failed, and there is none before it" >&2
  elif switch_to "$previous" && is_up "$previous"; then
    echo "trademl: release @@{release} failed, ${previous##*/} runs again" >&2
  else
    echo "trademl: release @@{release} failed, and ${previous##*/} does not come up again" >&2
  fi
  exit 1
}

trap leave EXIT
for _ in $(seq @@{tries}); do [ -e "$root/ready" ] || command -v docker >/dev/null && break; sleep 2; done
mkdir -p "$release/model"
echo @@{url} > "$release/url"
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

trap go_back EXIT
switch_to "$release"
is_up "$release"
answer="$(curl --fail --silent --show-error --max-time 10 --header 'Content-Type: application/json' \
  --data '@@{row}' @@{url}/invocations)"
score="$(printf '%s' "$answer" | sed -n 's/.*"score": *\([-+0-9.eE]*\).*/\1/p')"
awk -v found="$score" -v expected=@@{score} \
  'BEGIN { d = found - expected; exit !(found != "" && d < 1e-6 && d > -1e-6) }'
trap - EXIT
[ -z "$previous" ] || ln -sfn "$previous" "$root/before"
echo "trademl: release @@{release} answers, score $score"
