#!/usr/bin/env bash
# Compile each public header alone, as C17 and as C++17. Arguments: preprocessor flags. Environment: CC, CXX.
set -u
flags=(-Wall -Wextra -Wpedantic -Werror -fsyntax-only "$@")
failed=0 n=0

# check NAME TEXT: the text compiles in both languages.
check() {
    local ok=0
    printf '%s\n' "$2" | "${CC:-gcc}" -std=c17 "${flags[@]}" -x c - || ok=1
    printf '%s\n' "$2" | "${CXX:-g++}" -std=c++17 "${flags[@]}" -x c++ - || ok=1
    return $ok
}

# The check must be able to fail: in C for want of an include, in C++ for a keyword.
for wrong in 'size_t f(void);' 'int f(int *restrict p);'; do
    if check self-test "$wrong" 2>/dev/null; then
        echo "check-headers: '$wrong' passed, so this check is worth nothing" >&2
        exit 1
    fi
done

for header in include/hirl/*.h; do
    n=$((n + 1))
    check "$header" "#include \"hirl/${header##*/}\"" || {
        echo "check-headers: $header does not compile alone" >&2
        failed=$((failed + 1))
    }
done
[ "$failed" -eq 0 ] && echo "check-headers: $n headers compile alone, as C17 and as C++17"
