//! YAML → checked settings; every problem at once, with file, line, column, source line, caret and help.
//!
//! ```text
//! main file ─┬ rule_files ─────▶ rule files     tree (YAML with positions) → reader (typed, goes on after a problem)
//!            ├ policy_files ───▶ policy files   → read_main, read_rules, read_policies, read_calendar
//!            └ calendar_files ─▶ calendars      → checks over all files → Settings
//! ```
//!
//! Each stage owns the type of its settings; what a user may write, and what is wrong with it, is known here only.
//! No secret is ever read here: files name the files that hold secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::act;
use crate::audit;
use crate::forecast::Calendar;
use crate::health::{self, Rule};
use crate::ingest;
use crate::model::Millis;
use crate::plan;
use crate::query::{self, Query};
use crate::store::{self, Matcher};

use calendar::read_calendar;
use files::Files;
use main_file::{MainFile, read_main};
use policies::{PolicyFiles, read_policies};
use problem::{Report, Source};
use rules::{RuleFiles, read_rules};
use tree::{Node, Place};

pub use crate::health::NumberOrQuery;
pub use problem::{PROBLEMS_MAX, Problem, Problems, Severity};

mod actuators;
mod calendar;
mod checks;
mod files;
mod kubernetes;
mod main_file;
mod policies;
mod problem;
mod reader;
mod reload;
mod rules;
mod tree;
mod window;

pub use reload::{modes, restart_needed};

/// Everything that the files say, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What holds for all of forestall.
    pub global: Global,
    /// How much is stored.
    pub store: store::Settings,
    /// Which of the series that are sent are stored.
    pub keep: Keep,
    /// How often what was learned is written into its file.
    pub snapshot_interval: Millis,
    /// When the journal's file is closed and another begun, and when closed ones are deleted.
    pub journal: audit::SegmentSettings,
    /// Limits of what one remote-write request may bring.
    pub limits: ingest::Limits,
    /// Limits of PromQL; no file says them, but flags of `serve`.
    pub query: query::Settings,
    /// The rules, in the order of the files and groups.
    pub groups: Vec<health::RuleGroup>,
    /// The policies, in the order of the files; the first that matches a component counts.
    pub policies: Vec<plan::Policy>,
    /// Where capacity comes from.
    pub pools: Vec<PoolSettings>,
    /// Exceptions that forecasts must know of.
    pub calendar: Arc<Calendar>,
    /// Who carries actions out, by name.
    pub actuators: Vec<act::ActuatorSettings>,
    /// By which lease one of several replicas is chosen to act; each acts where absent.
    pub leader_election: Option<act::LeaseSettings>,
    /// Who is told.
    pub notify: audit::NotifySettings,
    /// The web server.
    pub web: Web,
    /// Every file that was read, the main file first.
    pub files: Vec<PathBuf>,
    /// The main file's text. It holds no secret: secrets stand in files of their own.
    pub text: String,
    /// All files' names and texts, hashed: two processes with the same value run the same configuration. Below 2⁴⁸, so that
    /// a metric can hold it.
    pub hash: u64,
}

/// How often what was learned is written where nobody says.
const SNAPSHOT_INTERVAL: Millis = Millis(5 * Millis::MINUTE.0);

impl Settings {
    /// The selectors of every expression in rules and pools, and those of the allowlist: what `keep: rules` keeps. A series
    /// is wanted when it meets all matchers of one of them. Sorted by text, each once.
    pub fn selectors(&self) -> Vec<Vec<Matcher>> {
        let mut selectors: Vec<Vec<Matcher>> = self.queries().into_iter().flat_map(Query::matcher_sets).collect();
        if let Keep::Rules { allowlist } = &self.keep {
            selectors.extend(allowlist.iter().cloned());
        }
        selectors.sort_by_cached_key(|matchers| format!("{matchers:?}"));
        selectors.dedup_by_key(|matchers| format!("{matchers:?}"));
        selectors
    }

    /// The furthest that an expression of rules or pools looks back.
    pub fn reach(&self) -> Millis {
        self.queries().into_iter().map(Query::reach).max().unwrap_or_default()
    }

