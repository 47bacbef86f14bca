//! Configuration: each bad input with its whole message, the shipped files, and files that have been damaged at random.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use forestall::config::{self, Keep, NumberOrQuery, Problem, Severity, load, load_str};
use forestall::forecast::Effect;
use forestall::health::Rule;
use forestall::model::{Millis, Timestamp};
use forestall::plan::Mode;
use proptest::prelude::*;

const GOLDEN: &str = "tests/config/problems.txt";

fn at_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// One case of the golden file: `## title`, files after `-- name`, what is answered after `=>`.
struct Case {
    title: String,
    files: Vec<(String, String)>,
    expected: String,
}

fn read_cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut answering = false;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            cases.push(Case { title: title.to_owned(), files: Vec::new(), expected: String::new() });
            answering = false;
        } else if line == "=>" {
            answering = true;
        } else if let Some(case) = cases.last_mut() {
            match (answering, line.strip_prefix("-- ")) {
                (false, Some(name)) => case.files.push((name.to_owned(), String::new())),
                (false, None) => {
                    let (_, text) = case.files.last_mut().expect("a case begins with a file");
                    writeln!(text, "{}", line.replace('→', "\t")).expect("a String takes any text");
                }
                (true, _) if line.is_empty() => {}
                (true, _) => writeln!(case.expected, "{line}").expect("a String takes any text"),
            }
        }
    }
    cases
}

/// The main file of a case that does not bring its own: it names what is there and one actuator, `paper`.
fn main_for(files: &[(String, String)]) -> String {
    let mut main = "actuators: { paper: { dry_run: {} } }\n".to_owned();
    let named = [("rule_files", "rules.yml"), ("policy_files", "policies.yml"), ("calendar_files", "calendar.yml")];
    for (key, name) in named {
        if files.iter().any(|(given, _)| given == name) {
            writeln!(main, "{key}: [{name}]").expect("a String takes any text");
        }
    }
    main
}

