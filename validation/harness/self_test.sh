#!/usr/bin/env bash
# Tests of the harness itself: what deps.sh does on machines unlike this one, and whether run.sh can count to three.
set -u -o pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/hirl-self.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
n=0 n_failed=0

# expect NAME STATUS TEXT COMMAND...: the command ends with the status and prints a line that is (or holds) the text.
expect() {
    local name=$1 want_status=$2 want=$3 got status=0
    shift 3
    got=$("$@" 2>&1 </dev/null) || status=$?
    n=$((n + 1))
    if [ "$status" -ne "$want_status" ] || ! grep -qF -- "$want" <<<"$got"; then
        n_failed=$((n_failed + 1))
        printf '%s: want status %s and "%s", got %s and:\n%s\n' "$name" "$want_status" "$want" "$status" "$got"
    fi
}

# ------------------------------------------------------------------------------------------ deps.sh

# A machine with all packages but two, whose apt-get writes down what it is asked and installs on request.
fake() {
    local name=$1
    cat >"$work/$name"
    chmod +x "$work/$name"
}
fake dpkg-query <<'END'
#!/bin/sh
for p in "$@"; do
    case $p in
        -*) ;;
        libdnnl-dev | python3-torch) [ -e "$0.installed" ] && echo "installed $p" || echo "not-installed $p" ;;
        *) echo "installed $p" ;;
    esac
done
[ -e "$0.installed" ]
END
fake apt-get <<'END'
#!/bin/sh
echo "apt-get asked: $*"
case " $* " in *' install '*) touch "${0%/*}/dpkg-query.installed" ;; esac
END
fake broken-apt-get <<'END'
#!/bin/sh
exit 100
END
fake sudo <<'END'
#!/bin/sh
[ "$1" = -n ] && shift
exec "$@"
END
fake closed-sudo <<'END'
#!/bin/sh
echo 'sudo: a password is required' >&2
exit 1
END

deps() { # deps USER_ID SUDO APT_GET ARGUMENT...
    local user=$1 sudo=$2 apt_get=$3
    shift 3
    rm -f "$work/dpkg-query.installed"
    env HIRL_DPKG_QUERY="$work/dpkg-query" HIRL_APT_GET="$work/$apt_get" HIRL_SUDO="$work/$sudo" HIRL_USER_ID="$user" \
        "$here/deps.sh" "$@"
}
with_options='-o DPkg::Lock::Timeout=600 -o Acquire::Retries=3'
line="sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends libdnnl-dev python3-torch'"
expect 'root updates' 0 "apt-get asked: -q $with_options update" deps 0 sudo apt-get packages build
expect 'root installs what is missing' 0 \
    "apt-get asked: -q $with_options install -y --no-install-recommends libdnnl-dev python3-torch" \
    deps 0 sudo apt-get packages build check
expect 'the other group is left alone' 0 'install -y --no-install-recommends libdnnl-dev' \
    deps 0 sudo apt-get packages build
expect 'sudo installs' 0 'install -y --no-install-recommends libdnnl-dev' deps 1000 sudo apt-get packages build
expect 'a user is told the line' 1 "$line" deps 1000 closed-sudo apt-get packages build check
expect 'no sudo at all' 1 "$line" deps 1000 missing apt-get packages build check
expect 'apt-get fails' 1 'could not install: libdnnl-dev' deps 0 sudo broken-apt-get packages build
expect 'unknown group' 1 "unknown group 'all'" deps 0 sudo apt-get packages all
expect 'not Debian' 1 'this is not Debian' env HIRL_DPKG_QUERY="$work/missing" "$here/deps.sh" packages build
expect 'list' 0 'libfaiss-dev' "$here/deps.sh" list build
expect 'FAISS before its package' 1 'libfaiss-dev is not installed' \
    env HIRL_DPKG_QUERY="$work/broken-apt-get" "$here/deps.sh" faiss "$work/faiss"

cat >"$work/list" <<'END'
# deb http://commented.example/debian x main
deb http://a.example/debian bookworm main contrib # note
deb [arch=amd64 signed-by=/k.gpg] http://b.example/debian bookworm main
  deb [ arch=amd64,arm64 ] http://c.example/debian bookworm main
deb-src http://a.example/debian bookworm main contrib # note
deb cdrom:[Debian 12]/ bookworm main
END
cat >"$work/list.want" <<'END'
deb-src http://a.example/debian bookworm main contrib # note
deb-src [ signed-by=/k.gpg] http://b.example/debian bookworm main
deb-src  http://c.example/debian bookworm main
END
cat >"$work/deb822" <<'END'
Types: deb deb-src
# kept
URIs: http://a.example/debian
Suites: bookworm bookworm-updates
Architectures: amd64
 arm64
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 AAAA

types: deb
Enabled: no
URIs: http://b.example/debian
END
cat >"$work/deb822.want" <<'END'
Types: deb-src
# kept
URIs: http://a.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 AAAA

Types: deb-src
Enabled: no
URIs: http://b.example/debian
END
for kind in list deb822; do
    "$here/deps.sh" derive $kind <"$work/$kind" >"$work/$kind.got"
    expect "sources from $kind" 0 '' diff "$work/$kind.want" "$work/$kind.got"