    /// Every expression of rules and pools.
    fn queries(&self) -> Vec<&Query> {
        let mut queries = Vec::new();
        for rule in self.groups.iter().flat_map(|group| &group.rules) {
            match rule {
                Rule::Record(rule) => queries.push(&rule.expr),
                Rule::Predict(rule) => {
                    queries.extend(of_number(&rule.impact));
                    queries.extend(rule.depends_on.iter().map(|edge| &edge.expr));
                    queries.extend(rule.signals.iter().map(|signal| &signal.expr));
                    queries.extend(rule.signals.iter().filter_map(|signal| of_number(&signal.threshold)));
                    queries.extend(rule.signals.iter().filter_map(|signal| signal.warn.as_ref().and_then(of_number)));
                    queries.extend(&rule.regimes);
                }
            }
        }
        for pool in &self.pools {
            queries.extend(pool.capacity.values().chain(pool.used.values()));
            for workload in &pool.workloads {
                queries.push(&workload.replicas);
                queries.extend(workload.requests.values().chain(&workload.placement));
                queries.extend(workload.priority.iter().chain(&workload.replicas_min).filter_map(of_number));
            }
        }
        queries
    }
}

fn of_number(value: &NumberOrQuery) -> Option<&Query> {
    match value {
        NumberOrQuery::Number(_) => None,
        NumberOrQuery::Query(query) => Some(query),
    }
}

/// What holds for all of forestall.
#[derive(Debug, Clone, PartialEq)]
pub struct Global {
    /// How often rules are evaluated where a group does not say.
    pub evaluation_interval: Millis,
    /// The ceiling over all policies' modes.
    pub mode: plan::Mode,
    /// For so long after a start nothing is done.
    pub start_hold: Millis,
    /// Health that falls by more than this in an hour declines rapidly, where a rule does not say.
    pub rapid_decline_per_hour: f64,
}

impl Default for Global {
    fn default() -> Global {
        Global {
            evaluation_interval: Millis::SECOND * 30,
            mode: plan::Mode::Observe,
            start_hold: Millis::MINUTE * 10,
            rapid_decline_per_hour: health::RAPID_DECLINE_PER_HOUR,
        }
    }
}

/// Which of the series that are sent are stored.
#[derive(Debug, Clone)]
pub enum Keep {
    /// Those that a rule, a pool or one of these selectors selects.
    Rules {
        /// Selectors beside the rules: a series is kept when it meets all matchers of one of them.
        allowlist: Vec<Vec<Matcher>>,
    },
    /// All of them.
    All,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep::Rules { allowlist: Vec::new() }
    }
}

/// A pool of a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPool {
    /// The actuator that reaches the cluster.
    pub actuator: String,
    /// The labels of its nodes.
    pub node_selector: BTreeMap<String, String>,
}

/// A pool whose capacity is told by PromQL, or by a cluster.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Its name, unique.
    pub name: String,
    /// Resource → what there is in all, by node.
    pub capacity: BTreeMap<String, Query>,
    /// Resource → what of it is used, by node.
    pub used: BTreeMap<String, Query>,
    /// The label that names the node; an element without it is the whole pool as one node.
    pub node_label: String,
    /// What runs in the pool.
    pub workloads: Vec<WorkloadSettings>,
    /// The cluster that tells all of that, instead.
    pub cluster: Option<ClusterPool>,
}

/// Workloads of one kind in a pool, each an element of the expressions' answers.
#[derive(Debug, Clone)]
pub struct WorkloadSettings {
    /// The kind of the components.
    pub kind: String,
    /// The labels that tell components apart.
    pub by: Vec<String>,
    /// How many replicas each has.
    pub replicas: Query,
    /// Resource → what each replica is promised.
    pub requests: BTreeMap<String, Query>,
    /// Higher matters more; 0 where absent.
    pub priority: Option<NumberOrQuery>,
    /// Fewer replicas than this it must not have; 1 where absent.
    pub replicas_min: Option<NumberOrQuery>,
    /// How many replicas run on which node: the component's labels and the pool's node label.
    pub placement: Option<Query>,
}

