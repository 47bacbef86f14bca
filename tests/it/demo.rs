//! The demo as a user runs it: what it must prevent, and that a second run is the same, byte for byte.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::real::ALONE;

/// Starts a demo that ends by itself and writes its journal to `journal`.
fn start(seed: u64, journal: &Path) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forestall"));
    command.args(["demo", "--once", "--json", "--web.listen-address=127.0.0.1:0", "--seed", &seed.to_string()]);
    command.arg("--journal-export").arg(journal);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the binary starts")
}

#[test]
fn the_demo_prevents_what_can_be_prevented_and_is_the_same_again() {
    let _alone = ALONE.blocking_lock();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let journals = [folder.path().join("first.jsonl"), folder.path().join("second.jsonl")];
    // Both at once: neither sees the other.
    let runs = journals.each_ref().map(|journal| start(4, journal));
    let results = runs.map(|run| {
        let output = run.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{:?}", output.status);
        String::from_utf8(output.stdout).expect("JSON is UTF-8")
    });
    let result: Value = serde_json::from_str(&results[0]).expect("one JSON object");
    let number = |name: &str| result[name].as_f64().unwrap_or_else(|| panic!("{name}: {result}"));
    assert!(number("services") >= 30.0, "{result}");
    assert!(number("preventable") >= 10.0, "{result}");
    assert!(number("prevented") >= 0.8 * number("preventable"), "{result}");
    assert!(number("false_actions") <= number("services") / 10.0, "{result}");
    assert!(number("failures_with") < number("failures_without"), "{result}");
    assert!(number("evictions") >= 1.0 && number("insufficient") >= 1.0, "{result}");
    assert!(number("lead_seconds_median") >= 1800.0 && number("actions") >= 1.0, "{result}");
    assert_eq!(results[0], results[1]);
    let [first, second] = journals.map(|journal| std::fs::read(journal).expect("it was written"));
    assert!(first == second, "the journals differ: {} and {} bytes", first.len(), second.len());
    assert!(first.split(|byte| *byte == b'\n').count() > 100, "the journal tells what was decided");
}