done

# ------------------------------------------------------------------------------------------ run.sh

tree=$work/tree
mkdir -p "$tree"/validation/{harness,unit,deck,deck/deeper,bench} "$tree/build"
cp "$here/run.sh" "$tree/validation/harness/"
script() { # script NAME FACTS LINE...: a test that is a shell script
    local path=$tree/validation/$1 facts=$2
    shift 2
    { printf '#!/bin/bash\n%s\n' "$facts" && printf '%s\n' "$@"; } >"$path"
}
script deck/good.sh '# test: timeout=20 args="one two"' '[ $# -eq 2 ] && [ -d "$HIRL_TMP" ] && [ -z "$(ls "$HIRL_TMP")" ]'
script deck/bad.sh '# test: timeout=20' 'echo the reason; exit 3'
script deck/skips.sh '# test: timeout=20' 'echo "skip: no such luck"; echo later; exit 77'
script deck/lacks.sh '# test: needs=no-such-command' 'exit 0'
script deck/slow.sh '# test: timeout=1' 'sleep 20'
script deck/denies.sh '# test: expect="wrong key"' 'echo "a wrong key here"; exit 1'
script deck/refuses_not.sh '# test: expect="wrong key"' 'echo "a wrong key here"; exit 0'
script deck/refuses_other.sh '# test: expect="wrong key"' 'echo "another matter"; exit 1'
script deck/setting.sh '# test: env=HIRL_ONE=1,HIRL_TWO=2 threads=3' '[ $HIRL_ONE$HIRL_TWO$OMP_NUM_THREADS = 123 ]'
script deck/helper.sh '# not a test' 'exit 1'
script deck/deeper/down.sh '# test: timeout=20' 'exit 0'
script bench/one.sh '' 'echo noise; echo "bench: one = 1"'
script bench/two.sh '' 'echo "bench: two = 2"; exit 1'
printf '// test: ranks=1,2 backends=ref,cpu\n' >"$tree/validation/unit/t101_lost.c"
run() { TMPDIR=$work "$tree/validation/harness/run.sh" "$@"; }
last_of() { "$@" 2>&1 | tail -n 1; }

expect 'a pass' 0 '1 passed, 0 failed, 0 skipped' run --build build --search good
expect 'a failure' 1 '0 passed, 1 failed, 0 skipped' run --build build --search bad
expect 'its output' 1 '    | the reason' run --build build --search bad
expect 'a skip' 0 'skips  (no such luck)' run --build build --search skips
expect 'a skip is counted' 0 '0 passed, 0 failed, 1 skipped' run --build build --search skips
expect 'a need' 0 'no-such-command is not installed' run --build build --search lacks
expect 'a time-out' 1 'slow  (killed after 1 s)' run --build build --search slow
expect 'expected failure' 0 '1 passed, 0 failed' run --build build --search denies
expect 'expected failure that passed' 1 'it should have failed)' run --build build --search refuses_not
expect 'expected failure for another reason' 1 "should have failed with 'wrong key'" run --build build --search refuses_other
expect 'a test further down' 0 'deck/deeper/down' run --build build --search down
expect 'a build that failed' 1 '1 passed, 1 failed, 0 skipped' run --build build --built no --search good
expect 'environment' 0 '1 passed, 0 failed' run --build build --search setting
expect 'a program that was not built' 1 '0 passed, 4 failed, 0 skipped' run --build build --search t101
expect 'all the rest' 1 '4 passed, 4 failed, 2 skipped' run --build build --search deck
expect 'the last line is the count' 1 '4 passed, 4 failed, 2 skipped' last_of run --build build --search deck
expect 'nothing found' 1 "begins with 'xyz'" run --build build --search xyz
expect 'a word begins, not ends, with it' 1 "begins with 'ips'" run --build build --search ips
expect 'names' 0 'unit/t101_lost cpu x2' run --list --search t101
expect 'programs' 0 'validation/unit/t101_lost.c' run --programs
expect 'benchmarks pass on their lines' 0 'bench: one = 1' run --bench --build build --search one
expect 'benchmarks can fail' 1 'FAIL two.sh' run --bench --build build
expect 'no benchmark' 1 'no benchmark' run --bench --build build --search three
printf '// test: rank=1\n' >"$tree/validation/unit/t102_wrong.c"
expect 'an unknown fact' 1 "t102_wrong  (unknown fact 'rank')" run --build build --search t102
echo '// a test: ranks=2' >"$tree/validation/unit/t102_wrong.c"
expect 'no facts' 1 't102_wrong  (no line of facts' run --build build --search t102
echo '// test: timeout=long' >"$tree/validation/unit/t102_wrong.c"
expect 'wrong facts' 1 't102_wrong  (ranks and timeout are numbers' run --build build --search t102
expect 'nothing is left behind' 1 '' sh -c "ls -d $work/hirl-check.* 2>/dev/null | grep ."

echo "harness: $n checks, $n_failed failed"
[ $n_failed -eq 0 ]
