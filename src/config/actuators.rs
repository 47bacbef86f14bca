//! The actuators of the main file: who acts, how it is reached, and who we are there.

use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::{Method, Url};
use serde_json::{Map, Number, Value};

use crate::act::{
    ActuatorKind, AuthSettings, AwsAutoscalingSettings, AwsCredentials, AzureCredentials, AzureVmssSettings, CloudAuth,
    CloudSettings, ConfirmSettings, GcpCredentials, GcpMigSettings, GcpPlace, HeaderText, HttpSettings, StatusExpr,
    TextTemplate, UrlTemplate, WITHOUT_CLOUDS, WebhookSettings, placeholder,
};
use crate::model::Millis;
use crate::plan::ActionKind;

use super::files::Files;
use super::kubernetes::read_kubernetes;
use super::policies::action_words;
use super::problem::Report;
use super::reader::{Fields, quoted, suggestion};
use super::tree::{Kind, Node, Place};

/// The kinds of actuators that there are.
pub(super) const ACTUATOR_KINDS: [&str; 7] =
    ["kubernetes", "webhook", "http", "aws_autoscaling", "gcp_mig", "azure_vmss", "dry_run"];
/// Those of them that are of clouds.
const CLOUD_KINDS: [&str; 3] = ["aws_autoscaling", "gcp_mig", "azure_vmss"];
/// Ways to show who we are to clouds.
const CLOUD_WAYS: [&str; 3] = ["aws_sigv4", "gcp", "azure"];
/// Headers that say who sends a request, or that are not the user's to set.
const HEADERS_NOT_FREE: [&str; 9] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "idempotency-key",
    "forestall-attempt",
];
/// The most headers of a request.
const HEADERS_MAX: usize = 32;
/// The largest group that anybody means.
const GROUP_SIZE_MAX: u32 = 1_000_000;

/// Reads one actuator's kind and its settings.
pub(super) fn read_kind(
    report: &mut Report,
    files: Files<'_>,
    kind: &str,
    at: Place,
    node: &Node,
) -> Option<ActuatorKind> {
    if CLOUD_KINDS.contains(&kind) {
        check_clouds(report, at, kind);
    }
    match kind {
        "kubernetes" => read_kubernetes(report, files, node).map(ActuatorKind::Kubernetes),
        "webhook" => read_webhook(report, files, node).map(ActuatorKind::Webhook),
        "http" => read_http(report, files, node).map(|http| ActuatorKind::Http(Box::new(http))),
        "aws_autoscaling" => read_aws(report, files, node).map(|aws| ActuatorKind::AwsAutoscaling(Box::new(aws))),
        "gcp_mig" => read_gcp(report, files, node).map(|gcp| ActuatorKind::GcpMig(Box::new(gcp))),
        "azure_vmss" => read_azure(report, files, node).map(|azure| ActuatorKind::AzureVmss(Box::new(azure))),
        "dry_run" => report.fields(node, "`dry_run`", &[]).map(|_| ActuatorKind::DryRun),
        other => {
            let help = suggestion(other, &ACTUATOR_KINDS);
            report.error(at, "config/unknown-value", format!("there is no actuator kind `{other}`"), help);
            None
        }
    }
}

/// Refuses what is of clouds in a build that knows none.
fn check_clouds(report: &mut Report, at: Place, word: &str) {
    if !cfg!(feature = "cloud") {
        let help = "use a build with it, as the default one is";
        report.error(at, "config/not-built", format!("`{word}`: {WITHOUT_CLOUDS}"), help);
    }
}

/// The most attempts at a target that is one call.
const ATTEMPTS_MAX: u32 = 20;
/// How long the effect of such a call may take where nobody says.
const CONFIRM_WITHIN: Millis = Millis(5 * Millis::MINUTE.0);

/// How long and how often a target is tried.
pub(super) struct Tries {
    pub(super) timeout: Millis,
    pub(super) attempts_max: u32,
    pub(super) confirm_within: Millis,
}

