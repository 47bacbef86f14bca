//! KEDA's external scaler over gRPC: horizontal autoscalers follow what a signal is foreseen to be.
//!
//! A `ScaledObject` names a component and one of its signals; the value is the worst that is foreseen of it within `lead`, at a
//! quantile, or what it is now where that is worse. Nothing can be changed here. What is not known is an error, at which KEDA
//! keeps to its `fallback`, never a zero.
//!
//! Limits: requests of 64 KiB; 100 streams at once for a connection; names in errors are cut.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use self::proto::external_scaler_server::{ExternalScaler, ExternalScalerServer};
use self::proto::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use super::Shared;
use super::params::parse_duration;
use crate::act::cut;
use crate::forecast::{Knowledge, Side};
use crate::health::SignalAssessment;
use crate::model::Millis;

/// The messages and the service, generated from `proto/externalscaler.proto`: `UPDATE=1 cargo test --test it proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated: the schema has the comments"
)]
pub mod proto {
    include!("keda/externalscaler.rs");
}

/// The largest request.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// How many streams one connection may have open.
const STREAMS_MAX: u32 = 100;
/// How often a stream looks whether something has changed.
const LOOK_EVERY: Millis = Millis::SECOND;
/// What was foreseen longer ago is not told any more.
const AGE_MAX: Millis = Millis(5 * Millis::MINUTE.0);
/// How far ahead is looked where nobody says.
const LEAD: Millis = Millis(15 * Millis::MINUTE.0);
/// The quantile where nobody says.
const QUANTILE: f64 = 0.9;
/// Somebody's names in errors, in characters.
const WORDS_CHARS_MAX: usize = 200;
/// How long a connection may be silent before it is asked whether somebody is there.
const PING_AFTER: Duration = Duration::from_secs(60);

/// Serves until `stop` ends.
///
/// # Errors
/// Where the listener breaks.
pub async fn serve_keda(
    shared: Arc<Shared>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let scaler = ExternalScalerServer::new(Scaler { shared }).max_decoding_message_size(REQUEST_BYTES_MAX);
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(PING_AFTER))
        .add_service(scaler)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), stop)
        .await
}

#[derive(Debug, Clone)]
struct Scaler {
    shared: Arc<Shared>,
}

/// What a `ScaledObject` asks for.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    component: String,
    /// `rule/signal`; the only one of the component where absent.
    signal: Option<String>,
    lead: Millis,
    quantile: f64,
    target: f64,
    activation: f64,
}

impl Wanted {
    /// Reads a trigger's metadata. KEDA adds keys of its own, so that one nobody knows is no mistake.
    fn read(metadata: &HashMap<String, String>) -> Result<Wanted, Status> {
        let text = |key: &str| metadata.get(key).map(|text| text.trim()).filter(|text| !text.is_empty());
        let required = |key: &str| {
            text(key).ok_or_else(|| Status::invalid_argument(format!("the trigger's metadata has no `{key}`")))
        };
        let wrong = |key: &str, what: &str| {
            let given = cut(text(key).unwrap_or_default(), WORDS_CHARS_MAX);
            Status::invalid_argument(format!("`{key}` {given:?} is no {what}"))
        };
        let number = |key: &str, what: &str, fits: fn(f64) -> bool| {
            let number = text(key).map(|text| text.parse::<f64>().ok().filter(|number| fits(*number)));
            number.map(|number| number.ok_or_else(|| wrong(key, what))).transpose()
        };
        let lead = text("lead").map(|span| parse_duration(span).filter(|span| *span > Millis::ZERO));
        let lead = lead.map(|lead| lead.ok_or_else(|| wrong("lead", "duration like 15m"))).transpose()?;
        required("targetValue")?;
        let target = number("targetValue", "number above 0", |n| n.is_finite() && n > 0.0)?.unwrap_or(1.0);
        Ok(Wanted {
            component: required("component")?.to_owned(),
            signal: text("signal").map(str::to_owned),
            lead: lead.unwrap_or(LEAD),
            quantile: number("quantile", "share between 0 and 1", |n| 0.0 < n && n < 1.0)?.unwrap_or(QUANTILE),
            target,
            activation: number("activationTargetValue", "number", f64::is_finite)?.unwrap_or(0.0),
        })
    }
}

