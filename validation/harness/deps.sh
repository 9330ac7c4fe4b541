#!/usr/bin/env bash
# Provide what hirl.x is built and tested with, on Debian and its relatives.
#
#   deps.sh packages build [check]   install the missing packages of these groups
#   deps.sh faiss DIR                build DIR/libfaiss_c.a, FAISS's C API
#   deps.sh list build [check]       print the packages, one a line
#                                    (the groups fuzz, bundle and bench are for those targets)
#   deps.sh derive list|deb822       print source entries for the binary ones on standard input
#
# The distribution's package of FAISS holds the C API's headers but not its code, so the code is compiled from
# the package's own source. Sources come from the mirrors that this machine already uses; its apt
# configuration is read, never changed. Nothing but the package manager is asked for anything.
set -u -o pipefail

packages_build=(
    build-essential pkg-config libopenmpi-dev openmpi-bin libhdf5-openmpi-dev libdnnl-dev libopenblas-dev
    libfaiss-dev libturbojpeg0-dev libjpeg-dev libpng-dev libwebp-dev zlib1g-dev librandom123-dev libxxhash-dev libhwloc-dev
    libcjson-dev hdf5-tools dataset-fashion-mnist
)
packages_check=(
    clang-format-14 gfortran python3 python3-numpy python3-pil python3-h5py python3-torch python3-torchvision
    python3-faiss python3-protobuf python3-crcmod chromium slurmctld slurmd slurm-client munge
    iproute2
)
packages_fuzz=(clang-14 libclang-rt-14-dev)
packages_bundle=(binutils patchelf xz-utils)
packages_bench=(mate-backgrounds lomiri-wallpapers-16.04)

# For tests of this script: other programs in the place of the system's.
dpkg_query=${HIRL_DPKG_QUERY:-dpkg-query}
apt_get=${HIRL_APT_GET:-apt-get}
sudo=${HIRL_SUDO:-sudo}
user_id=${HIRL_USER_ID:-$(id -u)}

die() {
    printf 'deps: %s\n' "$@" >&2
    exit 1
}

packages_of() {
    local group
    for group in "$@"; do
        case $group in
            build) printf '%s\n' "${packages_build[@]}" ;;
            check) printf '%s\n' "${packages_check[@]}" ;;
            fuzz) printf '%s\n' "${packages_fuzz[@]}" ;;
            bundle) printf '%s\n' "${packages_bundle[@]}" ;;
            bench) printf '%s\n' "${packages_bench[@]}" ;;
            *) die "unknown group '$group', want build, check, fuzz, bundle or bench" ;;
        esac
    done
}

# Print those of the packages named on standard input that are not installed.
missing_of() {
    local names
    mapfile -t names
    "$dpkg_query" -W -f='${db:Status-Status} ${Package}\n' "${names[@]}" 2>/dev/null |
        awk -v names="${names[*]}" '
            $1 == "installed" { has[$2] = 1 }
            END { n = split(names, name, " "); for (i = 1; i <= n; i++) if (!has[name[i]]) print name[i] }'
}