fn answer(case: &Case) -> String {
    let mut files = case.files.clone();
    if !files.iter().any(|(name, _)| name == "forestall.yml") {
        files.insert(0, ("forestall.yml".to_owned(), main_for(&files)));
    }
    let given: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let problems = match load_str(&given) {
        Ok((_, warnings)) => warnings,
        Err(problems) => {
            assert!(
                problems.problems.iter().any(|p| p.severity == Severity::Error),
                "{}: refused without an error",
                case.title
            );
            problems.problems
        }
    };
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn every_bad_input_is_answered_with_its_message() {
    let text = fs::read_to_string(at_root(GOLDEN)).expect("the golden file is part of the repository");
    let cases = read_cases(&text);
    assert!(cases.len() > 50, "the golden file has lost cases: {}", cases.len());
    let mut refreshed = String::new();
    let mut wrong = Vec::new();
    for case in &cases {
        let got = answer(case);
        writeln!(refreshed, "## {}", case.title).expect("a String takes any text");
        for (name, text) in &case.files {
            write!(refreshed, "-- {name}\n{}", text.replace('\t', "→")).expect("a String takes any text");
        }
        writeln!(refreshed, "=>\n{got}").expect("a String takes any text");
        for secret in ["me:secret", "s3cret", "hush"] {
            assert!(!got.contains(secret), "{}: shows {secret}", case.title);
        }
        if got != case.expected {
            wrong.push(format!("{}\n--- expected\n{}--- found\n{got}", case.title, case.expected));
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(at_root(GOLDEN), refreshed).expect("the golden file can be written");
        return;
    }
    assert!(wrong.is_empty(), "{} cases differ (UPDATE=1 refreshes {GOLDEN}):\n{}", wrong.len(), wrong.join("\n"));
}

fn refused(text: &str) -> Vec<Problem> {
    load_str(&[("forestall.yml", text)]).expect_err("the text is wrong").problems
}

#[test]
fn the_embedded_files_load_without_a_problem() {
    let settings = config::defaults();
    assert_eq!(settings.global.mode, Mode::Observe);
    assert!(settings.policies.iter().all(|policy| policy.mode == Mode::Observe));
    let (loaded, warnings) = load(&at_root("rules/forestall.yml")).expect("the embedded files are valid on disk too");
    assert_eq!(warnings, []);
    assert_eq!(loaded.files.len(), 4);
    assert_eq!(loaded.groups.len(), settings.groups.len());
}

/// The shipped example with its files, as `load_str` wants them.
fn example() -> Vec<(&'static str, String)> {
    ["forestall.yml", "rules/services.yml", "policies/services.yml", "calendars/holidays.yml"]
        .into_iter()
        .map(|name| {
            let text = fs::read_to_string(at_root("deploy/examples").join(name)).expect("the example is shipped");
            (name, text)
        })
        .collect()
}

#[test]
fn the_example_says_what_its_comments_say() {
    let files = example();
    let given: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let (settings, warnings) = load_str(&given).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(warnings, []);
    assert!(matches!(&settings.keep, Keep::Rules { allowlist } if allowlist.is_empty()));
    let [Rule::Record(record), Rule::Predict(predict)] = &settings.groups[0].rules[..] else {
        panic!("the example has one recording and one predict rule")
    };
    assert_eq!(record.record, "service:replicas_by_node");
    assert!(matches!(predict.impact, NumberOrQuery::Query(_)));
    assert_eq!((predict.horizon, predict.signals.len()), (Millis::HOUR, 3));
    assert_eq!(predict.signals[1].group, "memory", "a signal without a group is its own");
    assert_eq!(predict.labels.get("team"), Some("shop"));
    let policy = &settings.policies[0];
    assert_eq!((policy.mode, policy.ladder.len()), (Mode::Act, 3));
    assert_eq!(policy.constraints.max_per_node.get("cpu"), Some(&0.9));
    assert_eq!(policy.windows[0].weekdays, [1, 2, 3, 4, 5]);
    assert_eq!((policy.windows[0].from_minute, policy.windows[0].to_minute), (480, 540));
    assert_eq!(settings.pools[0].used.len(), 2);
    assert!((policy.holdout - 0.05).abs() < 1e-12);
    let cpu = &predict.signals[0];
    assert_eq!((cpu.floor, cpu.ceiling, predict.regimes.len()), (Some(0.0), Some(1.0), 1));
    assert!(cpu.peers.is_some_and(|peers| (peers.deviation - 6.0).abs() < 1e-12));
    let at = |text: &str| Timestamp(text.parse::<jiff::Timestamp>().expect("a time").as_millisecond());
    let event = |text: &str| settings.calendar.at(at(text)).map(|event| (event.name.as_str(), event.effect));
    assert_eq!(event("2031-12-24T13:00:00Z"), Some(("christmas", Effect::Like(7))));
    assert_eq!(event("2031-12-24T12:59:59Z"), None);
    assert_eq!(event("2026-11-28T00:00:00Z"), Some(("black friday", Effect::Ignore)));
    assert_eq!(settings.files.len(), 4);
}

#[test]
fn the_selectors_are_those_of_rules_pools_and_allowlist() {
    let rules = "groups: [ { name: g, rules: [ { record: 'a:b', expr: 'rate(x{job=\"j\"}[5m]) / x{job=\"j\"}' } ] } ]";
    let policies = "pools: [ { name: p, capacity: { cpu: c, used: { cpu: u } } } ]";
    let main = "rule_files: [r.yml]\npolicy_files: [p.yml]\nstorage: { allowlist: ['up{a=~\"b.*\"}'] }";
    let (settings, _) = load_str(&[("forestall.yml", main), ("r.yml", rules), ("p.yml", policies)])
        .unwrap_or_else(|problems| panic!("{problems}"));
    let mut shown: Vec<String> = settings
        .selectors()
        .iter()
        .map(|matchers| matchers.iter().map(|m| format!("{}~{}", m.name, m.value)).collect::<Vec<_>>().join(" "))
        .collect();
    shown.sort();
    assert_eq!(shown, ["__name__~c", "__name__~u", "__name__~up a~b.*", "__name__~x job~j"]);
}

#[test]
fn what_is_left_out_has_the_documented_defaults() {
    let (settings, _) = load_str(&[("forestall.yml", "")]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(settings.global.evaluation_interval, Millis::SECOND * 30);
    assert_eq!(settings.global.start_hold, Millis::MINUTE * 10);
    assert_eq!(settings.store.memory_bytes_max, 1 << 30);
    assert_eq!(settings.global.mode, Mode::Observe);
}

#[test]
fn the_hash_tells_configurations_apart() {
    let hash = |text: &str| load_str(&[("forestall.yml", text)]).expect("the text is valid").0.hash;
    assert_eq!(hash("global: {}"), hash("global: {}"));
    assert_ne!(hash("global: {}"), hash("global: { mode: act }"));
    assert!(hash("") < 1 << 48, "a float holds it exactly");
}

#[test]
fn a_reload_tells_what_waits_for_a_restart_and_how_far_policies_may_go() {
    let with = |mode: &str, memory: &str| {
        let main = format!(
            "global: {{ mode: {mode} }}\nstorage: {{ memory_limit: {memory} }}\nactuators: {{ a: {{ dry_run: {{}} }} }}\npolicy_files: [p.yml]"
        );
        let policies =
            "policies: [ { name: p, match: { kind: x }, mode: act, ladder: [ { action: migrate, actuator: a } ] } ]";
        load_str(&[("forestall.yml", &main), ("p.yml", policies)]).expect("the texts are valid").0
    };
    let (before, after) = (with("observe", "1GiB"), with("approve", "2GiB"));
    assert_eq!(config::restart_needed(&before, &after), ["storage.memory_limit"]);
    for (settings, mode) in [(&before, Mode::Observe), (&after, Mode::Approve)] {
        assert_eq!(config::modes(settings), [("p".to_owned(), mode)].into());
    }
}

#[test]
fn files_on_disk_are_found_from_the_main_files_folder() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("a file can be written");
    fs::create_dir(folder.path().join("rules")).expect("a folder can be made");
    write("rules/a.yml", b"groups: []");
    write("rules/b.yml", b"groups: [ { name: \xff } ]");
    write("rules/.b.yml.swp", b"\xff");
    write("empty", b"");
    write("token", b"secret");
    write(
        "forestall.yml",
        b"\xef\xbb\xbfrule_files: ['rules/*']\r\nweb: { operator_token_file: token }\r\nnotify:\r\n  alertmanagers:\r\n    - { url: 'http://a', token_file: empty }\r\n    - { url: 'http://b', token_file: nowhere }\r\n    - { url: 'http://c', token_file: rules }\r\n",
    );
    let problems = load(&folder.path().join("forestall.yml")).expect_err("the files are wrong");
    let text = problems.to_string().replace(&format!("{}/", folder.path().display()), "");
    let expected = "\
forestall.yml:1:14: rules/b.yml: not UTF-8 from byte 18 on
    1 | rule_files: ['rules/*']
                     ^^^^^^^^^ save the file as UTF-8  [config/not-utf8]
forestall.yml:5:38: empty is empty
    5 |     - { url: 'http://a', token_file: empty }
                                             ^^^^^ put the secret into that file  [config/secret-missing]
forestall.yml:6:38: nowhere cannot be read: no such file
    6 |     - { url: 'http://b', token_file: nowhere }
                                             ^^^^^^^ put the secret into that file  [config/secret-missing]
forestall.yml:7:38: rules is not a file
    7 |     - { url: 'http://c', token_file: rules }
                                             ^^^^^ put the secret into that file  [config/secret-missing]";
    assert_eq!(text, expected);
}

#[test]
fn a_main_file_that_cannot_be_read_is_one_problem() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let name = folder.path().join("nowhere.yml");
    let problems = load(&name).expect_err("there is no file");
    let expected =
        format!("{}: no such file\n        correct the path, or create the file  [config/not-found]", name.display());
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn problems_beyond_the_limit_are_counted() {
    let mut text = String::new();
    for number in 0..config::PROBLEMS_MAX + 7 {
        writeln!(text, "field{number}: 1").expect("a String takes any text");
    }
    let problems = load_str(&[("forestall.yml", &text)]).expect_err("no field is known");
    assert_eq!((problems.problems.len(), problems.left_out), (config::PROBLEMS_MAX, 7));
    assert_eq!(refused(&text).len(), config::PROBLEMS_MAX);
}

#[test]
fn an_expression_that_is_nested_without_end_is_refused_or_read() {
    for (open, close) in [("(", ")"), ("abs(", ")"), ("-", ""), ("a + ", "")] {
        for depth in [100, 1000, 3000] {
            let expr = format!("{}a{}", open.repeat(depth), close.repeat(depth));
            let rules = format!("groups: [ {{ name: g, rules: [ {{ record: b, expr: '{expr}' }} ] }} ]");
            let _ = load_str(&[("forestall.yml", "rule_files: [r.yml]"), ("r.yml", &rules)]);
        }
    }
}

/// What damage is made of: what means something in YAML, and what a person may slip in.
const PIECES: [&str; 24] = [
    "", " ", "\n", "\t", ":", ": ", "- ", "[", "]", "{", "}", "'", "\"", "|", ">", "&a ", "*a", "#", "---\n", "?",
    "!!str ", "%", "\u{feff}", "0",
];

proptest! {
    #[test]
    fn damaged_files_are_refused_or_read_but_never_panic(
        cuts in prop::collection::vec((0usize..3, any::<prop::sample::Index>(), 0usize..12, 0usize..PIECES.len()), 1..8),
    ) {
        let mut files = example();
        for (file, at, removed, piece) in cuts {
            let text: Vec<char> = files[file].1.chars().collect();
            let from = at.index(text.len());
            let to = (from + removed).min(text.len());
            files[file].1 = text[..from].iter().chain(&PIECES[piece].chars().collect::<Vec<_>>()).chain(&text[to..]).collect();
        }
        let given: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        match load_str(&given) {
            Ok((_, warnings)) => prop_assert!(warnings.iter().all(|p| p.severity == Severity::Warning)),
            Err(problems) => prop_assert!(!problems.to_string().is_empty()),
        }
    }

    #[test]
    fn any_text_is_refused_or_read_but_never_panics(text in "\\PC{0,200}|[-:{}\\[\\]&*'\"|>#?!%@, \n\ta-c0-9]{0,300}") {
        let _ = load_str(&[("forestall.yml", &text)]);
    }
}
