#!/usr/bin/env bash
# Sees to what a build needs: cargo and rustc of at least the version in Cargo.toml, and a C compiler with its headers
# (for the SQLite and the cryptography that are compiled in). On Debian as root it installs the C compiler; otherwise it
# says what to install.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml")

fail() {
    printf 'toolchain: %s\n' "$1" >&2
    exit 1
}

for program in cargo rustc; do
    command -v "$program" >/dev/null || fail "$program $needed or newer is needed; rustup installs it"
done
found=$(rustc --version | awk '{ print $2 }')
[ "$(printf '%s\n%s\n' "$needed" "${found%%-*}" | sort -V | head -n 1)" = "$needed" ] ||
    fail "rustc $needed or newer is needed, this is $found: rustup update stable"

# A compiler without the C library's headers is no use: ask for both by compiling.
compiles() {
    printf '#include <stdio.h>\nint main(void) { return 0; }\n' | "${CC:-cc}" -x c -o /dev/null - 2>/dev/null
}

if ! compiles; then
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        fail 'a C compiler is needed; on Debian, as root: apt-get install gcc libc6-dev'
    fi
    printf 'toolchain: installing a C compiler\n' >&2
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends gcc libc6-dev >/dev/null
    compiles || fail 'the C compiler that apt installed does not work'
fi