/// Reads them, with the most attempts and the time for a confirmation that this kind of actuator has.
pub(super) fn read_tries(report: &mut Report, fields: Fields<'_>, attempts_most: u32, confirm_within: Millis) -> Tries {
    let timeout = fields.get("timeout").and_then(|n| report.duration(n, Millis(100))).unwrap_or(Millis::SECOND * 10);
    let attempts_max = fields.get("attempts").and_then(|n| report.count(n, 1, attempts_most)).unwrap_or(5);
    let confirm_within =
        fields.get("confirm_within").and_then(|n| report.duration(n, Millis::SECOND)).unwrap_or(confirm_within);
    Tries { timeout, attempts_max, confirm_within }
}

fn read_local(report: &mut Report, fields: Fields<'_>) -> Local {
    let allowed = fields.get("allow_local").and_then(|n| report.truth(n)).unwrap_or(false);
    if allowed { Local::Allowed } else { Local::Refused }
}

fn read_webhook(report: &mut Report, files: Files<'_>, node: &Node) -> Option<WebhookSettings> {
    const KNOWN: [&str; 10] = [
        "url",
        "hmac_secret_file",
        "hmac_secret_files",
        "status_url",
        "callback",
        "timeout",
        "attempts",
        "at_most_once",
        "confirm_within",
        "allow_local",
    ];
    let fields = report.fields(node, "a webhook", &KNOWN)?;
    let local = read_local(report, fields);
    let url = report.required(fields, "a webhook", "url").and_then(|n| read_url(report, n, local));
    let status_url = fields.get("status_url").and_then(|n| {
        let url = read_url(report, n, local)?;
        if !url.contains("{id}") {
            let help = "write `{id}` where the action's id belongs";
            report.error(n.at, "config/bad-url", "the status URL names no action", help);
        }
        Some(url)
    });
    let hmac_secret_files = read_hmac_files(report, files, fields);
    let callback = fields.get("callback").filter(|n| report.truth(n) == Some(true));
    if let Some(node) = callback.filter(|_| hmac_secret_files.is_empty()) {
        let help = "set `hmac_secret_file`: what the receiver says is signed with it";
        report.error(node.at, "config/missing-field", "nobody could tell who calls back without a key", help);
    }
    let tries = read_tries(report, fields, ATTEMPTS_MAX, CONFIRM_WITHIN);
    let at_most_once = fields.get("at_most_once").and_then(|n| report.truth(n)).unwrap_or(false);
    Some(WebhookSettings {
        url: url?,
        hmac_secret_files,
        status_url,
        callback: callback.is_some(),
        timeout: tries.timeout,
        attempts_max: tries.attempts_max,
        at_most_once,
        confirm_within: tries.confirm_within,
        allow_local: local == Local::Allowed,
    })
}

