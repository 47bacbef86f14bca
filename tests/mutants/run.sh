#!/usr/bin/env bash
# Holds the tests against deliberate faults: each patch in this folder changes one line of the planner, of acting or of the
# journal, and the test that it names must fail for it.
#
#   tests/mutants/run.sh [NAME…]    all of them, or those whose file names begin with a NAME: `07`, `07-evicts`
#
# A patch begins with a sentence that says what it breaks, and a line `test: TARGET FILTER`: `lib` (the library's own tests)
# or `it` (the integration tests, of which only the modules that patches name are built), and what `cargo test` is to run
# of them. The sources stay as they are: all is done in a copy, target/mutants/tree, of the files that git knows or would
# add. What is built stays in target/mutants/build, so that a mutant costs the compilation of what it changes.
#
# Ends with a table of mutants and the tests that caught them, and with 1 where one was not caught: where the tests pass,
# hang, or do not compile.
set -euo pipefail

cd "$(dirname "$0")/../.."
root=$PWD
tree=$root/target/mutants/tree
log=$root/target/mutants/last.log
# How long the tests of one mutant may take.
test_seconds_max=900

# The same in the copy as for whoever calls this, but built as quickly as can be.
export CARGO_TARGET_DIR=$root/target/mutants/build
export CARGO_PROFILE_DEV_OPT_LEVEL=0
export CARGO_PROFILE_DEV_DEBUG=0
export CARGO_INCREMENTAL=1

fail() {
    printf 'mutants: %s\n' "$1" >&2
    exit 1
}

# The patches that the arguments name; all without arguments.
chosen() {
    local name found
    [ $# -gt 0 ] || set -- ''
    for name in "$@"; do
        found=$(find tests/mutants -name "$name*.patch" | sort)
        [ -n "$found" ] || fail "no patch in tests/mutants has a name that begins with $name"
        printf '%s\n' "$found"
    done
}

# What a patch says after `test: `, as the target and the filter.
test_of() {
    local test
    test=$(sed -n 's/^test: //p' "$1")
    [[ $test =~ ^(lib|it)\ [a-z_:]+$ ]] || fail "$1 needs a line like \`test: lib plan::ledger\` or \`test: it scenarios\`"
    printf '%s\n' "$test"
}

# The modules of the integration tests that some patch names.
modules() {
    sed -n 's/^test: it \([a-z_]*\).*/\1/p' tests/mutants/*.patch | sort -u
}

# Brings a file of the copy up to date. Only what differs is written: cargo builds anew what is newer than what it built.
refresh() {
    cmp -s "$1" "$tree/$1" && return
    mkdir -p "$tree/$(dirname "$1")"
    cp "$1" "$tree/$1"
}

# Makes the copy like the sources, but for the list of modules of the integration tests.
copy() {
    local file known
    mkdir -p "$tree"
    known=$(git ls-files --cached --others --exclude-standard | sort)
    while IFS= read -r file; do
        if [ "$file" != tests/it/main.rs ] && [ -f "$file" ]; then
            refresh "$file"
        fi
    done <<<"$known"
    (cd "$tree" && find . -type f | sed 's|^\./||' | sort) | comm -13 <(printf '%s\n' "$known") - |
        while IFS= read -r file; do rm "$tree/$file"; done
    {
        printf '//! The integration tests that catch mutants.\n\n'
        modules | sed 's/.*/mod &;/'
    } >"$tree/../main.rs"
    cmp -s "$tree/../main.rs" "$tree/tests/it/main.rs" || cp "$tree/../main.rs" "$tree/tests/it/main.rs"
}

# Builds and runs what a target and a filter name; the output is in the log. Gives 0 where tests ran and all passed, 1
# where one failed, 2 where they cannot be built, 3 where they were not done in time or none was run.
run_tests() {
    local target=(--lib)
    [ "$1" = lib ] || target=(--test "$1")
    (cd "$tree" && cargo test --locked --no-run "${target[@]}") >"$log" 2>&1 || return 2
    (cd "$tree" && timeout --kill-after=10 "$test_seconds_max" cargo test --locked "${target[@]}" -- "$2") >"$log" 2>&1 || true
    case $(sed -n 's/^test result: //p' "$log") in
        'ok. 0 passed'*) return 3 ;;
        ok.*) return 0 ;;
        FAILED.*) return 1 ;;
        *) return 3 ;;
    esac
}

# The tests that failed, in one line.
caught_by() {
    local failed
    failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
    printf '%s' "$(head -n 1 <<<"$failed")"
    case $(wc -l <<<"$failed") in
        1) ;;
        *) printf ' and %d more' "$(($(wc -l <<<"$failed") - 1))" ;;
    esac
}

# The file that a patch changes.
changed_by() {
    sed -n 's|^+++ b/||p' "$1"
}

restore() {
    [ -z "${mutated:-}" ] || cp "$mutated" "$tree/$mutated"
    mutated=
}

list=$(chosen "$@")
mapfile -t patches <<<"$list"
list=$(for patch in "${patches[@]}"; do test_of "$patch"; done)
mapfile -t tests < <(sort -u <<<"$list")
copy
trap restore EXIT

for test in "${tests[@]}"; do
    printf 'without a mutant: %s … ' "$test"
    # shellcheck disable=SC2086 # Two words: target and filter.
    if run_tests $test; then
        printf '%s\n' "$(sed -n 's/^test result: ok\. \([0-9]* passed\).*/\1/p' "$log")"
    else
        printf 'failed\n'
        cat "$log"
        fail 'the tests must pass before anything is changed'
    fi
done

survived=0
table=()
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    printf '%s: %s … ' "$name" "$(head -n 1 "$patch")"
    mutated=$(changed_by "$patch")
    # The copy lies inside a repository, of which git must know nothing to apply a patch to it.
    GIT_CEILING_DIRECTORIES=$root/target/mutants git -C "$tree" apply "$root/$patch" || fail "$patch does not apply"
    # shellcheck disable=SC2046 # Two words: target and filter.
    run_tests $(test_of "$patch") && found=0 || found=$?
    case $found in
        1) by=$(caught_by) ;;
        0) by='NOT CAUGHT' ;;
        2) by='NOT CAUGHT: it does not compile' ;;
        *) by="NOT CAUGHT: no test failed within $test_seconds_max s" ;;
    esac
    if [ "$found" -ne 1 ]; then
        survived=$((survived + 1))
        cp "$log" "$root/target/mutants/$name.log"
    fi
    printf '%s\n' "$by"
    table+=("$(printf '%-40s  %s' "$name" "$by")")
    restore
done

printf '\n%-40s  %s\n' mutant 'caught by'
printf '%s\n' "${table[@]}"
printf '\n%d of %d caught\n' "$((${#patches[@]} - survived))" "${#patches[@]}"
[ "$survived" -eq 0 ] || fail "$survived not caught; what the tests said is in target/mutants/NAME.log"
