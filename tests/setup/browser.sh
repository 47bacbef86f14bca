#!/usr/bin/env bash
# Sees to what the test of the web page needs: a browser, and the packages that drive it, outside of the source tree.
#
#   tests/setup/browser.sh [FOLDER]      FOLDER is target/browser beside this checkout unless given
#
# What is there afterwards: FOLDER/chromium, a link to the browser, and FOLDER/node_modules, as tests/page/package-lock.json
# says. On Debian as root the browser is installed where it is missing. Where it cannot be had, FOLDER/skipped says why, and
# this script still ends well: the test then says that it is skipped. A second run does nothing.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$root/target/browser}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

skip() {
    printf 'browser: skipped: %s\n' "$1" | tee "$folder/skipped" >&2
    exit 0
}

# Only one at a time: two test runs may share the folder.
if command -v flock >/dev/null; then
    exec 9>"$folder/lock"
    flock 9
fi

command -v node >/dev/null || skip 'no node on this machine'
command -v npm >/dev/null || skip 'no npm on this machine'

find_browser() {
    local name
    for name in chromium chromium-browser google-chrome-stable google-chrome; do
        command -v "$name" && return
    done
    return 1
}
if ! browser=$(find_browser); then
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        skip 'no chromium on this machine; on Debian, as root: apt-get install chromium'
    fi
    printf 'browser: installing chromium\n' >&2
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium >/dev/null
    browser=$(find_browser) || skip 'apt installed no chromium'
fi
ln -sfn "$browser" "$folder/chromium"

if ! cmp -s "$root/tests/page/package-lock.json" "$folder/installed-lock.json"; then
    cp "$root/tests/page/package.json" "$root/tests/page/package-lock.json" "$folder/"
    npm ci --prefix "$folder" --silent --no-audit --no-fund --ignore-scripts
    cp "$root/tests/page/package-lock.json" "$folder/installed-lock.json"
fi
rm -f "$folder/skipped"
