#!/usr/bin/env bash
# Fetches the real programs that the tests talk to, and unpacks them under one folder without touching the system.
#
#   tests/setup/fetch.sh [FOLDER]        FOLDER is target/parts beside this checkout unless given
#
# What is there afterwards (each a symbolic link to a program that has answered `--version`):
#
#   FOLDER/bookworm/bin/{prometheus,promtool,prometheus-alertmanager,amtool,prometheus-node-exporter}
#   FOLDER/sid/bin/{prometheus,promtool,prometheus-alertmanager,amtool,victoria-metrics}
#
# Alertmanager must be started in FOLDER/SUITE/root, where its templates are.
#
# bookworm's Prometheus is 2.x, which speaks remote write 1.0 only; the newest suite's is 3.x, which speaks 2.0 too.
# The packages come from the Debian mirror this machine already uses, checked against Debian's own keyring, through an apt
# state of our own. On a machine without apt or without a Debian mirror, FOLDER/skipped says why, and this script still
# ends well: the tests then say that they are skipped.
#
# A second run does nothing while the links are there; remove the folder to fetch again.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
parts=${1:-$root/target/parts}
mkdir -p "$parts"
parts=$(cd "$parts" && pwd)
apt_dir=$parts/apt

# Ends the script well, leaving word of why there are no real programs.
skip() {
    printf 'fetch: skipped: %s\n' "$1" | tee "$parts/skipped" >&2
    exit 0
}

fail() {
    printf 'fetch: %s\n' "$1" >&2
    exit 1
}

# The programs wanted from a suite: `package path-in-package name`, one a line.
wanted() {
    case $1 in
        bookworm) cat <<LIST
prometheus usr/bin/prometheus prometheus
prometheus usr/bin/promtool promtool
prometheus-alertmanager usr/bin/prometheus-alertmanager prometheus-alertmanager
prometheus-alertmanager usr/bin/amtool amtool
prometheus-node-exporter usr/bin/prometheus-node-exporter prometheus-node-exporter
LIST
        ;;
        sid) cat <<LIST
prometheus usr/bin/prometheus prometheus
promtool usr/bin/promtool promtool
prometheus-alertmanager usr/bin/prometheus-alertmanager prometheus-alertmanager
prometheus-alertmanager usr/bin/amtool amtool
victoria-metrics usr/bin/victoria-metrics victoria-metrics
LIST
        ;;
    esac
}

complete() {
    local suite=$1 name
    while read -r _ _ name; do
        [ -x "$parts/$suite/bin/$name" ] || return 1
    done < <(wanted "$suite")
}

# Where this machine gets Debian from. `apt-get indextargets` knows it in whatever format the sources are written.
mirror() {
    local codename
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    # shellcheck disable=SC2016  # apt expands these, not the shell
    apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Identifier: Packages' |
        awk -v suite="${codename:-sid}" '$1 == suite && $2 ~ /\/debian\/?$/ { print $2; exit }'
}

# apt with its own sources, lists and cache: reads the machine's configuration (a proxy, say) and changes nothing of it.
private_apt() {
    apt-get -c "$apt_dir/apt.conf" "$@"
}

write_apt_files() {
    local uri=$1 keyring=$2 suite
    mkdir -p "$apt_dir/lists/partial" "$apt_dir/archives/partial"
    : >"$apt_dir/status"
    for suite in bookworm sid; do
        printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$uri" "$suite"
    done >"$apt_dir/sources.list"
    cat >"$apt_dir/apt.conf" <<CONF
Dir::Etc::SourceList "$apt_dir/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$apt_dir/lists/";
Dir::State::status "$apt_dir/status";
Dir::Cache::Archives "$apt_dir/archives/";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "3";
APT::Sandbox::User "root";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
CONF
}

# Downloads a suite's packages, unpacks them, and links each program once it has shown that it runs here.
fetch_suite() {
    local suite=$1 package path name
    local -a packages
    mapfile -t packages < <(wanted "$suite" | awk '{ print $1 "/'"$suite"'" }' | sort -u)
    rm -rf "${parts:?}/$suite"
    mkdir -p "$parts/$suite/debs" "$parts/$suite/root" "$parts/$suite/bin"
    (cd "$parts/$suite/debs" && private_apt -qq download "${packages[@]}")
    for package in "$parts/$suite/debs"/*.deb; do
        dpkg-deb -x "$package" "$parts/$suite/root"
    done
    rm -rf "$parts/$suite/debs"
    # Debian's Alertmanager reads its templates from a fixed place in the system. In our copy the path, of the same
    # length, is a relative one: started in FOLDER/SUITE/root, it finds them there.
    LC_ALL=C sed -i 's#/usr/share/prometheus/alertmanager#usr//share/prometheus/alertmanager#g' \
        "$parts/$suite/root/usr/bin/prometheus-alertmanager"
    while read -r _ path name; do
        "$parts/$suite/root/$path" --version >"$parts/$suite/version.log" 2>&1 ||
            fail "$suite's $name does not run here: $(head -n 3 "$parts/$suite/version.log")"
        printf '%s: %s\n' "$suite" "$(head -n 1 "$parts/$suite/version.log")"
        ln -sf "../root/$path" "$parts/$suite/bin/$name"
    done < <(wanted "$suite")
}

if complete bookworm && complete sid; then
    rm -f "$parts/skipped"
    exit 0
fi
# Only one at a time: two test runs may share the folder.
if command -v flock >/dev/null; then
    exec 9>"$parts/lock"
    flock 9
    if complete bookworm && complete sid; then exit 0; fi
fi

command -v apt-get >/dev/null || skip 'no apt on this machine'
command -v dpkg-deb >/dev/null || skip 'no dpkg on this machine'
uri=$(mirror) || uri=
[ -n "$uri" ] || skip 'no Debian mirror in the configuration of apt'
for keyring in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
    [ -r "$keyring" ] && break
done
[ -r "$keyring" ] || skip 'the package debian-archive-keyring is not installed'

write_apt_files "$uri" "$keyring"
private_apt -qq update || fail 'cannot read the package lists of bookworm and sid'
complete bookworm || fetch_suite bookworm
complete sid || fetch_suite sid
rm -rf "$apt_dir"
rm -f "$parts/skipped"