fn read_http(report: &mut Report, files: Files<'_>, node: &Node) -> Option<HttpSettings> {
    const KNOWN: [&str; 12] = [
        "url",
        "method",
        "headers",
        "body",
        "auth",
        "actions",
        "confirm",
        "timeout",
        "attempts",
        "at_most_once",
        "confirm_within",
        "allow_local",
    ];
    const METHODS: [(&str, u8); 4] = [("POST", 0), ("PUT", 1), ("PATCH", 2), ("DELETE", 3)];
    const BY_NUMBER: [Method; 4] = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let what = "an HTTP actuator";
    let fields = report.fields(node, what, &KNOWN)?;
    let local = read_local(report, fields);
    let url = report.required(fields, what, "url").and_then(|n| read_url_template(report, n, local));
    let method = fields.get("method").and_then(|n| report.word(n, "a method", &METHODS, &[]));
    let method = BY_NUMBER[usize::from(method.unwrap_or(0))].clone();
    let headers = fields.get("headers").map(|n| read_headers(report, files, n)).unwrap_or_default();
    let body = fields.get("body").and_then(|n| read_body(report, n));
    let auth = fields.get("auth").and_then(|n| read_auth(report, files, n, local)).unwrap_or_default();
    let words = action_words();
    let actions: Vec<ActionKind> = fields
        .get("actions")
        .map(|n| report.list(n, "kinds of actions"))
        .unwrap_or_default()
        .iter()
        .filter_map(|item| report.word(item, "a kind of action", &words, &[]))
        .collect();
    let confirm = fields.get("confirm").map(|n| read_confirm(report, n, local));
    let tries = read_tries(report, fields, ATTEMPTS_MAX, CONFIRM_WITHIN);
    // What a POST or PATCH does twice nobody knows; PUT and DELETE name the end.
    let repeats = matches!(method, Method::POST | Method::PATCH);
    let at_most_once = fields.get("at_most_once").and_then(|n| report.truth(n)).unwrap_or(repeats);
    Some(HttpSettings {
        url: url?,
        method,
        headers,
        body,
        auth,
        actions,
        confirm: confirm.flatten(),
        timeout: tries.timeout,
        attempts_max: tries.attempts_max,
        at_most_once,
        confirm_within: tries.confirm_within,
        allow_local: local == Local::Allowed,
    })
}

fn read_url_template(report: &mut Report, node: &Node, local: Local) -> Option<UrlTemplate> {
    let text = url_text(report, node)?;
    match UrlTemplate::parse(&text, local == Local::Allowed) {
        Ok(url) => match Url::parse(&url.sample()).ok().and_then(|sample| url_problem(&sample, local)) {
            Some((message, help)) => {
                report.error(node.at, "config/bad-url", message, help);
                None
            }
            None => Some(url),
        },
        Err(message) => {
            let help = "https://host/groups/{target.name}, with placeholders in path and query only";
            report.error(node.at, "config/bad-url", message, help);
            None
        }
    }
}

fn read_headers(report: &mut Report, files: Files<'_>, node: &Node) -> Vec<(String, HeaderText)> {
    let Some(fields) = report.mapping(node, "`headers`") else { return Vec::new() };
    let mut headers: Vec<(String, HeaderText)> = Vec::new();
    for (key, value) in fields.entries() {
        let name = key.text.to_ascii_lowercase();
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) {
            let help = "letters, digits and `-`";
            report.error(key.at, "config/bad-name", format!("`{}` cannot be a header", key.text), help);
        } else if HEADERS_NOT_FREE.contains(&name.as_str()) {
            let help = "`auth` says who we are; the others are set from the request itself";
            report.mask(value.at);
            report.error(key.at, "config/conflict", format!("header `{name}` is not set here"), help);
        } else if headers.iter().any(|(known, _)| *known == name) {
            report.error(key.at, "config/duplicate-name", format!("header `{name}` stands twice"), "keep one");
        } else if headers.len() == HEADERS_MAX {
            report.error(key.at, "config/too-large", format!("more than {HEADERS_MAX} headers"), "remove some");
            break;
        } else {
            let text = match value.kind {
                Kind::Map(_) => report
                    .fields(value, "a header from a file", &["file"])
                    .and_then(|fields| report.required(fields, "a header from a file", "file"))
                    .and_then(|path| files.secret(report, path))
                    .map(HeaderText::File),
                _ => read_text_template(report, value, "a header's value").map(HeaderText::Text),
            };
            headers.extend(text.map(|text| (name, text)));
        }
    }
    headers
}

fn read_text_template(report: &mut Report, node: &Node, what: &str) -> Option<TextTemplate> {
    let text = report.text(node, what)?;
    match TextTemplate::parse(&text) {
        Ok(template) => Some(template),
        Err(message) => {
            report.error(
                node.at,
                "config/bad-placeholder",
                message,
                "write a text, or a placeholder like '{target.name}'",
            );
            None
        }
    }
}

