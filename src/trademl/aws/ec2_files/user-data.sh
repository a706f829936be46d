#!/bin/bash
# First start of an Amazon Linux 2023 machine: Docker; the release itself comes over SSM.
set -euo pipefail
dnf install --assumeyes docker
systemctl enable --now docker amazon-ssm-agent
mkdir -p @@{root}/releases
touch @@{root}/ready
