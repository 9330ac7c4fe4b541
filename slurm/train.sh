#!/bin/bash
# Runs a deck: sbatch slurm/train.sh [DECK [group%key=value ...]], by default input/hirl_mocov2.nml.
#
# Two minutes before the time limit the run writes a checkpoint and goes back into the queue, where
# it continues; also on SIGTERM or SIGUSR1, on preemption, and when a node fails or a rank dies or
# hangs. The same line submitted again continues a run as well. Where a clustering takes longer than two minutes:
# sbatch --signal=B:USR1@600 ... More nodes: sbatch --nodes=8 ... (see launch.sh for the ranks).
#SBATCH --job-name=hirl-train
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
deck=${1:-input/hirl_mocov2.nml}
shift $(($# > 0 ? 1 : 0))
launch "$deck" "$@"