/// YAML as JSON; a text in braces is a placeholder.
fn read_body(report: &mut Report, node: &Node) -> Option<Value> {
    Some(match &node.kind {
        Kind::Null => Value::Null,
        Kind::Scalar { text, plain } => {
            if let Err(message) = placeholder(text) {
                report.error(node.at, "config/bad-placeholder", message, "a value from the action: '{change.to}'");
                return None;
            }
            match (text.as_str(), text.parse::<i64>(), text.parse::<f64>()) {
                ("true", ..) if *plain => Value::Bool(true),
                ("false", ..) if *plain => Value::Bool(false),
                (_, Ok(number), _) if *plain => Value::Number(number.into()),
                (_, _, Ok(number)) if *plain => {
                    Number::from_f64(number).map_or_else(|| Value::String(text.clone()), Value::Number)
                }
                _ => Value::String(text.clone()),
            }
        }
        Kind::List(items) => {
            let items: Vec<Option<Value>> = items.iter().map(|item| read_body(report, item)).collect();
            Value::Array(items.into_iter().collect::<Option<_>>()?)
        }
        Kind::Map(entries) => {
            let fields: Vec<Option<(String, Value)>> =
                entries.iter().map(|(key, value)| Some((key.text.clone(), read_body(report, value)?))).collect();
            Value::Object(fields.into_iter().collect::<Option<Map<_, _>>>()?)
        }
    })
}

fn read_confirm(report: &mut Report, node: &Node, local: Local) -> Option<ConfirmSettings> {
    let fields = report.fields(node, "`confirm`", &["url", "expr", "failed"])?;
    let url = report.required(fields, "`confirm`", "url").and_then(|n| read_url_template(report, n, local));
    let expr = report.required(fields, "`confirm`", "expr").and_then(|n| read_condition(report, n));
    let failed = fields.get("failed").map(|n| read_condition(report, n));
    Some(ConfirmSettings { url: url?, expr: expr?, failed: failed.flatten() })
}

fn read_condition(report: &mut Report, node: &Node) -> Option<StatusExpr> {
    let text = report.text(node, "a condition")?;
    match StatusExpr::parse(&text) {
        Ok(expr) => Some(expr),
        Err(message) => {
            let help = "compare what a JSON Pointer leads to: '/status/ready >= {change.to}'";
            report.error(node.at, "config/bad-condition", message, help);
            None
        }
    }
}

/// The one entry of a mapping that says which of several ways is meant; a bare word counts as one without settings.
fn one_way<'a>(
    report: &mut Report,
    node: &'a Node,
    what: &str,
    ways: &[&str],
) -> Option<(&'a str, Place, Option<&'a Node>)> {
    let (word, at, settings) = match &node.kind {
        Kind::Scalar { text, .. } => (text.as_str(), node.at, None),
        Kind::Map(entries) if entries.len() == 1 => (entries[0].0.text.as_str(), entries[0].0.at, Some(&*entries[0].1)),
        Kind::Null | Kind::List(_) | Kind::Map(_) => {
            report.error(
                node.at,
                "config/wrong-type",
                format!("{what} names one way"),
                format!("name one of {}", quoted(ways)),
            );
            return None;
        }
    };
    if !ways.contains(&word) {
        report.error(at, "config/unknown-value", format!("`{word}` is not {what}"), suggestion(word, ways));
        return None;
    }
    Some((word, at, settings))
}

/// The settings of a way that needs some.
fn settings_of<'a>(
    report: &mut Report,
    (word, at, settings): (&str, Place, Option<&'a Node>),
    known: &[&str],
) -> Option<Fields<'a>> {
    match settings {
        Some(settings) => report.fields(settings, &format!("`{word}`"), known),
        None => {
            let help = format!("write `{word}: {{ {}: … }}`", known.first().unwrap_or(&""));
            report.error(at, "config/missing-field", format!("`{word}` needs settings"), help);
            None
        }
    }
}

fn text_of(report: &mut Report, fields: Fields<'_>, what: &str, key: &str) -> Option<String> {
    report.required(fields, what, key).and_then(|n| report.text(n, "a text"))
}

