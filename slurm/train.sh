#!/bin/bash
# Pre-trains: sbatch slurm/train.sh [DECK [group%key=value ...]]. Default deck: input/hirl_mocov2.nml.
# Submit the same line again to continue; a signal 120 s before the time limit leads to a checkpoint (exit code 75) and a requeue.
#SBATCH --job-name=hirl-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
deck=${1:-input/hirl_mocov2.nml}
shift $(($# > 0 ? 1 : 0))

# The batch shell gets the signal; the step must see it.
srun --kill-on-bad-exit=1 "${HIRL_X:-hirl.x}" "$deck" "$@" &
step=$!
trap 'kill -USR1 "$step" 2>/dev/null' USR1 TERM
wait "$step"
code=$?
while kill -0 "$step" 2>/dev/null; do
    wait "$step"
    code=$?
done
if [ "$code" -eq 75 ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
