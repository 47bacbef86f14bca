//! The papers say what the code does: README's tables, examples and reasons, the tests that ARCHITECTURE names, and links.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use forestall::act::WebhookBody;
use forestall::config::load_str;
use forestall::plan::Reason;
use regex::Regex;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// All first groups of a pattern.
fn all(pattern: &str, text: &str) -> Vec<String> {
    let pattern = Regex::new(pattern).expect("a valid pattern");
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// README from one heading to the next of the same level.
fn section(title: &str) -> String {
    let readme = read("README.md");
    let (_, after) =
        readme.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("README has no section {title}"));
    after.split_once("\n## ").map_or(after, |(section, _)| section).to_owned()
}

/// The first column of a section's table rows, without back quotes and methods.
fn first_column(section: &str) -> BTreeSet<String> {
    all(r"(?m)^\| `(?:POST )?([^`]+)`", section).into_iter().collect()
}

fn check_same(what: &str, documented: &BTreeSet<String>, real: &BTreeSet<String>) {
    let (undocumented, unreal): (Vec<_>, Vec<_>) =
        (real.difference(documented).collect(), documented.difference(real).collect());
    assert!(real.len() > 3, "{what}: little was found in the code: {real:?}");
    assert!(undocumented.is_empty(), "{what}: README.md lacks {undocumented:?}");
    assert!(unreal.is_empty(), "{what}: README.md has what is not there: {unreal:?}");
}

/// What a command of forestall's prints.
fn printed(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_forestall")).args(args).output().expect("forestall starts");
    assert!(output.status.success(), "forestall {}: {output:?}", args.join(" "));
    String::from_utf8(output.stdout).expect("help is text")
}

