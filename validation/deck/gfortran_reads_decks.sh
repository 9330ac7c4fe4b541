#!/usr/bin/env bash
# test: timeout=300 needs=gfortran alone=no
# Each deck in input/ (and what hirl.x makes of it when all is resolved) is read by a Fortran program with
# read(unit, nml=...); every key must have the value that hirl.x read. `--print-fortran` writes that program.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
hirl_x=${HIRL_X:-./hirl.x}
tmp=${HIRL_TMP:-}
if [ -z "$tmp" ]; then
    tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
fi
command -v gfortran >/dev/null || { echo "skip: gfortran is not installed" && exit 77; }

n_decks=0 n_failed=0
fail() {
    echo "$1"
    n_failed=$((n_failed + 1))
}

# compare WHAT EXPECTED COMMAND...: what the command prints is the file EXPECTED.
compare() {
    local what=$1 expected=$2
    shift 2
    "$@" >"$tmp/got" 2>&1 || { fail "$what: gfortran refuses it: $(tail -n 1 "$tmp/got")" && return; }
    diff "$expected" "$tmp/got" >"$tmp/diff" || fail "$what: hirl.x (<) and gfortran (>) differ:"$'\n'"$(head -n 20 "$tmp/diff")"
}

shopt -s nullglob globstar
for deck in input/**/*.nml; do
    n_decks=$((n_decks + 1))
    "$hirl_x" --print-values "$deck" >"$tmp/values" || { fail "$deck: hirl.x --print-values failed" && continue; }
    "$hirl_x" --print-fortran "$deck" >"$tmp/reader.f90" || { fail "$deck: hirl.x --print-fortran failed" && continue; }
    gfortran -std=f2008 -O0 -Wall -Wno-maybe-uninitialized -J "$tmp" -o "$tmp/reader" "$tmp/reader.f90" ||
        { fail "$deck: the program that reads it does not compile" && continue; }
    compare "$deck" "$tmp/values" "$tmp/reader"
    # The resolved decks hold the same values; what run%base named is in them.
    sed "s/^run%base = .*/run%base = ''/" "$tmp/values" >"$tmp/resolved_values"
    for form in deck short; do
        "$hirl_x" --print-$form "$deck" >"$tmp/$form.nml" || { fail "$deck: hirl.x --print-$form failed" && continue; }
        compare "$deck, --print-$form" "$tmp/resolved_values" "$tmp/reader" "$tmp/$form.nml"
        "$hirl_x" --print-values "$tmp/$form.nml" | diff "$tmp/resolved_values" - >"$tmp/diff" ||
            fail "$deck, --print-$form: hirl.x reads back other values:"$'\n'"$(head -n 20 "$tmp/diff")"
    done
done
[ $n_decks -gt 0 ] || fail "there is no deck in input/"

# The program can tell: a key that it does not know, and a value that is another one.
if [ -x "$tmp/reader" ]; then
    printf '&run\n  no_such_key = 1\n/\n' >"$tmp/wrong.nml"
    "$tmp/reader" "$tmp/wrong.nml" >/dev/null 2>&1 && fail "the Fortran program takes a key that it does not know"
    sed '0,/^  seed = .*/s//  seed = 987654321/' "$tmp/deck.nml" >"$tmp/other.nml"
    "$tmp/reader" "$tmp/other.nml" >"$tmp/got" 2>&1
    grep -qxF 'run%seed = 987654321' "$tmp/got" || fail "the Fortran program misses a changed seed"
fi
echo "$n_decks decks read by hirl.x and by $(gfortran --version | head -n 1), $n_failed differences"
[ $n_failed -eq 0 ]