fn file_of(report: &mut Report, files: Files<'_>, fields: Fields<'_>, what: &str, key: &str) -> Option<PathBuf> {
    report.required(fields, what, key).and_then(|n| files.secret(report, n))
}

fn read_auth(report: &mut Report, files: Files<'_>, node: &Node, local: Local) -> Option<AuthSettings> {
    const WAYS: [&str; 7] = ["none", "basic", "bearer", "oauth2", "aws_sigv4", "gcp", "azure"];
    let way = one_way(report, node, "a way to show who we are", &WAYS)?;
    let what = format!("`{}`", way.0);
    if CLOUD_WAYS.contains(&way.0) {
        check_clouds(report, way.1, way.0);
    }
    match way.0 {
        "basic" => {
            let fields = settings_of(report, way, &["username", "password_file"])?;
            let username = text_of(report, fields, &what, "username");
            let password_file = file_of(report, files, fields, &what, "password_file");
            Some(AuthSettings::Basic { username: username?, password_file: password_file? })
        }
        "bearer" => {
            let fields = settings_of(report, way, &["token_file"])?;
            Some(AuthSettings::Bearer { token_file: file_of(report, files, fields, &what, "token_file")? })
        }
        "oauth2" => {
            let fields = settings_of(report, way, &["token_url", "client_id", "client_secret_file", "scopes"])?;
            let token_url = report.required(fields, &what, "token_url").and_then(|n| read_url(report, n, local));
            let client_id = text_of(report, fields, &what, "client_id");
            let client_secret_file = file_of(report, files, fields, &what, "client_secret_file");
            let scopes = fields.get("scopes").map(|n| report.texts(n, "a scope")).unwrap_or_default();
            let (token_url, client_id) = (token_url?, client_id?);
            Some(AuthSettings::Oauth2 { token_url, client_id, client_secret_file: client_secret_file?, scopes })
        }
        "aws_sigv4" => {
            let fields = settings_of(report, way, &["region", "service", "credentials"])?;
            let region = read_region(report, fields, &what);
            let service = report.required(fields, &what, "service").and_then(|n| report.name(n, "a service"));
            let credentials = read_aws_credentials(report, files, fields, &what, region.as_deref(), local);
            Some(AuthSettings::Cloud(CloudAuth::AwsSigv4 {
                region: region?,
                service: service?,
                credentials: credentials?,
            }))
        }
        "gcp" => {
            let fields = settings_of(report, way, &["credentials", "scopes"])?;
            let scopes = report.required(fields, &what, "scopes").map(|n| report.texts(n, "a scope"));
            let credentials = read_gcp_credentials(report, files, fields, &what);
            Some(AuthSettings::Cloud(CloudAuth::Gcp { credentials: credentials?, scopes: scopes? }))
        }
        "azure" => {
            let fields = settings_of(report, way, &["credentials", "scope"])?;
            let scope = text_of(report, fields, &what, "scope");
            let credentials = read_azure_credentials(report, files, fields, &what, local);
            Some(AuthSettings::Cloud(CloudAuth::Azure { credentials: credentials?, scope: scope? }))
        }
        _ => Some(AuthSettings::None),
    }
}

/// A region stands in a host's name: nothing else may.
fn read_region(report: &mut Report, fields: Fields<'_>, what: &str) -> Option<String> {
    let node = report.required(fields, what, "region")?;
    let region = report.text(node, "a region")?;
    if region.len() <= 64 && region.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Some(region);
    }
    report.error(node.at, "config/bad-name", format!("`{region}` is not a region"), "as in `eu-west-1`");
    None
}