/// The metrics that the sources expose, named as on the page.
fn exposed_metrics() -> BTreeSet<String> {
    let page = read("src/api/exposition.rs");
    let meters = read("src/api/meters.rs");
    let mut names = all(r#"gauges\(\s*encoder,\s*"([a-z_]+)""#, &page);
    names.extend(all(r#"family\(\s*encoder,\s*"([a-z_]+)",\s*(?:"[^"]*"|help),\s*MetricType::Gauge"#, &page));
    let counters = all(r#"family\(\s*encoder,\s*"([a-z_]+)",\s*(?:"[^"]*"|help),\s*MetricType::Counter"#, &page);
    names.extend(counters.into_iter().map(|name| format!("{name}_total")));
    let counting = all(r"(?m)^    (\w+): (?:Family<\w+, )?Counter\b", &meters);
    let registered = Regex::new(r#"register\(\s*"([a-z_]+)",\s*"[^"]*",\s*(\w+)\.clone\(\)"#).expect("a valid pattern");
    for found in registered.captures_iter(&meters) {
        let counts = counting.iter().any(|field| *field == found[2]);
        names.push(format!("{}{}", &found[1], if counts { "_total" } else { "" }));
    }
    let calls = all(r"(\.register\(|\bgauges\(\s*encoder,|\bfamily\(\s*encoder,\s*\x22)", &format!("{page}{meters}"));
    assert_eq!(names.len(), calls.len(), "every family is recognised: {names:?}");
    names.into_iter().map(|name| format!("forestall_{name}")).collect()
}

#[test]
fn the_table_of_metrics_is_what_the_page_has() {
    check_same("metrics", &first_column(&section("Metrics")), &exposed_metrics());
}

#[test]
fn the_table_of_commands_is_what_the_command_line_has() {
    let help = printed(&["--help"]);
    let (_, commands) = help.split_once("Commands:").expect("help lists the commands");
    let (commands, _) = commands.split_once("Options:").expect("and then the options");
    let real = all(r"(?m)^  ([a-z]+) ", commands).into_iter().filter(|name| name != "help");
    let real: BTreeSet<String> = real.map(|name| format!("forestall {name}")).collect();
    let table = first_column(&section("Command line"));
    let documented = table.iter().filter(|name| name.starts_with("forestall ")).cloned().collect();
    check_same("commands", &documented, &real);
}

#[test]
fn the_table_of_flags_is_what_serve_takes() {
    let help = printed(&["serve", "--help"]);
    let own = |flag: &String| flag != "--help" && flag != "--version";
    let real: BTreeSet<String> = all(r"(?m)^ +(?:-\w, +)?(--[a-z.-]+)", &help).into_iter().filter(own).collect();
    let text = section("Command line");
    let documented = first_column(&text).into_iter().filter(|name| name.starts_with("--")).collect();
    check_same("flags of serve", &documented, &real);
    for default in all(r"\[default: ([^\]]+)\]", &help) {
        assert!(text.contains(&format!("| `{default}` |")), "README.md lacks the default {default}");
    }
}

#[test]
fn the_table_of_endpoints_is_what_the_router_has() {
    let router = read("src/api/mod.rs");
    let (_, rest) = router.split_once("let own = Router::new()").expect("our own routes");
    let (own, _) = rest.split_once(";\n").expect("end with a statement");
    let own: BTreeSet<String> = all(r#"\.route\("([^"]+)""#, own).into_iter().collect();
    let real = all(r#"\.route\("([^"]+)""#, &router).into_iter();
    let real = real.map(|path| if own.contains(&path) { format!("/api/v1/forestall{path}") } else { path }).collect();
    check_same("endpoints", &first_column(&section("HTTP")), &real);
}

/// The contents of README's code blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    all(&format!("(?ms)^```{language}\n(.*?)^```$"), &read("README.md"))
}

#[test]
fn the_example_configuration_loads_without_a_word() {
    let named: Vec<(String, String)> = blocks("yaml")
        .into_iter()
        .filter_map(|text| {
            let name = text.lines().next()?.strip_prefix("# ")?.to_owned();
            name.ends_with(".yml").then_some((name, text))
        })
        .collect();
    let files: Vec<(&str, &str)> = named.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(files.len(), 4, "a main, a rule, a policy and a calendar file: {files:?}");
    let (settings, warnings) = load_str(&files).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(warnings.is_empty(), "{}", warnings.iter().map(ToString::to_string).collect::<String>());
    assert_eq!((settings.policies.len(), settings.pools.len(), settings.actuators.len()), (2, 1, 2));
}

#[test]
fn the_example_of_a_webhook_s_body_is_one() {
    let [text] = &blocks("json")[..] else { panic!("README.md has one JSON example") };
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}"));
    let body: WebhookBody = serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(serde_json::to_value(body).expect("a body is JSON"), value, "all fields, and no other");
    let sources = read("src/act/sign.rs") + &read("src/act/webhook.rs");
    for header in all(r"(?m)^\| `((?:webhook|idempotency|forestall)-[a-z]+)`", &read("README.md")) {
        assert!(sources.contains(&format!("\"{header}\"")), "no header {header} is sent");
    }
}

#[test]
fn all_reasons_are_named() {
    let source = read("src/plan/mod.rs");
    let (_, reasons) = source.split_once("pub enum Reason {").expect("the reasons");
    let (reasons, _) = reasons.split_once("\n}").expect("end with the enumeration");
    let count = all(r"(?m)^    ([A-Z]\w+),", reasons).len();
    let text = section("What keeps it safe");
    let (_, list) = text.split_once("one of these reasons").expect("the list of reasons");
    let named: BTreeSet<Reason> = all("`([a-z_]+)`", list)
        .into_iter()
        .map(|word| serde_json::from_value(Value::String(word)).unwrap_or_else(|e| panic!("{e}")))
        .collect();
    assert_eq!(named.len(), count, "{named:?}");
}

/// The papers, relative to the root.
fn papers() -> Vec<PathBuf> {
    let mut papers: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(PathBuf::from).to_vec();
    let adrs = std::fs::read_dir(root().join("docs/adr")).expect("the decisions");
    papers.extend(adrs.map(|adr| Path::new("docs/adr").join(adr.expect("a folder can be listed").file_name())));
    papers.sort();
    papers
}

#[test]
fn links_between_papers_lead_somewhere() {
    for paper in papers() {
        let text = read(&paper.display().to_string());
        for link in all(r"\]\(([^)#]+)", &text).into_iter().filter(|link| !link.contains("://")) {
            let target = root().join(paper.parent().unwrap_or(Path::new(""))).join(&link);
            assert!(target.exists(), "{}: {link} is not there", paper.display());
        }
    }
}

/// All names of functions in our sources and tests.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder can be listed") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            names.extend(all(r"\bfn ([a-z0-9_]+)", &text));
        }
    }
}

#[test]
fn every_invariant_names_the_tests_that_hold_it() {
    let mut known = BTreeSet::new();
    ["src", "tests"].iter().for_each(|folder| functions(&root().join(folder), &mut known));
    let text = read("ARCHITECTURE.md");
    let test_name = r"`([a-z0-9]+(?:_[a-z0-9]+){3,})`";
    for name in all(test_name, &text).into_iter().filter(|name| !name.starts_with("forestall_")) {
        assert!(known.contains(&name), "ARCHITECTURE.md: no test is called {name}");
    }
    let invariants: Vec<&str> = text.split("\n\n").filter(|part| part.starts_with("**Invariant:**")).collect();
    assert!(invariants.len() >= 15, "{} invariants", invariants.len());
    for invariant in invariants {
        assert!(!all(test_name, &invariant.replace('\n', " ")).is_empty(), "names no test: {invariant}");
    }
}

#[test]
fn papers_name_only_files_that_are_there() {
    let place = r"`((?:src|tests|deploy|grafana|rules|proto|docs|\.ci)/[A-Za-z0-9_./-]+)`";
    for paper in papers() {
        for name in all(place, &read(&paper.display().to_string())) {
            assert!(root().join(&name).exists(), "{}: {name} is not there", paper.display());
        }
    }
}
