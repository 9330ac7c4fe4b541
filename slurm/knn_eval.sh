#!/bin/bash
# KNN evaluation: sbatch slurm/knn_eval.sh [DECK [group%key=value ...]]. Evaluates the newest checkpoint of the deck's run%output, or
# checkpoint%init_from=PATH. Default deck: input/hirl_mocov2.nml.
#SBATCH --job-name=hirl-knn
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=02:00:00
set -eu
deck=${1:-input/hirl_mocov2.nml}
shift $(($# > 0 ? 1 : 0))
srun --kill-on-bad-exit=1 "${HIRL_X:-hirl.x}" "$deck" run%task=knn "$@"
