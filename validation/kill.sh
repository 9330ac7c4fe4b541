#!/bin/bash
# Kills and restarts N small runs (3) on two ranks and compares their ends with an undisturbed one, bit for bit:
#   validation/kill.sh [N]
# The last lines: `kill: <n> of <N> runs are bit-identical` and the number of failed checks.
set -eu
cd "$(dirname "$0")/.."
make -s all
python=$([ -x /usr/bin/python3 ] && echo /usr/bin/python3 || echo python3)
exec "$python" validation/invariance/kill.py "${1:-3}"