fn read_aws_credentials(
    report: &mut Report,
    files: Files<'_>,
    fields: Fields<'_>,
    what: &str,
    region: Option<&str>,
    local: Local,
) -> Option<AwsCredentials> {
    let node = report.required(fields, what, "credentials")?;
    let way = one_way(report, node, "a way to have credentials", &["file", "web_identity", "metadata"])?;
    match way.0 {
        "file" => {
            let fields = settings_of(report, way, &["path", "profile"])?;
            let path = file_of(report, files, fields, "`file`", "path");
            let profile = fields.get("profile").and_then(|n| report.text(n, "a profile"));
            Some(AwsCredentials::File { path: path?, profile: profile.unwrap_or_else(|| "default".to_owned()) })
        }
        "web_identity" => {
            let fields = settings_of(report, way, &["role_arn", "token_file", "sts_url"])?;
            let role_arn = text_of(report, fields, "`web_identity`", "role_arn");
            let token_file = file_of(report, files, fields, "`web_identity`", "token_file");
            let sts_url = fields.get("sts_url").and_then(|n| read_url(report, n, local));
            let sts_url = sts_url.or_else(|| region.map(|region| format!("https://sts.{region}.amazonaws.com/")));
            Some(AwsCredentials::WebIdentity { role_arn: role_arn?, token_file: token_file?, sts_url: sts_url? })
        }
        _ => Some(AwsCredentials::Metadata),
    }
}

fn read_gcp_credentials(
    report: &mut Report,
    files: Files<'_>,
    fields: Fields<'_>,
    what: &str,
) -> Option<GcpCredentials> {
    let node = report.required(fields, what, "credentials")?;
    let way = one_way(report, node, "a way to have credentials", &["file", "metadata"])?;
    if way.0 == "metadata" {
        return Some(GcpCredentials::Metadata);
    }
    let fields = settings_of(report, way, &["path"])?;
    Some(GcpCredentials::File(file_of(report, files, fields, "`file`", "path")?))
}

fn read_azure_credentials(
    report: &mut Report,
    files: Files<'_>,
    fields: Fields<'_>,
    what: &str,
    local: Local,
) -> Option<AzureCredentials> {
    const WAYS: [&str; 3] = ["client_secret", "workload_identity", "metadata"];
    let node = report.required(fields, what, "credentials")?;
    let way = one_way(report, node, "a way to have credentials", &WAYS)?;
    let what = format!("`{}`", way.0);
    if way.0 == "metadata" {
        let fields = way.2.and_then(|settings| report.fields(settings, &what, &["client_id"]));
        let client_id = fields.and_then(|fields| fields.get("client_id")).and_then(|n| report.text(n, "a client id"));
        return Some(AzureCredentials::Metadata { client_id });
    }
    let file_key = if way.0 == "client_secret" { "client_secret_file" } else { "token_file" };
    let is_secret = way.0 == "client_secret";
    let fields = settings_of(report, way, &["tenant_id", "client_id", file_key, "authority"])?;
    // It stands in the path of an address.
    let tenant_id = report.required(fields, &what, "tenant_id").and_then(|n| report.name(n, "a tenant"));
    let client_id = text_of(report, fields, &what, "client_id");
    let file = file_of(report, files, fields, &what, file_key);
    let authority = fields.get("authority").and_then(|n| read_url(report, n, local));
    let (tenant_id, client_id, file) = (tenant_id?, client_id?, file?);
    Some(if is_secret {
        AzureCredentials::ClientSecret { tenant_id, client_id, client_secret_file: file, authority }
    } else {
        AzureCredentials::WorkloadIdentity { tenant_id, client_id, token_file: file, authority }
    })
}

/// The fields that all clouds have in common.
const CLOUD_FIELDS: [&str; 7] =
    ["group", "timeout", "attempts", "confirm_within", "allow_local", "endpoint", "credentials"];

fn cloud_fields<'a>(report: &mut Report, node: &'a Node, what: &str, own: &[&str]) -> Option<Fields<'a>> {
    let known: Vec<&str> = own.iter().chain(&CLOUD_FIELDS).copied().collect();
    report.fields(node, what, &known)
}

