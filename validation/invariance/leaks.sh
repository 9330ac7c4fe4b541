#!/usr/bin/env bash
# test: alone=no timeout=200 needs=dataset-fashion-mnist,python3-h5py
# A whole pre-training, its restart, an evaluation and a refused deck give all memory back (LeakSanitizer, one rank
# without mpirun: Open MPI's launcher leaks).
set -eu -o pipefail
[ -x "${HIRL_X_SANITIZED:-}" ] || { echo 'skip: no build with sanitizers' && exit 77; }
here=$PWD
cd "$HIRL_TMP"
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$here/validation/invariance "$PYTHON" -c 'import whole_run; whole_run.prepare()'

n_failures=0
# expect CODE ARGUMENTS...
expect() {
    local code=0
    "$HIRL_X_SANITIZED" "${@:2}" >log 2>&1 || code=$?
    if [ $code -eq "$1" ] && ! grep -q -E 'Sanitizer|runtime error' log; then
        echo "ok    exit code $code: ${*:2}"
    else
        echo "FAIL  exit code $code, expected $1: ${*:2}"
        tail -n 40 log
        n_failures=$((n_failures + 1))
    fi
}
small='hirl%cluster_warmup_epoch=0 knn%every_epochs=0.25'
# shellcheck disable=SC2086 # words
{
    expect 0 deck.nml $small run%max_steps=2
    expect 0 deck.nml $small run%max_steps=4
    expect 0 deck.nml run%task=knn
    expect 0 --inspect run/checkpoints/checkpoint-00000004.h5
    expect 1 deck.nml run%seed=3
    expect 1 deck.nml model%width=4
    expect 1 deck.nml optim%lrr=1
    expect 1 deck.nml run%output=other data%train=data/nothing-*.h5
    expect 1 deck.nml run%output=other optim%lr=1e6 optim%weight_decay=1000
}
[ $n_failures -eq 0 ]
