#!/bin/bash
# KNN evaluation: sbatch slurm/knn_eval.sh [DECK [group%key=value ...]], by default of
# input/hirl_mocov2.nml. Evaluates the newest checkpoint of the deck's run%output, or
# checkpoint%init_from=PATH.
#SBATCH --job-name=hirl-knn
#SBATCH --nodes=1
#SBATCH --exclusive
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
# SLURM runs a copy of this script; its folder is that of the one that was submitted.
folder=$(scontrol show job "$SLURM_JOB_ID" |
    sed -n '/^ *Command=/{ s|^ *Command=\(.*/\)[^/ ]*\.sh.*|\1|p; q }')
# shellcheck source=launch.sh
. "${folder:-slurm/}launch.sh"
deck=${1:-input/hirl_mocov2.nml}
shift $(($# > 0 ? 1 : 0))
launch "$deck" run%task=knn "$@"