install_packages() {
    local want missing
    want=$(packages_of "$@") || exit 1
    if ! command -v "$dpkg_query" >/dev/null; then
        die "this is not Debian or a relative of it (no $dpkg_query)." \
            "Install what provides: ${want//$'\n'/ }" \
            "then name its places with 'make configure K=V ...' (see 'make info') and add DEPS=none."
    fi
    missing=$(missing_of <<<"$want")
    if [ -z "$missing" ]; then
        echo "deps: all $(wc -l <<<"$want") packages are installed"
        return
    fi
    missing=${missing//$'\n'/ }
    local as_root=()
    if [ "$user_id" -ne 0 ]; then
        if ! command -v "$sudo" >/dev/null || ! "$sudo" -n true 2>/dev/null; then
            echo "deps: packages are missing and only an administrator can install them. The line to run:" >&2
            echo "sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends $missing'" >&2
            exit 1
        fi
        as_root=("$sudo" -n)
    fi
    echo "deps: installing $missing"
    local options=(-q -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
    local with=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "$apt_get" "${options[@]}")
    "${with[@]}" update </dev/null || echo "deps: apt-get update had errors, going on" >&2
    # shellcheck disable=SC2086 # one word a package
    "${with[@]}" install -y --no-install-recommends $missing </dev/null ||
        die "apt-get could not install: $missing"
    missing=$(missing_of <<<"$want")
    [ -z "$missing" ] || die "still not installed: ${missing//$'\n'/ }"
}

# Write source entries for apt into the folder $1, made of the machine's binary ones, each file in its own format.
derive_sources() {
    local out=$1 list parts file n=0
    list=$(apt-config shell V Dir::Etc::sourcelist/f) && list=${list#V=\'} && list=${list%\'}
    parts=$(apt-config shell V Dir::Etc::sourceparts/d) && parts=${parts#V=\'} && parts=${parts%\'}
    for file in "$list" "${parts%/}"/*.list "${parts%/}"/*.sources; do
        [ -f "$file" ] && [ -r "$file" ] || continue
        n=$((n + 1))
        case $file in
            *.sources) sources_of_deb822 <"$file" >"$out/$n.sources" ;;
            *) sources_of_lines <"$file" >"$out/$n.list" ;;
        esac
    done
}

# One-line style: "deb [options] uri suite component..." becomes "deb-src ..." without the architectures.
sources_of_lines() {
    awk '
        { sub(/^[ \t]+/, "") }
        /^deb(-src)?[ \t]/ && !/[ \t]cdrom:/ {
            sub(/^deb(-src)?/, "deb-src")
            gsub(/arch[+-]?=[^] \t]*/, "")
            sub(/\[[ \t]*\]/, "")
            if (!seen[$0]++) print
        }'
}

# Deb822 style: stanzas of "Key: value"; only the types change.
sources_of_deb822() {
    awk '
        tolower($0) ~ /^types:/ { print "Types: deb-src"; skip = 1; next }
        tolower($0) ~ /^architectures:/ { skip = 1; next }
        /^[ \t]/ && skip { next }
        { skip = 0; print }'
}

build_faiss() {
    local dir=$1 version compiler key
    command -v "$dpkg_query" >/dev/null ||
        die "no $dpkg_query: give an archive of FAISS's C API with 'make configure FAISS_C_LIB=...'"
    version=$("$dpkg_query" -W -f='${source:Version}' libfaiss-dev 2>/dev/null) && [ -n "$version" ] ||
        die "libfaiss-dev is not installed; 'make deps' installs it"
    compiler=${CXX:-g++}
    key="faiss $version, $("$compiler" -dumpfullversion), $("$compiler" -dumpmachine)"
    if [ -f "$dir/libfaiss_c.a" ] && [ "$(cat "$dir/key" 2>/dev/null)" = "$key" ]; then
        return
    fi
    echo "deps: building FAISS's C API ($key)"
    mkdir -p "$dir" || exit 1
    dir=$(cd "$dir" && pwd)
    # Two makes at once would build into the same folder: the second waits, then finds the work done.
    exec 9>"$dir/lock"
    flock 9
    if [ -f "$dir/libfaiss_c.a" ] && [ "$(cat "$dir/key" 2>/dev/null)" = "$key" ]; then
        return
    fi
    rm -rf "$dir/key" "$dir/libfaiss_c.a" "$dir/work"
    fetch_source faiss "$version" "$dir/work" >"$dir/log" 2>&1 || {
        tail -n 20 "$dir/log" >&2
        die "could not get the source package of faiss $version (all of it: $dir/log)"
    }
    mkdir -p "$dir/work/object"
    (
        cd "$dir/work/source/c_api" &&
            find . impl utils -maxdepth 1 -name '*.cpp' | sort -u | xargs -P "$(nproc)" -I{} sh -c \
                'o=$1; shift; exec "$@" -o "../../object/$(basename "$o" .cpp).o" "$o"' - {} \
                "$compiler" -std=c++14 -O2 -fPIC -fopenmp -w -c &&
            ar rcs ../../libfaiss_c.a ../../object/*.o
    ) >>"$dir/log" 2>&1 || {
        tail -n 20 "$dir/log" >&2
        die "could not compile FAISS's C API (all of it: $dir/log)"
    }
    mv "$dir/work/libfaiss_c.a" "$dir/libfaiss_c.a" && printf '%s\n' "$key" >"$dir/key"
    rm -rf "$dir/work"
}

# Unpack the source package $1 of version $2 into $3/source, with an apt state of our own under $3/apt.
fetch_source() {
    local name=$1 version=$2 dir=$3 candidate
    mkdir -p "$dir/apt/sources" "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial"
    derive_sources "$dir/apt/sources"
    local own=(
        -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$dir/apt/sources"
        -o Dir::State::lists="$dir/apt/lists" -o Dir::Cache="$dir/apt/cache"
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3 -o Acquire::Languages=none
    )
    # An entry without sources of its own makes this fail although the others were read.
    apt-get "${own[@]}" update </dev/null || echo "apt-get update had errors, going on"
    # A mirror may have dropped the installed revision; another one of the same upstream version does as well.
    candidate=$(apt-cache "${own[@]}" showsrc "$name" | awk -v want="$version" '
        function upstream(v) { sub(/-[^-]*$/, "", v); return v }
        $1 == "Version:" && $2 == want { exact = $2 }
        $1 == "Version:" && upstream($2) == upstream(want) { like = $2 }
        END { print exact != "" ? exact : like }')
    [ -n "$candidate" ] || {
        echo "no source entry has $name $version"
        return 1
    }
    (cd "$dir" && apt-get "${own[@]}" --download-only source "$name=$candidate" </dev/null &&
        dpkg-source --no-check -x "$name"_*.dsc source)
}

case ${1:-} in
    packages) shift && install_packages "$@" ;;
    faiss) build_faiss "${2:?the folder to build in}" ;;
    list) shift && packages_of "$@" ;;
    derive) if [ "${2:-}" = deb822 ]; then sources_of_deb822; else sources_of_lines; fi ;;
    *) die "usage: deps.sh packages|list build [check] | deps.sh faiss DIR" ;;
esac
