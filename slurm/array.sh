#!/bin/bash
# A job array over seeds and decks: sbatch --array=0-9 slurm/array.sh DECK ... [group%key=value ...]
#
# With one deck, element i is the run with run%seed = i. With n decks, such as those of n methods,
# element i is deck i mod n with seed i / n: --array=0-1 runs two decks once, --array=0-5 each with
# three seeds. Each run has a folder of its own, the deck's run%output with -seedN behind it, and
# continues in it like a run of train.sh.
#SBATCH --job-name=hirl-array
#SBATCH --array=0-3
#SBATCH --nodes=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
trap 'is_stopped=yes' USR1 TERM
# SLURM runs a copy of this script; its folder is that of the one that was submitted.
folder=$(scontrol show job "$SLURM_JOB_ID" |
    sed -n '/^ *Command=/{ s|^ *Command=\(.*/\)[^/ ]*\.sh.*|\1|p; q }')
# shellcheck source=launch.sh
. "${folder:-slurm/}launch.sh"
fail() {
    echo "array.sh: $*" >&2
    exit 2
}

decks=()
while [ $# -gt 0 ] && [[ $1 != *%*=* ]]; do
    decks+=("$1")
    shift
done
[ ${#decks[@]} -gt 0 ] || decks=(input/hirl_mocov2.nml)
program=${HIRL_X:-hirl.x}
[[ $program == */* || ! -x $program ]] || program=./$program
outputs=()
for deck in "${decks[@]}"; do
    values=$("$program" --print-values "$deck" "$@") || fail "$deck: not a deck that can be run"
    output=$(sed -n "s/^run%output = '\(.*\)'$/\1/p" <<<"$values")
    for other in ${outputs[@]+"${outputs[@]}"}; do
        [ "$output" != "$other" ] || fail "two of the decks have run%output = '$output'"
    done
    outputs+=("$output")
done
i=$((SLURM_ARRAY_TASK_ID % ${#decks[@]}))
seed=$((SLURM_ARRAY_TASK_ID / ${#decks[@]}))
launch "${decks[i]}" "$@" "run%seed=$seed" "run%output='${outputs[i]}-seed$seed'"
