//! The program as a person or a script runs it: what it prints, and its exit codes (0 done, 1 failed, 2 bad usage or
//! configuration).

use std::process::{Command, Output};

use serde_json::Value;

use crate::api::{Served, leaking};
use crate::real::Folder;

const DONE: i32 = 0;
const FAILED: i32 = 1;
const BAD_USAGE: i32 = 2;

/// Runs it to its end: exit code, standard output, standard error.
pub(crate) fn run(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_forestall")).args(args).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
    (status.code().expect("it ends by itself"), text(stdout), text(stderr))
}

/// Runs it, and checks its exit code and parts of all that it prints.
fn check(args: &[&str], code: i32, parts: &[&str]) {
    let (got, out, error) = run(args);
    let printed = format!("{out}{error}");
    assert_eq!(got, code, "{args:?}: {printed}");
    for part in parts {
        assert!(printed.contains(part), "{args:?} does not say {part:?}:\n{printed}");
    }
}

fn repository(file: &str) -> String {
    format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn check_accepts_the_shipped_configurations() {
    for file in ["deploy/forestall/forestall.yml", "rules/forestall.yml"] {
        check(&["check", &repository(file)], DONE, &[": good. ", "mode Observe"]);
    }
    check(&["check", "--config.file", &repository("rules/forestall.yml")], DONE, &["good"]);
}

#[test]
fn check_accepts_the_example_where_its_secrets_are() {
    let folder = Folder::new("example");
    for subfolder in ["rules", "policies", "calendars"] {
        std::fs::create_dir(folder.path(subfolder)).expect("the folder is writable");
    }
    for file in ["forestall.yml", "rules/services.yml", "policies/services.yml", "calendars/holidays.yml"] {
        let text = std::fs::read_to_string(repository(&format!("deploy/examples/{file}"))).expect("it ships");
        folder.write(file, &text.replace("/run/secrets/", &folder.path("")));
    }
    check(
        &["check", &folder.path("forestall.yml")],
        BAD_USAGE,
        &["fleet-hmac cannot be read", "config/secret-missing"],
    );
    folder.write("fleet-hmac", "a key");
    folder.write("grafana", "a token");
    check(&["check", &folder.path("forestall.yml")], DONE, &["good", "4 files", "1 predict rules", "mode Act"]);
}

#[test]
fn check_prints_every_problem_with_its_place() {
    let folder = Folder::new("broken");
    folder.write("rules.yml", "groups: [ { name: g, rules: [ { record: a, expr: 'sum(' } ] } ]\n");
    let file = folder.write("forestall.yml", "global:\n  mode: acct\n  moed: act\nrule_files: [rules.yml]\n");
    let (code, out, error) = run(&["check", &file]);
    assert_eq!((code, out.as_str()), (BAD_USAGE, ""));
    for part in ["forestall.yml:2:9: ", "    2 |   mode: acct\n", "^^^^", "forestall.yml:3:3: ", "rules.yml:1:"] {
        assert!(error.contains(part), "{part:?} is not in:\n{error}");
    }
    check(&["check", &folder.path("absent.yml")], BAD_USAGE, &["absent.yml"]);
    check(&["check"], BAD_USAGE, &["required"]);
}

#[test]
fn every_subcommand_explains_itself() {
    check(
        &["--help"],
        DONE,
        &["serve", "check", "demo", "forecast", "backtest", "plan", "explain", "decisions", "pause", "approve"],
    );
    for command in
        ["serve", "check", "demo", "forecast", "backtest", "plan", "explain", "decisions", "pause", "approve"]
    {
        check(&[command, "--help"], DONE, &["Usage: forestall", command, "--help"]);
        check(&[command, "--no-such-flag"], BAD_USAGE, &["--no-such-flag"]);
    }
    check(&["--version"], DONE, &[env!("CARGO_PKG_VERSION")]);
    check(&["foresee"], BAD_USAGE, &["foresee"]);
}

#[test]
fn serve_refuses_what_it_must_not_or_cannot_do() {
    let folder = Folder::new("refused");
    let storage = format!("--storage.path={}", folder.path("data"));
    let refused = ["--web.listen-address=0.0.0.0:0", "--web.allow-unauthenticated"];
    check(&["serve", "--web.listen-address=0.0.0.0:0", &storage], BAD_USAGE, &refused);
    check(&["serve", "--web.listen-address=nowhere", &storage], FAILED, &["--web.listen-address=nowhere"]);
    let broken = folder.write("forestall.yml", "nonsense: 1\n");
    let config = format!("--config.file={broken}");
    let here = "--web.listen-address=127.0.0.1:0";
    check(&["serve", here, &config, &storage], BAD_USAGE, &["forestall.yml:1:1: ", "nonsense"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = format!("--web.listen-address={}", taken.local_addr().expect("a bound socket has an address"));
    check(&["serve", &taken, &storage], FAILED, &["cannot listen on 127.0.0.1:"]);
}

#[test]
fn questions_to_nobody_say_so() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", free.local_addr().expect("a bound socket has an address"));
    drop(free);
    for command in ["plan", "explain", "decisions"] {
        check(&[command, "--url", &url], FAILED, &["no forestall answers at ", &url, "forestall serve"]);
    }
    check(&["approve", "--url", &url], FAILED, &["no forestall answers at ", &url]);
    check(&["pause", "--list", "--url", &url], FAILED, &["no forestall answers at ", &url]);
    check(&["decisions", "--journal", "/nowhere/journal.sqlite"], FAILED, &["/nowhere/journal.sqlite"]);
    check(&["decisions", "--verify"], BAD_USAGE, &["--journal"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_to_a_server_are_answered() {
    let served: Served = leaking("approve").await;
    let url = served.url("");
    check(&["plan", "--url", &url], DONE, &["Waits for a person: \n  app/shop  ", "Would do now: nothing"]);
    check(&["explain", "--url", &url], DONE, &["app/shop", "leaks/memory"]);
    check(&["explain", "app/other", "--url", &url], DONE, &["app/other"]);
    check(&["explain", "app/nobody", "--url", &url], FAILED, &["no component \"app/nobody\" is watched"]);
    check(&["decisions", "--url", &url], DONE, &["approval", "app/shop"]);
    check(&["decisions", "--url", &url, "--outcome", "wonderful"], FAILED, &["invalid outcome", "wonderful"]);
    for command in ["plan", "explain", "decisions"] {
        let (code, out, error) = run(&[command, "--url", &url, "--output", "json"]);
        assert_eq!(code, DONE, "{error}");
        serde_json::from_str::<Value>(&out).unwrap_or_else(|e| panic!("{command}: {e}: {out}"));
    }
}
