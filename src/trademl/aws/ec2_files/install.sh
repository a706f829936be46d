#!/bin/bash
# Brings release @@{release} up, asks each of its strategies one question, and goes back to the
# release before where one fails.
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

# The token goes through a descriptor, so that no other user sees it among a command's arguments.
headers() {
  printf '%s\n' 'Content-Type: application/json' "X-Trademl-Strategy: $1" \
    'X-Trademl-Deadline-Ms: 9000' "X-Trademl-Feature-Time-Ns: $(date +%s)000000000"
  if [ -s "$release/tokens" ]; then
    sed -n 's/^\(predict\|admin\)[[:space:]]\+/Authorization: Bearer /p' "$release/tokens" | head -n 1
  fi
}

# A score must be that of the model which gave it. A smaller one may answer while the biggest is
# read into memory, and under load.
ask() {
  local number="$1" strategy="$2" answer model reason expected
  for _ in $(seq @@{tries}); do
    answer="$(curl --fail --silent --show-error --include --max-time 10 \
      --header @<(headers "$strategy") --data "@$release/model/smoke/$number.json" \
      @@{url}/invocations)"
    model="$(printf '%s' "$answer" | tr -d '\r' | sed -n 's/^x-trademl-model: *//ip')"
    reason="$(printf '%s' "$answer" | tr -d '\r' | sed -n 's/^x-trademl-reason: *//ip')"
    score="$(printf '%s' "$answer" | sed -n 's/.*"score": *\([-+0-9.eE]*\).*/\1/p')"
    expected="$(awk -F '\t' -v n="$number" -v model="$model" '$1 == n && $3 == model' "$scores")"
    if ! printf '%s\n' "$expected" | awk -F '\t' -v found="$score" \
      '{ d = found - $4; exit !(found != "" && NF == 5 && d < $5 && d > -$5) }'; then
      echo "trademl: $strategy scores ${score:-nothing} by ${model:-no model}, expected" \
        "$(printf '%s' "${expected:-one of its own models}" | cut -f 4)" >&2
      return 1
    fi
    if [ "$model" = "$(awk -F '\t' -v n="$number" '$1 == n { print $3; exit }' "$scores")" ] \
      || [ "$reason" = load ]; then
      said="$said, $strategy scores $score by $model"
      return 0
    fi
    sleep 1
  done
  echo "trademl: $strategy is answered by $model alone, its biggest model does not come up" >&2
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
@@{tokens}
aws s3 cp --only-show-errors --region @@{region} @@{uri} "$release/model.tar.gz"
echo "@@{sha256}  $release/model.tar.gz" | sha256sum --check --quiet
tar --extract --gzip --no-same-owner --file "$release/model.tar.gz" --directory "$release/model"
chmod -R a+rX "$release/model"
@@{login}
docker pull --quiet @@{image}

trap go_back EXIT
switch_to "$release"
is_up "$release"
scores="$release/model/smoke/scores.tsv"
said=
while IFS=$'\t' read -r number strategy; do
  ask "$number" "$strategy"
done < <(cut -f 1,2 "$scores" | uniq)
trap - EXIT
[ -z "$previous" ] || ln -sfn "$previous" "$root/before"
echo "trademl: release @@{release} answers$said"
