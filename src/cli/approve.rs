//! `forestall approve`: a person's answer to an action that waits for one.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::ask::{AskArguments, SayArguments, call, encode_path, get, rows, text};
use super::{Output, say};

/// Flags of `approve`.
#[derive(Debug, clap::Args)]
pub(super) struct ApproveArguments {
    /// The action; without it, what waits is listed.
    id: Option<String>,
    /// Say no: the offer is taken back.
    #[arg(long, requires = "id")]
    decline: bool,
    #[command(flatten)]
    said: SayArguments,
    #[command(flatten)]
    ask: AskArguments,
}

/// `forestall approve`
pub(super) fn run(arguments: &ApproveArguments) -> anyhow::Result<ExitCode> {
    let answer = match &arguments.id {
        None => get(&arguments.ask.url, "approvals", &[])?,
        Some(id) => {
            let token = arguments.said.token()?;
            let words = |text: &Option<String>| text.clone().unwrap_or_default();
            let (reason, by) = (words(&arguments.said.reason), words(&arguments.said.by));
            let body = json!({"approve": !arguments.decline, "reason": reason, "by": by});
            let path = format!("approvals/{}", encode_path(id));
            call(&arguments.ask.url, &path, |client, full| client.post(full).bearer_auth(token).json(&body))?
        }
    };
    say(&match (arguments.ask.output, &arguments.id) {
        (Output::Json, _) => serde_json::to_string_pretty(&answer)?,
        (Output::Table, None) => waiting_text(&answer),
        (Output::Table, Some(id)) if arguments.decline => format!("Declined: {id} is taken back."),
        (Output::Table, Some(id)) => format!("Approved: {id} is carried out in the next pass, if it is still wanted."),
    });
    Ok(ExitCode::SUCCESS)
}

fn waiting_text(answer: &Value) -> String {
    let mut out = String::new();
    for action in rows(answer, "waiting") {
        let said = match (action["approved"] == true, action["declined"] == true) {
            (true, _) => " (approved)",
            (_, true) => " (declined)",
            _ => "",
        };
        let (id, component, sentence) = (text(action, "id"), text(action, "component"), text(action, "sentence"));
        let _ = writeln!(out, "{id}  {component}  {sentence}{said}\n    {}", text(action, "why"));
    }
    if out.is_empty() { "Nothing waits for a person.".to_owned() } else { out.trim_end().to_owned() }
}
