//! `plan`, `explain`, `decisions`: questions to a running forestall; `decisions` also reads a journal's file.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Output, runtime, say};
use crate::api;
use crate::audit::{Journal, Verified, Witness};
use crate::model::Timestamp;

/// How long an answer may take.
const ANSWER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// Where to ask and how to show the answer.
#[derive(Debug, clap::Args)]
pub(super) struct AskArguments {
    /// The running forestall.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9797")]
    pub(super) url: String,
    /// How the answer looks.
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,
}

/// Who changes something, and why.
#[derive(Debug, clap::Args)]
pub(super) struct SayArguments {
    /// The file with the operator's token; needed for what changes something.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Why, in a few words; kept in the journal.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Who says so; kept in the journal.
    #[arg(long, value_name = "NAME")]
    pub(super) by: Option<String>,
}

impl SayArguments {
    /// The operator's token, from its file.
    ///
    /// # Errors
    /// Where no file is named, or it cannot be read.
    pub(super) fn token(&self) -> anyhow::Result<String> {
        let file = self.token_file.as_deref().context("--token-file is missing: changes need the operator's token")?;
        let token = std::fs::read_to_string(file).with_context(|| format!("--token-file {}", file.display()))?;
        Ok(token.trim().to_owned())
    }
}

/// Flags of `explain`.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArguments {
    /// The component, as in metrics: deployment/shop/checkout. Without it, the one with the largest expected loss.
    component: Option<String>,
    #[command(flatten)]
    ask: AskArguments,
}

/// Flags of `decisions`.
#[derive(Debug, clap::Args)]
pub(super) struct DecisionsArguments {
    /// Show this decision whole, and whether a replay gives the same.
    id: Option<String>,
    /// Only those about this component.
    #[arg(long, value_name = "ID")]
    component: Option<String>,
    /// Only those with an action of this outcome (confirmed, applied, failed, …).
    #[arg(long)]
    outcome: Option<String>,
    /// Only those with something declined for this reason (insufficient_capacity, budget, …).
    #[arg(long)]
    reason: Option<String>,
    /// How many, the newest first.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Read this journal file instead of asking a running forestall.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// With --journal: check that no row was changed, added or removed.
    #[arg(long, requires = "journal")]
    verify: bool,
    /// With --verify: a value that the metric forestall_journal_rows once had; that row must still be there, …
    #[arg(long, value_name = "N", requires_all = ["verify", "head_value"])]
    head_rows: Option<i64>,
    /// … as it was: the value that forestall_journal_head had at the same time.
    #[arg(long, value_name = "V", requires_all = ["verify", "head_rows"])]
    head_value: Option<u64>,
    /// With --journal: write everything as JSON Lines.
    #[arg(long, requires = "journal")]
    export: bool,
    #[command(flatten)]
    ask: AskArguments,
}

/// `forestall plan`
pub(super) fn plan(arguments: &AskArguments) -> anyhow::Result<ExitCode> {
    let data = get(&arguments.url, "plan", &[])?;
    say(&match arguments.output {
        Output::Json => serde_json::to_string_pretty(&data)?,
        Output::Table => plan_text(&data),
    });
    Ok(ExitCode::SUCCESS)
}

/// `forestall explain`
pub(super) fn explain(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let url = &arguments.ask.url;
    let id = match &arguments.component {
        Some(id) => id.clone(),
        None => {
            let first = get(url, "components", &[("limit", "1")])?;
            let id = first.pointer("/components/0/id").and_then(|id| id.as_str());
            id.context("no component is watched yet: does Prometheus write to it, and do the rules select anything?")?
                .to_owned()
        }
    };
    let data = get(url, &format!("components/{}", encode_path(&id)), &[])?;
    say(&match arguments.ask.output {
        Output::Json => serde_json::to_string_pretty(&data)?,
        Output::Table => api::explain(&data),
    });
    Ok(ExitCode::SUCCESS)
}

/// `forestall decisions`
pub(super) fn decisions(arguments: &DecisionsArguments) -> anyhow::Result<ExitCode> {
    if let Some(file) = &arguments.journal {
        return from_file(arguments, file);
    }
    let url = &arguments.ask.url;
    let data = match &arguments.id {
        Some(id) => get(url, &format!("decisions/{}", encode_path(id)), &[])?,
        None => {
            let limit = arguments.limit.to_string();
            let mut params = vec![("limit", limit.as_str())];
            for (name, value) in
                [("component", &arguments.component), ("outcome", &arguments.outcome), ("reason", &arguments.reason)]
            {
                params.extend(value.as_deref().map(|value| (name, value)));
            }
            get(url, "decisions", &params)?
        }
    };
    say(&match (arguments.ask.output, &arguments.id) {
        (Output::Table, None) => decisions_text(&data["decisions"]),
        _ => serde_json::to_string_pretty(&data)?,
    });
    Ok(ExitCode::SUCCESS)
}

