//! AWS Auto Scaling groups by the Query API, version 2011-01-01.

use reqwest::{Method, Url};
use roxmltree::{Document, Node};

use super::super::auth::{AuthSettings, Authenticator, Outgoing};
use super::super::cloud_settings::{AwsAutoscalingSettings, CloudAuth};
use super::super::http::ApiClient;
use super::{ANSWER_BYTES_MAX, ActError, BuildError, Group};
use crate::model::Timestamp;

const VERSION: &str = "2011-01-01";
const FORM: &str = "application/x-www-form-urlencoded";

/// Errors that pass: what is asked for too often, and what is busy.
const TRANSIENT: [&str; 8] = [
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "ScalingActivityInProgress",
    "ResourceContention",
    "ServiceUnavailable",
    "RequestTimeout",
];
/// Errors of credentials that have run out since they were given.
const WORN_OUT: [&str; 3] = ["ExpiredToken", "ExpiredTokenException", "RequestExpired"];

#[derive(Debug)]
pub(super) struct Aws {
    pub(super) api: ApiClient,
    url: Url,
    auth: Authenticator,
}

impl Aws {
    pub(super) fn new(name: &str, settings: &AwsAutoscalingSettings) -> Result<Aws, BuildError> {
        let AwsAutoscalingSettings { common, region, endpoint, credentials } = settings;
        // China's regions have a domain of their own.
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let url = endpoint.clone().unwrap_or_else(|| format!("https://autoscaling.{region}.{domain}/"));
        let service = "autoscaling".to_owned();
        let auth = AuthSettings::Cloud(CloudAuth::AwsSigv4 {
            region: region.clone(),
            service,
            credentials: credentials.clone(),
        });
        Ok(Aws {
            api: ApiClient::new(name, &url, common.timeout, common.allow_local)?,
            auth: Authenticator::new(name, auth, common.timeout, common.allow_local)?,
            url: Url::parse(&url)
                .map_err(|error| BuildError { name: name.to_owned(), reason: format!("endpoint: {error}") })?,
        })
    }

    /// The same with another metadata service.
    #[cfg(test)]
    pub(super) fn with_metadata(self, address: &str) -> Aws {
        Aws { auth: self.auth.with_metadata(address), ..self }
    }

    async fn call(&self, action: &str, parameters: &[(&str, &str)], now: Timestamp) -> Result<String, ActError> {
        let outgoing = Outgoing {
            method: Method::POST,
            body: (FORM, form(action, parameters)),
            ..Outgoing::get(self.url.clone())
        };
        let answer = self.auth.send(&self.api, outgoing, ANSWER_BYTES_MAX, now).await?;
        if answer.status.is_success() {
            return Ok(String::from_utf8_lossy(&self.api.body_of(answer)?).into_owned());
        }
        let text = answer.text();
        let words = format!("{action}: {}", words(&text));
        let code = error_of(&text).map(|(code, _)| code).unwrap_or_default();
        let passes = TRANSIENT.contains(&code.as_str());
        if passes || (WORN_OUT.contains(&code.as_str()) && self.auth.forget()) {
            return Err(self.api.unavailable(words));
        }
        Err(self.api.failure(&answer, &words))
    }

    pub(super) async fn group(&self, name: &str, now: Timestamp) -> Result<Group, ActError> {
        let answer = self.call("DescribeAutoScalingGroups", &[("AutoScalingGroupNames.member.1", name)], now).await?;
        let unread = |what: &str| self.api.refused(format!("DescribeAutoScalingGroups: {what}"));
        let document = Document::parse(&answer).map_err(|error| unread(&format!("the answer is no XML: {error}")))?;
        let groups = document.descendants().find(|node| node.tag_name().name() == "AutoScalingGroups");
        let mut groups = groups.into_iter().flat_map(members);
        let found = groups.find(|group| text(*group, "AutoScalingGroupName") == Some(name));
        let found = found.ok_or_else(|| unread(&format!("there is no group {name:?} in this region")))?;
        let number = |field: &str| {
            let number = text(found, field).and_then(|text| text.parse::<u32>().ok());
            number.ok_or_else(|| unread(&format!("the group has no {field}")))
        };
        let instances = child(found, "Instances").into_iter().flat_map(members);
        let (mut serving, mut protected) = (0_u32, 0_u32);
        for instance in instances.filter(|instance| text(*instance, "LifecycleState") == Some("InService")) {
            // Where instances count as several, the group's sizes are sums of these weights.
            let weight = text(instance, "WeightedCapacity").and_then(|text| text.parse().ok()).unwrap_or(1);
            serving = serving.saturating_add(weight);
            if text(instance, "ProtectedFromScaleIn") == Some("true") {
                protected = protected.saturating_add(weight);
            }
        }
        let being_deleted = text(found, "Status").map(|status| format!("it is being deleted ({status})"));
        Ok(Group {
            name: name.to_owned(),
            wanted: number("DesiredCapacity")?,
            serving,
            is_settled: true,
            min: number("MinSize")?,
            max: number("MaxSize")?,
            protected,
            hindrance: being_deleted,
            failure: None,
            state: serde_json::Value::Null,
        })
    }

    pub(super) async fn resize(&self, group: &Group, to: u32, now: Timestamp) -> Result<(), ActError> {
        let size = to.to_string();
        let parameters =
            [("AutoScalingGroupName", group.name.as_str()), ("DesiredCapacity", &size), ("HonorCooldown", "false")];
        self.call("SetDesiredCapacity", &parameters, now).await.map(drop)
    }
}

fn form(action: &str, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", action).append_pair("Version", VERSION).extend_pairs(parameters);
    form.finish().into_bytes()
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.tag_name().name() == name)
}

fn members<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(|child| child.tag_name().name() == "member")
}

fn text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name).and_then(|child| child.text()).map(str::trim)
}

/// Code and message of an error.
fn error_of(text: &str) -> Option<(String, String)> {
    let document = Document::parse(text).ok()?;
    let find = |name: &str| {
        let node = document.descendants().find(|node| node.tag_name().name() == name)?;
        node.text().map(|text| text.trim().to_owned())
    };
    Some((find("Code")?, find("Message").unwrap_or_default()))
}

/// What an error says, without its XML; as it is where it is none.
pub(in crate::act) fn words(text: &str) -> String {
    error_of(text).map_or_else(|| text.to_owned(), |(code, message)| format!("{code}: {message}"))
}
