#!/bin/sh
# SageMaker starts a container as `docker run <image> serve` or `train`; anything else is a verb.
set -eu
root="${TRADEML_ML:-/opt/ml}"
case "${1:-}" in
  serve) shift; exec trademl serve --ml-root "$root" "$@" ;;
  train) shift; exec trademl train --ml-root "$root" "$@" ;;
  *) exec trademl "$@" ;;
esac