/// The web server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Web {
    /// The file with the token of those who may approve actions and release breakers and latches; nobody may where absent.
    pub operator_token_file: Option<PathBuf>,
}

/// The files that hold where there is no `--config.file`: observe, with rules for hosts and for Prometheus.
const DEFAULT_FILES: [(&str, &str); 4] = [
    ("forestall.yml", include_str!("../../rules/forestall.yml")),
    ("host.yml", include_str!("../../rules/host.yml")),
    ("prometheus.yml", include_str!("../../rules/prometheus.yml")),
    ("policies.yml", include_str!("../../rules/policies.yml")),
];

/// Reads the main file and the files it names.
///
/// # Errors
/// Every problem of all files, warnings among them, where one of them is an error.
pub fn load(main: &Path) -> Result<(Settings, Vec<Problem>), Problems> {
    let base = main.parent().unwrap_or(Path::new(""));
    let Some(name) = main.file_name() else {
        return Err(without_main(&main.display().to_string(), "is not a file", "name the main file"));
    };
    let Some(name) = name.to_str() else {
        return Err(without_main(&main.display().to_string(), "has a name that is not UTF-8", "rename it"));
    };
    read_all(Files::Disk(base), name)
}

/// Files that are named beside a main file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside<'a> {
    /// Rule files.
    pub rule_files: &'a [PathBuf],
    /// Policy files.
    pub policy_files: &'a [PathBuf],
}

/// Reads rule and policy files, with a main file or without one, for what replays rules and calls nobody: files with
/// secrets are not looked for, and without a main file a policy may name any actuator.
///
/// # Errors
/// As [`load`].
pub fn load_for_replay(main: Option<&Path>, beside: Beside<'_>) -> Result<(Settings, Vec<Problem>), Problems> {
    let mut report = Report::default();
    let Some(file) = main else {
        report.sources.push(Source { name: "the command line".to_owned(), text: String::new() });
        let main = MainFile { any_actuator: true, ..MainFile::default() };
        return read_rest(report, Files::DiskWithoutSecrets(Path::new("")), main, beside);
    };
    let files = Files::DiskWithoutSecrets(file.parent().unwrap_or(Path::new("")));
    let name = file.file_name().and_then(|name| name.to_str());
    let Some(name) = name else {
        return Err(without_main(&file.display().to_string(), "is not a file", "name the main file"));
    };
    match read_main_file(&mut report, files, name) {
        Some(main) => read_rest(report, files, main, beside),
        None => Err(report.finish()),
    }
}

/// Reads texts as if they were files: the first is the main file, the others are found by the names that it uses.
/// Files with secrets are not looked for.
///
/// # Errors
/// As [`load`].
pub fn load_str(files: &[(&str, &str)]) -> Result<(Settings, Vec<Problem>), Problems> {
    match files.first() {
        Some((main, _)) => read_all(Files::Given(files), main),
        None => Err(without_main("forestall.yml", "is missing", "hand in the main file first")),
    }
}

/// The settings that hold without any file.
pub fn defaults() -> Settings {
    let (settings, _) = load_str(&DEFAULT_FILES).expect("the embedded files are checked by a test");
    settings
}

fn without_main(file: &str, message: &str, help: &str) -> Problems {
    let problem = Problem {
        file: file.to_owned(),
        line: 0,
        column: 0,
        span_len: 0,
        code: "config/not-found",
        severity: Severity::Error,
        message: message.to_owned(),
        source_line: String::new(),
        help: help.to_owned(),
    };
    Problems { problems: vec![problem], left_out: 0 }
}

fn read_all(files: Files<'_>, main_name: &str) -> Result<(Settings, Vec<Problem>), Problems> {
    let mut report = Report::default();
    match read_main_file(&mut report, files, main_name) {
        Some(main) => read_rest(report, files, main, Beside::default()),
        None => Err(report.finish()),
    }
}