fn read_cloud(report: &mut Report, fields: Fields<'_>, local: Local) -> Option<CloudSettings> {
    let group = match fields.get("group") {
        Some(node) => read_text_template(report, node, "a group's name")?,
        None => TextTemplate::parse("{target.name}").ok()?,
    };
    let tries = read_tries(report, fields, ATTEMPTS_MAX, CONFIRM_WITHIN);
    Some(CloudSettings {
        group,
        timeout: tries.timeout,
        attempts_max: tries.attempts_max,
        confirm_within: tries.confirm_within,
        allow_local: local == Local::Allowed,
    })
}

fn read_aws(report: &mut Report, files: Files<'_>, node: &Node) -> Option<AwsAutoscalingSettings> {
    let what = "`aws_autoscaling`";
    let fields = cloud_fields(report, node, what, &["region"])?;
    let local = read_local(report, fields);
    let common = read_cloud(report, fields, local);
    let region = read_region(report, fields, what);
    let endpoint = fields.get("endpoint").and_then(|n| read_url(report, n, local));
    let credentials = read_aws_credentials(report, files, fields, what, region.as_deref(), local);
    Some(AwsAutoscalingSettings { common: common?, region: region?, endpoint, credentials: credentials? })
}

/// The bounds of a group whose cloud knows none.
fn read_bounds(report: &mut Report, fields: Fields<'_>, what: &str) -> Option<(u32, u32)> {
    let min = fields.get("min_size").and_then(|n| report.count(n, 0, GROUP_SIZE_MAX)).unwrap_or(1);
    let node = report.required(fields, what, "max_size")?;
    let max = report.count(node, 1, GROUP_SIZE_MAX)?;
    if min > max {
        report.error(node.at, "config/out-of-range", "`max_size` is below `min_size`", format!("at least {min}"));
        return None;
    }
    Some((min, max))
}

fn read_gcp(report: &mut Report, files: Files<'_>, node: &Node) -> Option<GcpMigSettings> {
    let what = "`gcp_mig`";
    let fields = cloud_fields(report, node, what, &["project", "zone", "region", "min_size", "max_size"])?;
    let local = read_local(report, fields);
    let common = read_cloud(report, fields, local);
    let project = text_of(report, fields, what, "project");
    let zone = fields.get("zone").and_then(|n| report.name(n, "a zone"));
    let region = fields.get("region").and_then(|n| report.name(n, "a region"));
    let place = match (zone, region) {
        (Some(zone), None) => Some(GcpPlace::Zone(zone)),
        (None, Some(region)) => Some(GcpPlace::Region(region)),
        _ => {
            let help = "`zone` for a group in one zone, `region` for one in several";
            report.error(fields.at, "config/conflict", "one of `zone` and `region` is needed", help);
            None
        }
    };
    let bounds = read_bounds(report, fields, what);
    let endpoint = fields.get("endpoint").and_then(|n| read_url(report, n, local));
    let credentials = read_gcp_credentials(report, files, fields, what);
    let (min_size, max_size) = bounds?;
    let (common, project, place, credentials) = (common?, project?, place?, credentials?);
    Some(GcpMigSettings { common, project, place, min_size, max_size, endpoint, credentials })
}

fn read_azure(report: &mut Report, files: Files<'_>, node: &Node) -> Option<AzureVmssSettings> {
    let what = "`azure_vmss`";
    let fields = cloud_fields(report, node, what, &["subscription_id", "resource_group", "min_size", "max_size"])?;
    let local = read_local(report, fields);
    let common = read_cloud(report, fields, local);
    let subscription_id = text_of(report, fields, what, "subscription_id");
    let resource_group = text_of(report, fields, what, "resource_group");
    let bounds = read_bounds(report, fields, what);
    let endpoint = fields.get("endpoint").and_then(|n| read_url(report, n, local));
    let credentials = read_azure_credentials(report, files, fields, what, local);
    let (min_size, max_size) = bounds?;
    let (common, subscription_id, resource_group) = (common?, subscription_id?, resource_group?);
    let credentials = credentials?;
    Some(AzureVmssSettings { common, subscription_id, resource_group, min_size, max_size, endpoint, credentials })
}