impl Scaler {
    /// The worst that is foreseen, and the signal's name.
    fn value(&self, wanted: &Wanted) -> Result<(String, f64), Status> {
        let report = self.shared.report.load_full();
        let report = report.ok_or_else(|| Status::unavailable("no pass has been made yet"))?;
        let age = self.shared.clock.now() - report.at;
        if age > AGE_MAX {
            return Err(Status::unavailable(format!("the newest pass was made {age} ago")));
        }
        let shown = cut(&wanted.component, WORDS_CHARS_MAX);
        let mut found = report.assessments.iter().filter(|one| one.component.to_string() == wanted.component);
        let assessment = found.next().ok_or_else(|| Status::not_found(format!("no component {shown:?} is watched")))?;
        let names: Vec<String> =
            assessment.signals.iter().map(|signal| format!("{}/{}", signal.rule, signal.signal)).collect();
        let index = match &wanted.signal {
            Some(name) => names.iter().position(|known| known == name),
            None => (names.len() == 1).then_some(0),
        };
        let index = index.ok_or_else(|| {
            Status::invalid_argument(format!("`signal` must be one of {shown:?}: {}", names.join(", ")))
        })?;
        let signal = &assessment.signals[index];
        match &signal.foresight.knowledge {
            Knowledge::Known => {}
            Knowledge::Learning { seen, needed } => {
                return Err(Status::unavailable(format!("{}: {seen} of {needed} of history seen", names[index])));
            }
            Knowledge::Unknown { why } => {
                return Err(Status::unavailable(format!("{} is unknown: {why}", names[index])));
            }
        }
        let worst = worst(signal, wanted.lead, wanted.quantile);
        let value = worst.ok_or_else(|| Status::unavailable(format!("{}: no values yet", names[index])))?;
        Ok((names[index].clone(), value))
    }

    fn is_active(&self, wanted: &Wanted) -> Result<bool, Status> {
        self.value(wanted).map(|(_, value)| value > wanted.activation)
    }
}

/// The worst value up to a lead at the quantile that is nearest to the wanted one, or the present value where that is worse.
fn worst(signal: &SignalAssessment, lead: Millis, quantile: f64) -> Option<f64> {
    let foresight = &signal.foresight;
    let worse = |a: f64, b: f64| if signal.side == Side::Above { a.max(b) } else { a.min(b) };
    let path = foresight.path.as_ref().and_then(|path| {
        // For a signal that is bad when low the mirrored quantile is the bad one.
        let wanted = if signal.side == Side::Above { quantile } else { 1.0 - quantile };
        let levels = path.levels.iter().zip(&path.values);
        let (_, values) = levels.min_by(|(a, _), (b, _)| (*a - wanted).abs().total_cmp(&(*b - wanted).abs()))?;
        // The first step is one step ahead.
        let steps = usize::try_from(lead.0 / path.step.0.max(1)).unwrap_or(0).max(1);
        values.iter().take(steps).copied().filter(|value| value.is_finite()).reduce(worse)
    });
    path.into_iter().chain(foresight.current.filter(|value| value.is_finite())).reduce(worse)
}

/// A name as Kubernetes takes it for an external metric.
fn metric_name(signal: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    format!("forestall-{}", signal.chars().map(fits).collect::<String>())
}

fn metadata(object: Option<ScaledObjectRef>) -> HashMap<String, String> {
    object.map(|object| object.scaler_metadata).unwrap_or_default()
}

/// The nearest whole number above, for clients that know no fractions.
#[expect(clippy::cast_possible_truncation, reason = "a cast of a float stops at the bounds")]
fn whole(value: f64) -> i64 {
    value.ceil() as i64
}

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    type StreamIsActiveStream = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;

    async fn is_active(&self, request: Request<ScaledObjectRef>) -> Result<Response<IsActiveResponse>, Status> {
        let wanted = Wanted::read(&request.into_inner().scaler_metadata)?;
        Ok(Response::new(IsActiveResponse { result: self.is_active(&wanted)? }))
    }

    /// Tells it at once, and whenever it changes; what is not known changes nothing.
    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let wanted = Wanted::read(&request.into_inner().scaler_metadata)?;
        let told: Option<bool> = None;
        let changes = stream::unfold((self.clone(), wanted, told), |(scaler, wanted, told)| async move {
            loop {
                match scaler.is_active(&wanted) {
                    Ok(result) if told != Some(result) => {
                        return Some((Ok(IsActiveResponse { result }), (scaler, wanted, Some(result))));
                    }
                    _ => scaler.shared.clock.sleep(LOOK_EVERY).await,
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let wanted = Wanted::read(&request.into_inner().scaler_metadata)?;
        // The name is needed before the signal is known: an autoscaler is made from it.
        let name = metric_name(wanted.signal.as_deref().unwrap_or(&wanted.component));
        let spec =
            MetricSpec { metric_name: name, target_size: whole(wanted.target), target_size_float: wanted.target };
        Ok(Response::new(GetMetricSpecResponse { metric_specs: vec![spec] }))
    }

    async fn get_metrics(&self, request: Request<GetMetricsRequest>) -> Result<Response<GetMetricsResponse>, Status> {
        let GetMetricsRequest { scaled_object_ref, metric_name } = request.into_inner();
        let (_, value) = self.value(&Wanted::read(&metadata(scaled_object_ref))?)?;
        let value = MetricValue { metric_name, metric_value: whole(value), metric_value_float: value };
        Ok(Response::new(GetMetricsResponse { metric_values: vec![value] }))
    }
}