/// Reads what a main file names and what stands beside it.
fn read_rest(
    mut report: Report,
    files: Files<'_>,
    main: MainFile,
    beside: Beside<'_>,
) -> Result<(Settings, Vec<Problem>), Problems> {
    // Those are named where the program is started, not in the main file's folder.
    let here = Files::DiskWithoutSecrets(Path::new(""));
    let whole_file = Place { file: 0, line: 0, column: 0, len: 0 };
    let named = |paths: &[PathBuf]| -> Vec<(String, Place)> {
        paths.iter().map(|path| (path.display().to_string(), whole_file)).collect()
    };
    let mut rules = RuleFiles::default();
    let mut trees = read_trees(&mut report, files, &main.rule_files);
    trees.extend(read_trees(&mut report, here, &named(beside.rule_files)));
    for root in trees {
        read_rules(&mut report, &main, &root, &mut rules);
    }
    let mut policies = PolicyFiles::default();
    let errors_before = report.errors;
    let mut trees = read_trees(&mut report, files, &main.policy_files);
    trees.extend(read_trees(&mut report, here, &named(beside.policy_files)));
    // A policy file that is missing or no YAML has been reported; what it would have matched is not known.
    policies.incomplete = report.errors > errors_before;
    for root in trees {
        read_policies(&mut report, &main, &root, &mut policies);
    }
    let mut events = Vec::new();
    for root in read_trees(&mut report, files, &main.calendar_files) {
        read_calendar(&mut report, &root, &mut events);
    }
    checks::check_all(&mut report, &main, &rules, &policies);
    if report.has_errors() {
        return Err(report.finish());
    }
    let settings = assemble(&report, main, rules, policies, Calendar::new(events));
    Ok((settings, report.finish().problems))
}

/// The main file; nothing where it cannot be read or is no YAML.
fn read_main_file(report: &mut Report, files: Files<'_>, name: &str) -> Option<MainFile> {
    let whole_file = Place { file: 0, line: 0, column: 0, len: 0 };
    let file = files.read(report, name, whole_file)?;
    let root = read_tree(report, file)?;
    Some(read_main(report, files, &root))
}

/// The trees of the files that patterns stand for, each file once.
fn read_trees(report: &mut Report, files: Files<'_>, patterns: &[(String, Place)]) -> Vec<Rc<Node>> {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut trees = Vec::new();
    for (pattern, at) in patterns {
        for name in files.expand(report, pattern, *at) {
            if !seen.insert(name.clone()) {
                report.warning(*at, "config/unused", format!("{name} is named twice"), "it is read once; name it once");
                continue;
            }
            let Some(file) = files.read(report, &name, *at) else { continue };
            trees.extend(read_tree(report, file));
        }
    }
    trees
}

/// The tree of a file that has been read; an empty file is an empty mapping.
fn read_tree(report: &mut Report, file: usize) -> Option<Rc<Node>> {
    let (root, problems) = tree::parse(file, &report.sources[file].text);
    for problem in problems {
        report.error(problem.at, problem.code, problem.message, problem.help);
    }
    root
}

fn assemble(report: &Report, main: MainFile, rules: RuleFiles, policies: PolicyFiles, calendar: Calendar) -> Settings {
    let MainFile { global, store, keep, snapshot_interval, journal, limits, actuators, notify, web, .. } = main;
    let leader_election = main.leader_election;
    Settings {
        global,
        store,
        keep,
        snapshot_interval: snapshot_interval.unwrap_or(SNAPSHOT_INTERVAL),
        journal,
        limits,
        query: query::Settings::default(),
        groups: rules.groups,
        policies: policies.policies,
        pools: policies.pools,
        calendar: Arc::new(calendar),
        actuators,
        leader_election,
        notify,
        web,
        files: report.sources.iter().map(|source| PathBuf::from(&source.name)).collect(),
        text: report.sources[0].text.clone(),
        hash: hash_of(&report.sources),
    }
}

/// The first 48 bits of a SHA-256 over names and texts, each with its length before it.
fn hash_of(sources: &[Source]) -> u64 {
    let mut hasher = Sha256::new();
    for part in sources.iter().flat_map(|source| [&source.name, &source.text]) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    digest.iter().take(6).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}
