#!/bin/bash
# Submits a chain of jobs: pack the training and the query split, pre-train, evaluate KNN.
#
#   slurm/pipeline.sh [OPTION ...] PACK_DECK DECK [group%key=value ...]
#
# OPTION: options of sbatch, with = (--nodes=4, --account=...), for each of the jobs. Keys of the
# group pack go to the packing, all others to training and evaluation. A job starts when those
# before it have ended well, and is removed if they have not. Prints a line for each job.
set -eu
fail() {
    echo "pipeline.sh: $*" >&2
    exit 2
}

options=() pack=() other=()
while [[ ${1:-} == -* ]]; do
    options+=("$1")
    shift
done
[ $# -ge 2 ] || fail "usage: pipeline.sh [sbatch's options] PACK_DECK DECK [group%key=value ...]"
pack_deck=$1 deck=$2
shift 2
for word in "$@"; do
    case $word in
        pack%*) pack+=("$word") ;;
        *%*=*) other+=("$word") ;;
        *) fail "'$word' is not group%key=value" ;;
    esac
done
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# What would fail in a job hours from now fails here.
program=${HIRL_X:-hirl.x}
[[ $program == */* || ! -x $program ]] || program=./$program
"$program" --check "$pack_deck" run%task=pack ${pack[@]+"${pack[@]}"}
"$program" --check "$deck" ${other[@]+"${other[@]}"}
values=$("$program" --print-values "$deck" ${other[@]+"${other[@]}"})

# submit NAME AFTER SCRIPT ARGUMENT ...: the job's number is left in `job`.
submit() {
    local name=$1 after=$2
    shift 2
    job=$(sbatch --parsable ${options[@]+"${options[@]}"} --job-name="hirl-$name" \
        --kill-on-invalid-dep=yes ${after:+--dependency=afterok:"$after"} "$@")
    job=${job%%;*}
    echo "$name: job $job${after:+ after $after}"
}

submit pack-train '' "$folder/train.sh" "$pack_deck" pack%split=train ${pack[@]+"${pack[@]}"}
packed=$job
if ! grep -q "^data%val = ''" <<<"$values"; then
    submit pack-val '' "$folder/train.sh" "$pack_deck" pack%split=val ${pack[@]+"${pack[@]}"}
    packed+=:$job
fi
submit train "$packed" "$folder/train.sh" "$deck" ${other[@]+"${other[@]}"}
if ! grep -q "^data%val = ''" <<<"$values"; then
    submit knn "$job" "$folder/knn_eval.sh" "$deck" ${other[@]+"${other[@]}"}
fi
