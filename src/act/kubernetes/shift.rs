//! Less traffic: the weights of Gateway API routes.
//!
//! A share of a backend's weight goes to the other backends of the same rule, in proportion to theirs. The route keeps a mark
//! with the weights that were there before and those that were set. A second shift counts from what was there before the
//! first. Given back is what the undo names: a smaller share, or what was there; and only while what was set still stands.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cluster::{Call, Fault, annotation, list, text};
use super::{CONFLICTS_MAX, Step, Task};
use crate::act::Confirmation;

/// What we set on a route.
const MARK: &str = "forestall.io/weights";
/// The sum of a rule's weights once they are ours: fine enough for a share of a thousandth.
const WEIGHT_SUM: f64 = 10_000.0;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Whose shifts stand on one another.
    actions: Vec<String>,
    /// Rule → backend → weight; absent where none was said.
    was: Vec<Vec<Option<u64>>>,
    set: Vec<Vec<Option<u64>>>,
}

pub(super) async fn apply(task: &Task<'_>, share: f64) -> Result<Step, Fault> {
    if !(0.0..1.0).contains(&share) {
        return Err(Fault::Refused(format!(
            "{}: a share of {share} cannot be shifted: 0 to less than 1",
            task.subject()
        )));
    }
    let routes = routes(task).await?;
    if routes.is_empty() {
        let words =
            "no HTTPRoute of its namespace shares its traffic with another backend: there is nowhere to shift it";
        return Err(Fault::Refused(format!("{}: {words}", task.subject())));
    }
    let mut step = Step::unchanged();
    for route in routes {
        let written = write(task, route, share).await?;
        if step.regarding.is_none() && (written.regarding.is_some() || step.acceptance != written.acceptance) {
            step = written;
        }
    }
    Ok(step)
}

/// The routes that send to the target and to something else beside it.
async fn routes(task: &Task<'_>) -> Result<Vec<Value>, Fault> {
    let path = format!("/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes", task.namespace());
    let call = Call::get(path, "list httproutes.gateway.networking.k8s.io");
    let Some(mut routes) = task.cluster.list_if_known(&call).await? else {
        let words = "the cluster has no Gateway API, whose routes could shift load";
        return Err(Fault::Refused(format!("{}: {words}", task.subject())));
    };
    routes.retain(|route| list(route, "/spec/rules").iter().any(|rule| own_backend(rule, task).is_some()));
    Ok(routes)
}

/// Where the target is among a rule's backends, where there are others.
fn own_backend(rule: &Value, task: &Task<'_>) -> Option<usize> {
    let backends = list(rule, "/backendRefs");
    let is_own = |backend: &Value| {
        let (kind, namespace) = (text(backend, "/kind"), text(backend, "/namespace"));
        text(backend, "/name") == task.name()
            && matches!(kind, "" | "Service")
            && (namespace.is_empty() || namespace == task.namespace())
    };
    backends.iter().position(is_own).filter(|_| backends.len() > 1)
}

async fn write(task: &Task<'_>, mut route: Value, share: f64) -> Result<Step, Fault> {
    let name = text(&route, "/metadata/name").to_owned();
    let path = format!("/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes/{name}", task.namespace());
    for _ in 0..CONFLICTS_MAX {
        let Some((weights, mark)) = wanted(task, &route, share)? else {
            let ours = mark_of(&route).is_some_and(|mark| mark.actions.contains(&task.action.id));
            return Ok(if ours { Step::already_ours() } else { Step::unchanged() });
        };
        let patch = json!({
            "metadata": {
                "resourceVersion": text(&route, "/metadata/resourceVersion"),
                "annotations": { MARK: mark },
            },
            "spec": { "rules": with_weights(&route, &weights) },
        });
        let call = Call::merge(path.clone(), patch, "patch httproutes.gateway.networking.k8s.io");
        match task.cluster.call(&call).await {
            Err(Fault::Conflict(_)) => {}
            answer => {
                answer?;
                return Ok(Step::written(json!({
                    "apiVersion": "gateway.networking.k8s.io/v1",
                    "kind": "HTTPRoute",
                    "namespace": task.namespace(),
                    "name": name,
                    "uid": text(&route, "/metadata/uid"),
                })));
            }
        }
        route = task.cluster.call(&Call::get(path.clone(), "get httproutes.gateway.networking.k8s.io")).await?;
    }
    Err(Fault::Conflict(format!("route {name} changed again and again while it was written")))
}

