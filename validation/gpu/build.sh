#!/usr/bin/env bash
# test: timeout=900 alone=yes
# The build with CUDA compiles and links without a warning where there is a CUDA toolkit, and its program says what it was
# built with, and why it finds no device where there is none. One architecture, for time: the code is the same for all.
set -u -o pipefail

build=build/release-cuda
program=$build/hirl.x
settings=(CUDA=1 WERROR=1 CUDA_ARCH=90 CUDA_PTX= "PROGRAM=$program")

make=(env -u MAKELEVEL -u MAKEFLAGS make)
if ! found=$("${make[@]}" --no-print-directory info "${settings[@]}" 2>&1); then
    echo "skip: $(grep -o 'Makefile:[0-9]*: \*\*\* .*' <<<"$found" | sed 's/^[^*]*\*\*\* //' | tail -n 1)"
    exit 77
fi
failed=0
if ! text=$("${make[@]}" -k "${settings[@]}" all 2>&1); then
    echo "the build failed"
    failed=1
fi
printf '%s\n' "$text"
if warnings=$(grep -i 'warning' <<<"$text"); then
    printf 'warnings:\n%s\n' "$warnings"
    failed=1
fi
[ $failed -eq 0 ] || exit 1

version=$("$program" --version)
for name in cuda cublas cudnn nccl; do
    grep -q "^$name = [^ ]" <<<"$version" || { echo "--version has no line for $name" && failed=1; }
done
grep '^cu\|^nccl' <<<"$version"

if nvidia-smi -L >/dev/null 2>&1; then
    echo 'a device is there: validation/gpu.sh tries it'
    exit $failed
fi
# The emulated device has its own tests of messages; this is the real runtime's answer.
text=$("$program" input/demo.nml run%device=cuda run%output="$HIRL_TMP/run" 2>&1)
status=$?
echo "exit $status: $text"
[ $status -eq 1 ] && grep -q 'error: no CUDA' <<<"$text" || failed=1
exit $failed
