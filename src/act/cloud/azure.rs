//! Scale sets of Azure by the Resource Manager API.

use reqwest::header::{HeaderValue, IF_MATCH};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};

use super::super::auth::{AuthSettings, Authenticator, Outgoing};
use super::super::cloud_settings::{AzureVmssSettings, CloudAuth};
use super::super::http::ApiClient;
use super::{ANSWER_BYTES_MAX, ActError, BuildError, Group, count};
use crate::act::template::percent_encode;
use crate::model::Timestamp;

const ENDPOINT: &str = "https://management.azure.com";
const API_VERSION: &str = "2024-07-01";

#[derive(Debug)]
pub(super) struct Azure {
    pub(super) api: ApiClient,
    auth: Authenticator,
    /// Up to the name of a scale set.
    base: String,
    min: u32,
    max: u32,
}

impl Azure {
    pub(super) fn new(name: &str, settings: &AzureVmssSettings) -> Result<Azure, BuildError> {
        let AzureVmssSettings { common, subscription_id, resource_group, endpoint, credentials, .. } = settings;
        let endpoint = endpoint.as_deref().unwrap_or(ENDPOINT).trim_end_matches('/');
        let auth = AuthSettings::Cloud(CloudAuth::Azure {
            credentials: credentials.clone(),
            scope: format!("{endpoint}/.default"),
        });
        Ok(Azure {
            api: ApiClient::new(name, endpoint, common.timeout, common.allow_local)?,
            auth: Authenticator::new(name, auth, common.timeout, common.allow_local)?,
            base: format!(
                "{endpoint}/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Compute/virtualMachineScaleSets/",
                percent_encode(subscription_id),
                percent_encode(resource_group)
            ),
            min: settings.min_size,
            max: settings.max_size,
        })
    }

    /// The same with another metadata service.
    #[cfg(test)]
    pub(super) fn with_metadata(self, address: &str) -> Azure {
        Azure { auth: self.auth.with_metadata(address), ..self }
    }

    fn url(&self, name: &str) -> Result<Url, ActError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !name.chars().all(fits) || name.starts_with('.') {
            return Err(self.api.refused(format!("{name:?} is not the name of a scale set")));
        }
        Url::parse(&format!("{}{name}?api-version={API_VERSION}", self.base))
            .map_err(|error| self.api.refused(error.to_string()))
    }

    async fn call(&self, outgoing: Outgoing, now: Timestamp) -> Result<Value, ActError> {
        let answer = self.auth.send(&self.api, outgoing, ANSWER_BYTES_MAX, now).await?;
        if answer.status.is_success() {
            let etag = answer.headers.get("etag").and_then(|etag| etag.to_str().ok()).map(str::to_owned);
            let body = self.api.body_of(answer)?;
            // A change that goes on is accepted without a body.
            let mut value: Value = if body.is_empty() {
                json!({})
            } else {
                serde_json::from_slice(&body)
                    .map_err(|error| self.api.refused(format!("its answer is no JSON: {error}")))?
            };
            if let (Some(fields), Some(etag)) = (value.as_object_mut(), etag) {
                fields.entry("etag").or_insert(json!(etag));
            }
            return Ok(value);
        }
        let text = answer.text();
        let error: Value = serde_json::from_str(&text).unwrap_or_default();
        let field = |name: &str| error.pointer(&format!("/error/{name}")).and_then(Value::as_str);
        let words = match (field("code"), field("message")) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            _ => text.clone(),
        };
        // Somebody else is changing it, or has since it was read: it is read again.
        let passes = matches!(answer.status, StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED);
        Err(if passes { self.api.unavailable(words) } else { self.api.failure(&answer, &words) })
    }

    pub(super) async fn group(&self, name: &str, now: Timestamp) -> Result<Group, ActError> {
        let set = self.call(Outgoing::get(self.url(name)?), now).await?;
        let sku = set.get("sku").filter(|sku| sku.get("capacity").is_some_and(Value::is_u64));
        let sku = sku.ok_or_else(|| self.api.refused(format!("{name}: the answer has no sku.capacity")))?;
        let wanted = count(sku.get("capacity"));
        let state = set.pointer("/properties/provisioningState").and_then(Value::as_str).unwrap_or_default();
        let failed = matches!(state, "Failed" | "Canceled");
        Ok(Group {
            name: name.to_owned(),
            wanted,
            // The set as a whole is provisioned once all of its instances are.
            serving: if state == "Succeeded" { wanted } else { 0 },
            is_settled: state == "Succeeded",
            min: self.min,
            max: self.max,
            protected: 0,
            hindrance: (state == "Deleting").then(|| "it is being deleted".to_owned()),
            failure: failed.then(|| format!("its provisioning is {state}")),
            state: json!({"sku": sku, "etag": set.get("etag")}),
        })
    }

    pub(super) async fn resize(&self, group: &Group, to: u32, now: Timestamp) -> Result<(), ActError> {
        // Name and tier as they were read: the API takes no capacity alone.
        let mut sku = group.state["sku"].clone();
        sku["capacity"] = json!(to);
        let etag = group.state["etag"].as_str().and_then(|etag| HeaderValue::from_str(etag).ok());
        let outgoing = Outgoing {
            method: Method::PATCH,
            headers: etag.map(|etag| (IF_MATCH, etag)).into_iter().collect(),
            body: ("application/json", json!({"sku": sku}).to_string().into_bytes()),
            ..Outgoing::get(self.url(&group.name)?)
        };
        self.call(outgoing, now).await.map(drop)
    }
}
