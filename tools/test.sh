#!/usr/bin/env bash
# Everything that must hold before a commit lands. `tools/test.sh lint` stops after the static checks.
# Called by `make test`, inside the environment of tools/env.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "== ruff"
ruff check src test tools
ruff format --check --quiet src test tools || { echo "run: ruff format src test tools" >&2; exit 1; }
echo "== mypy"
for package in atk_perception atk_policy atk_sim atk_bringup; do
  mypy "src/$package/$package"
done
[ "${1:-}" = lint ] && exit 0

echo "== tests"
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
python -m pytest "$@"
