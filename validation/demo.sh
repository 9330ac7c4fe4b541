#!/usr/bin/env bash
# The demonstration: Fashion-MNIST to shards, HIRL-MoCo v2 on two ranks, a restart from its checkpoint, KNN against raw pixels and an untrained encoder.
# Run by `make demo`. Last line: demo: knn_top1 = <final> raw_pixels = <..> untrained = <..> train_seconds = <..>
set -eu -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ranks=${RANKS:-2}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none
program=${HIRL_X:-./hirl.x}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

hirl() { ${MPIRUN:-mpirun} -n "$ranks" "$program" "$@"; }
# top-1 at k = 20 of the last evaluation in the log
top1() { sed -n 's/.*k = 20 *top[-_]*1 *=* *\([0-9.]*\).*/\1/p' "$log" | tail -n 1; }

echo "== 1/4 pack: IDX files to HDF5 shards"
hirl input/fashion_mnist_pack.nml
hirl input/fashion_mnist_pack.nml pack%split=val

echo "== 2/4 baselines: KNN of raw pixels and of an untrained encoder"
hirl input/demo.nml run%task=knn checkpoint%init_from=pixels 2>&1 | tee "$log"
pixels=$(top1)
hirl input/demo.nml run%task=knn checkpoint%init_from=none 2>&1 | tee "$log"
untrained=$(top1)

echo "== 3/4 pre-train; stopped in the middle and continued from its checkpoint"
rm -rf runs/demo
begin=$(date +%s.%N)
hirl input/demo.nml run%max_steps="${STOP_AT:-500}"
hirl input/demo.nml
train_seconds=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')

echo "== 4/4 evaluate the newest checkpoint"
hirl input/demo.nml run%task=knn 2>&1 | tee "$log"
echo "demo: knn_top1 = $(top1) raw_pixels = $pixels untrained = $untrained train_seconds = $train_seconds"