fn from_file(arguments: &DecisionsArguments, file: &std::path::Path) -> anyhow::Result<ExitCode> {
    let journal = Journal::open_read_only(file)?;
    if arguments.verify {
        let witness = arguments.head_rows.zip(arguments.head_value).map(|(rows, value)| Witness { rows, value });
        let whole = journal.verify_against(witness)?;
        let Verified { rows, head, first, segments } = &whole;
        let kept = if *first > 1 { format!(", those from {first} on still kept") } else { String::new() };
        let files = if *segments > 1 { format!(", in {segments} files") } else { String::new() };
        let seen = if witness.is_some() { "; the witness has seen this journal" } else { "" };
        say(&format!("whole: {rows} rows{kept}{files}, head {head}{seen}"));
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.export {
        journal.export(&mut std::io::stdout().lock())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(id) = &arguments.id {
        let record = journal.decision(id)?.with_context(|| format!("no decision {id:?} in {}", file.display()))?;
        let replay = journal.replay(id)?;
        say(&serde_json::to_string_pretty(&serde_json::json!({"decision": record, "replay": replay}))?);
        return Ok(ExitCode::SUCCESS);
    }
    let word = |text: &Option<String>| text.clone().map_or(Value::Null, Value::String);
    let filter = crate::audit::Filter {
        component: arguments.component.clone(),
        outcome: serde_json::from_value(word(&arguments.outcome)).context("--outcome")?,
        reason: serde_json::from_value(word(&arguments.reason)).context("--reason")?,
        limit: Some(arguments.limit),
        ..crate::audit::Filter::default()
    };
    let found = serde_json::to_value(journal.decisions(&filter)?)?;
    say(&match arguments.ask.output {
        Output::Table => decisions_text(&found),
        Output::Json => serde_json::to_string_pretty(&found)?,
    });
    Ok(ExitCode::SUCCESS)
}

/// Asks for something.
pub(super) fn get(url: &str, path: &str, params: &[(&str, &str)]) -> anyhow::Result<Value> {
    call(url, path, |client, full| client.get(full).query(params))
}

/// Sends a request to a path of our own API, and gives the data of its answer.
///
/// # Errors
/// Where nobody answers, or the answer is no.
pub(super) fn call(
    url: &str,
    path: &str,
    request: impl FnOnce(&reqwest::Client, &str) -> reqwest::RequestBuilder,
) -> anyhow::Result<Value> {
    let full = format!("{}/api/v1/forestall/{path}", url.trim_end_matches('/'));
    runtime()?.block_on(async {
        let client = reqwest::Client::builder().timeout(ANSWER_TIME_MAX).build()?;
        let response = request(&client, &full).send().await;
        let response =
            response.with_context(|| format!("no forestall answers at {url} (start one with `forestall serve`)"))?;
        let status = response.status();
        let mut body: Value =
            response.json().await.with_context(|| format!("{full} answers no JSON: is it forestall?"))?;
        if !status.is_success() {
            bail!("{}", body["error"].as_str().unwrap_or("refused without a reason"));
        }
        Ok(body["data"].take())
    })
}

/// A component's id or a decision's as one path: each segment is encoded, the slashes stay.
pub(super) fn encode_path(id: &str) -> String {
    let segments = id.split('/').map(|segment| {
        segment.bytes().fold(String::new(), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
    });
    segments.collect::<Vec<_>>().join("/")
}

pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("")
}

pub(super) fn rows<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn time(value: &Value) -> String {
    value.as_i64().map(|at| Timestamp(at).to_string()).unwrap_or_default()
}

fn plan_text(data: &Value) -> String {
    let mut out = format!("Plan of {}, mode {}\n", time(&data["at"]), text(&data["frame"], "mode"));
    for (title, name) in [("Would do now", "actions"), ("Waits for a person", "waiting"), ("In force", "in_force")] {
        let actions = rows(data, name);
        let _ = writeln!(out, "\n{title}: {}", if actions.is_empty() { "nothing" } else { "" });
        for action in actions {
            let dry = if action["dry_run"] == true { " (written down only)" } else { "" };
            let _ = writeln!(
                out,
                "  {}  {}{dry}\n      {}",
                text(action, "component"),
                text(action, "sentence"),
                text(action, "why")
            );
        }
    }
    let declined = rows(data, "declined");
    let _ = writeln!(out, "\nHeld back: {}", if declined.is_empty() { "nothing" } else { "" });
    for held in declined {
        let _ = writeln!(
            out,
            "  {}  {}\n      {}; released when {}",
            text(held, "component"),
            text(held, "reason"),
            text(held, "detail"),
            text(held, "released_when")
        );
    }
    out.trim_end().to_owned()
}

fn decisions_text(decisions: &Value) -> String {
    let mut out = String::new();
    for decision in decisions.as_array().map_or(&[][..], Vec::as_slice) {
        let _ = writeln!(out, "{}  {}", time(&decision["at"]), text(decision, "id"));
        for action in rows(decision, "actions") {
            let outcome = action["outcome"].as_str().unwrap_or("under way");
            let _ = writeln!(
                out,
                "  {:<12} {:<10} {}  {}",
                text(action, "kind"),
                outcome,
                text(action, "component"),
                text(action, "why")
            );
        }
        for held in rows(decision, "declined") {
            let _ = writeln!(out, "  {:<12} {:<10} {}", "declined", text(held, "reason"), text(held, "component"));
        }
    }
    if out.is_empty() { "No decisions yet.".to_owned() } else { out.trim_end().to_owned() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_keep_their_slashes_and_hide_everything_else() {
        assert_eq!(super::encode_path("node/a b%2Fc"), "node/a%20b%252Fc");
    }
}
