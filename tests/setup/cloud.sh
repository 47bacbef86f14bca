#!/usr/bin/env bash
# Sees to what the test of the AWS preset needs: moto, a server that answers as AWS does and checks signatures.
#
#   tests/setup/cloud.sh [FOLDER]        FOLDER is target/cloud beside this checkout unless given
#
# What is there afterwards: a Python environment with what tests/cloud/requirements.txt says, outside of the source tree.
# Where it cannot be had, FOLDER/skipped says why, and this script still ends well: the test then says that it is skipped. A
# second run does nothing.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$root/target/cloud}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

skip() {
    printf 'cloud: skipped: %s\n' "$1" | tee "$folder/skipped" >&2
    exit 0
}

# Only one at a time: two test runs may share the folder.
if command -v flock >/dev/null; then
    exec 9>"$folder/lock"
    flock 9
fi

if ! cmp -s "$root/tests/cloud/requirements.txt" "$folder/installed.txt"; then
    command -v python3 >/dev/null || skip 'no python3 on this machine'
    python3 -m venv "$folder" >/dev/null || skip 'python3 cannot make environments (on Debian: python3-venv)'
    "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$root/tests/cloud/requirements.txt" ||
        skip 'pip cannot install moto'
    cp "$root/tests/cloud/requirements.txt" "$folder/installed.txt"
fi
rm -f "$folder/skipped"
