#!/usr/bin/env bash
# Everything that must hold before a commit lands. `tools/test.sh lint` stops after the static checks; any other arguments are
# for pytest.
# Called by `make test`, inside the environment of tools/env.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "== ruff"
checked="src test tools conftest.py"
ruff check $checked
ruff format --check --quiet $checked || { echo "run: ruff format $checked" >&2; exit 1; }
echo "== mypy"
for package in atk_perception atk_policy atk_sim atk_bringup; do
  mypy "src/$package/$package"
done
[ "${1:-}" = lint ] && exit 0

export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
if [ $# -gt 0 ]; then
  exec python -m pytest "$@"
fi
# Two at a time, each on one thread (threads that wait for each other are slow where others work too); then, one by one, those
# that have deadlines. What fails first must not hide what fails later.
failed=0
echo "== tests that compute"
OMP_NUM_THREADS=1 python -m pytest -m "not system" --numprocesses 2 --dist loadfile || failed=$?
echo "== tests of processes that talk over DDS"
python -m pytest -m system || failed=$?
exit $failed
