#!/usr/bin/env bash
# Install what cluster/slurm_cluster.py runs and the compilers that tests need (wrong clocks, torch.compile), or the
# packages that are named (Debian and Ubuntu). Does nothing where everything is there already.
set -euo pipefail
packages=("$@")
(($#)) || packages=(slurm-wlm munge slurmdbd mariadb-server gcc g++)
missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
((${#missing[@]})) || exit 0
if ((EUID != 0)); then
  echo "cluster/install.sh: not root; ask for: apt-get install -y --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# Debian starts services when it installs them; this cluster brings its own, so none of them shall run.
blocked=
if [[ ! -e /usr/sbin/policy-rc.d ]]; then
  blocked=/usr/sbin/policy-rc.d
  trap 'rm -f "$blocked"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$blocked"
  chmod +x "$blocked"
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