type Weights = Vec<Vec<Option<u64>>>;

/// The weights to set and the mark to leave; nothing where there is nothing to do.
fn wanted(task: &Task<'_>, route: &Value, share: f64) -> Result<Option<(Weights, Value)>, Fault> {
    let now = weights_of(route);
    let mark = mark_of(route);
    if let Some(undone) = &task.action.undoes {
        let Some(Mark { mut actions, was, .. }) = mark.filter(|mark| mark.actions.contains(undone) && mark.set == now)
        else {
            return Ok(None);
        };
        actions.retain(|action| action != undone);
        if actions.is_empty() {
            return Ok(Some((was, Value::Null)));
        }
        let set = shifted(task, route, &was, share);
        return marked(Mark { actions, was, set });
    }
    let (mut actions, was) = match mark {
        Some(mark) if mark.actions.contains(&task.action.id) => return Ok(None),
        // What an earlier action of ours set is not what was there before.
        Some(mark) if mark.set == now => (mark.actions, mark.was),
        _ => (Vec::new(), now),
    };
    let set = shifted(task, route, &was, share);
    if set == was {
        return Ok(None);
    }
    actions.push(task.action.id.clone());
    marked(Mark { actions, was, set })
}

fn marked(mark: Mark) -> Result<Option<(Weights, Value)>, Fault> {
    let text = serde_json::to_string(&mark).map_err(|error| Fault::Refused(error.to_string()))?;
    Ok(Some((mark.set, json!(text))))
}

fn mark_of(route: &Value) -> Option<Mark> {
    serde_json::from_str(annotation(route, MARK)).ok()
}

fn weights_of(route: &Value) -> Weights {
    let weight = |backend: &Value| backend.get("weight").and_then(Value::as_u64);
    list(route, "/spec/rules").iter().map(|rule| list(rule, "/backendRefs").iter().map(weight).collect()).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the sum of the weights")]
fn shifted(task: &Task<'_>, route: &Value, was: &Weights, share: f64) -> Weights {
    let mut set = was.clone();
    for (rule, weights) in list(route, "/spec/rules").iter().zip(&mut set) {
        let Some(own) = own_backend(rule, task) else { continue };
        // A weight that nobody says is 1.
        let before: Vec<f64> = weights.iter().map(|weight| weight.unwrap_or(1) as f64).collect();
        let sum: f64 = before.iter().sum();
        let others = sum - before[own];
        if others <= 0.0 || before[own] <= 0.0 {
            continue;
        }
        let given = before[own] * share;
        for (index, (weight, before)) in weights.iter_mut().zip(&before).enumerate() {
            let after = if index == own { before - given } else { before + given * before / others };
            *weight = Some((after / sum * WEIGHT_SUM).round() as u64);
        }
    }
    set
}

/// The route's rules with other weights: a merge patch replaces a list as a whole.
fn with_weights(route: &Value, weights: &Weights) -> Vec<Value> {
    let mut rules = list(route, "/spec/rules").to_vec();
    for (rule, weights) in rules.iter_mut().zip(weights) {
        let backends = rule.get_mut("backendRefs").and_then(Value::as_array_mut);
        for (backend, weight) in backends.into_iter().flatten().zip(weights) {
            match weight {
                Some(weight) => backend["weight"] = json!(weight),
                None => drop(backend.as_object_mut().map(|backend| backend.remove("weight"))),
            }
        }
    }
    rules
}

pub(super) async fn confirm(task: &Task<'_>) -> Result<Confirmation, Fault> {
    let routes = routes(task).await?;
    let stands = |id: &str| {
        let of = |route: &Value| {
            mark_of(route).is_some_and(|mark| mark.actions.iter().any(|own| own == id) && mark.set == weights_of(route))
        };
        routes.iter().filter(|route| of(route)).count()
    };
    if let Some(undone) = &task.action.undoes {
        return Ok(if stands(undone) == 0 { Confirmation::Done } else { Confirmation::NeverHeard });
    }
    Ok(match stands(&task.action.id) {
        standing if standing > 0 && standing == routes.len() => Confirmation::Done,
        0 if !task.applied => Confirmation::NeverHeard,
        _ => task.reverted("the weights of its routes"),
    })
}