/// The key files of `hmac_secret_file` or `hmac_secret_files`: one, or two during a rotation.
pub(super) fn read_hmac_files(report: &mut Report, files: Files<'_>, fields: Fields<'_>) -> Vec<PathBuf> {
    let (one, many) = (fields.get("hmac_secret_file"), fields.get("hmac_secret_files"));
    if let (Some(_), Some(many)) = (one, many) {
        let message = "`hmac_secret_file` and `hmac_secret_files` exclude each other";
        report.error(many.at, "config/conflict", message, "keep one of the two");
        return Vec::new();
    }
    let items: Vec<&Node> = match (one, many) {
        (Some(one), _) => vec![one],
        (None, Some(many)) => report.list(many, "paths").iter().map(|item| &**item).collect(),
        (None, None) => Vec::new(),
    };
    if items.is_empty() {
        let help = "give `hmac_secret_file`, so that the receiver knows who calls";
        report.warning(fields.at, "config/unsigned", "calls of this webhook are not signed", help);
    }
    if items.len() > 2 {
        let help = "the one to sign with, and the one that is being retired";
        report.error(items[2].at, "config/out-of-range", "more than two keys", help);
    }
    items.into_iter().filter_map(|item| files.secret(report, item)).collect()
}

/// Whether addresses of this machine may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Local {
    Allowed,
    Refused,
}

/// An http or https URL with a host and without a password.
pub(super) fn read_url(report: &mut Report, node: &Node, local: Local) -> Option<String> {
    let text = url_text(report, node)?;
    let wrong = match Url::parse(&text) {
        Err(error) => Some((format!("`{text}` is not a URL: {error}"), "write https://host/path")),
        Ok(url) => url_problem(&url, local),
    };
    match wrong {
        None => Some(text),
        Some((message, help)) => {
            report.error(node.at, "config/bad-url", message, help);
            None
        }
    }
}

/// The text of a URL, without a password.
fn url_text(report: &mut Report, node: &Node) -> Option<String> {
    let text = report.text(node, "a URL")?;
    if text.contains('@') {
        // The text is shown nowhere: it may hold a password.
        report.mask(node.at);
        let help = "name the file of a secret instead; a literal `@` is written %40";
        report.error(node.at, "config/bad-url", "a URL must not hold a user or password", help);
        return None;
    }
    Some(text)
}

fn url_problem(url: &Url, local: Local) -> Option<(String, &'static str)> {
    if !matches!(url.scheme(), "http" | "https") {
        let message = format!("scheme `{}` cannot be called", url.scheme());
        return Some((message, "use http:// or https://"));
    }
    let host = url.host_str().unwrap_or("");
    match reach_of(host) {
        Reach::LinkLocal => {
            Some((format!("{host} is a link-local address"), "those are never called: they serve metadata"))
        }
        Reach::ThisMachine if local == Local::Refused => {
            Some((format!("{host} is this machine"), "if that is meant, add `allow_local: true`"))
        }
        Reach::ThisMachine | Reach::Elsewhere => None,
    }
}

/// Where a host is, as far as its name or address tells.
enum Reach {
    ThisMachine,
    LinkLocal,
    Elsewhere,
}

fn reach_of(host: &str) -> Reach {
    let name = host.trim_end_matches('.');
    if name == "localhost" || name.ends_with(".localhost") {
        return Reach::ThisMachine;
    }
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(|ip| ip.to_canonical());
    match address {
        Ok(ip) if ip.is_loopback() || ip.is_unspecified() => Reach::ThisMachine,
        Ok(IpAddr::V4(ip)) if ip.is_link_local() => Reach::LinkLocal,
        Ok(IpAddr::V6(ip)) if ip.is_unicast_link_local() => Reach::LinkLocal,
        Ok(_) | Err(_) => Reach::Elsewhere,
    }
}
