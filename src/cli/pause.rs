//! `forestall pause`: nothing is done or given back while a pause holds.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::ask::{AskArguments, SayArguments, call, get, rows, text, time};
use super::{Output, say};

/// Flags of `pause`.
#[derive(Debug, clap::Args)]
pub(super) struct PauseArguments {
    /// Only what this policy does; without --policy, --kind and --component: everything.
    #[arg(long, value_name = "NAME", group = "scope")]
    policy: Option<String>,
    /// Only what is done to components of this kind.
    #[arg(long, value_name = "KIND", group = "scope")]
    kind: Option<String>,
    /// Only what is done to this component, as in metrics: deployment/shop/checkout.
    #[arg(long, value_name = "ID", group = "scope")]
    component: Option<String>,
    /// For how long, as 2h or 30m; without it until the pause is lifted.
    #[arg(long = "for", value_name = "DURATION", conflicts_with_all = ["list", "lift"])]
    span: Option<String>,
    /// List what is paused.
    #[arg(long, conflicts_with_all = ["scope", "lift"])]
    list: bool,
    /// Lift the pause of this scope.
    #[arg(long)]
    lift: bool,
    #[command(flatten)]
    said: SayArguments,
    #[command(flatten)]
    ask: AskArguments,
}

/// `forestall pause`
pub(super) fn run(arguments: &PauseArguments) -> anyhow::Result<ExitCode> {
    let answer = if arguments.list {
        get(&arguments.ask.url, "pause", &[])?
    } else if arguments.lift {
        lift(arguments)?
    } else {
        pause(arguments)?
    };
    say(&match arguments.ask.output {
        Output::Json => serde_json::to_string_pretty(&answer)?,
        Output::Table if arguments.list => pauses_text(&answer),
        Output::Table if arguments.lift => format!("Lifted: {}", scope_text(&answer["scope"])),
        Output::Table => paused_text(&answer),
    });
    Ok(ExitCode::SUCCESS)
}

fn pause(arguments: &PauseArguments) -> anyhow::Result<Value> {
    let reason = arguments.said.reason.as_deref().context("--reason is missing: what is the pause for?")?;
    let token = arguments.said.token()?;
    let scope = match (&arguments.policy, &arguments.kind, &arguments.component) {
        (Some(policy), ..) => json!({"policy": policy}),
        (_, Some(kind), _) => json!({"kind": kind}),
        (.., Some(component)) => json!({"component": component}),
        _ => json!("all"),
    };
    let by = arguments.said.by.as_deref().unwrap_or("");
    let body = json!({"scope": scope, "reason": reason, "by": by, "expires_in": arguments.span});
    call(&arguments.ask.url, "pause", |client, full| client.post(full).bearer_auth(token).json(&body))
}

fn lift(arguments: &PauseArguments) -> anyhow::Result<Value> {
    let token = arguments.said.token()?;
    let named = [
        ("policy", &arguments.policy),
        ("kind", &arguments.kind),
        ("component", &arguments.component),
        ("reason", &arguments.said.reason),
        ("by", &arguments.said.by),
    ];
    let params: Vec<(&str, &str)> =
        named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
    call(&arguments.ask.url, "pause", |client, full| client.delete(full).bearer_auth(token).query(&params))
}

/// `policy workloads`, `everything`.
fn scope_text(scope: &Value) -> String {
    match scope.as_object().and_then(|scope| scope.iter().next()) {
        Some((what, name)) => format!("{what} {}", name.as_str().unwrap_or("")),
        None => "everything".to_owned(),
    }
}

fn pause_text(pause: &Value) -> String {
    let until =
        if pause["until"].is_null() { "until lifted".to_owned() } else { format!("until {}", time(&pause["until"])) };
    format!("{}  {until}, by {}: {}", scope_text(&pause["scope"]), text(pause, "by"), text(pause, "reason"))
}

fn pauses_text(answer: &Value) -> String {
    let pauses = rows(answer, "pauses").iter().map(pause_text).collect::<Vec<_>>();
    if pauses.is_empty() { "Nothing is paused.".to_owned() } else { pauses.join("\n") }
}

fn paused_text(answer: &Value) -> String {
    let mut out = format!("Paused: {}", pause_text(&answer["pause"]));
    if let Some(warning) = answer["warning"].as_str() {
        let _ = write!(out, "\nBut: {warning}");
    }
    out
}
