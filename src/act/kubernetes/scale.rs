//! Replicas: the least that an autoscaler keeps, where there is one; else the scale subresource.
//!
//! The scale subresource keeps no annotation, so what is ours there is known by the value alone: it is changed only from
//! what the plan saw to what it wants. An autoscaler's `minReplicas` keeps a mark that remembers what was there before, one
//! for each action that stands; given back is what the last one found. Where somebody else has changed the value, theirs stays.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cluster::{Call, Fault, annotation, count, list, text};
use super::workload::{WorkloadKind, autoscaler, kind_of};
use super::{CONFLICTS_MAX, Step, Task};
use crate::act::Confirmation;

/// What we set on an autoscaler, the first action first.
const MARK: &str = "forestall.io/min-replicas";

/// One action's change of an autoscaler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    action: String,
    /// What was there before; absent where nothing was.
    was: Option<u32>,
    set: u32,
}

pub(super) async fn apply(task: &Task<'_>, from: u32, to: u32) -> Result<Step, Fault> {
    let kind = kind_of(task)?;
    if to == 0 {
        return Err(Fault::Refused(format!("{}: no replica at all would switch its autoscaling off", task.subject())));
    }
    for _ in 0..CONFLICTS_MAX {
        // Its version is the one that the scale subresource shows, and confirming takes the same right.
        let workload = kind.read(task).await?;
        let now = count(&workload, "/spec/replicas", 1);
        if now == 0 {
            let words = "it has no replicas: somebody switched it off, and with it any autoscaler";
            return Err(Fault::Refused(format!("{}: {words}", task.subject())));
        }
        let written = match autoscaler(task, kind).await? {
            Some(hpa) => through_autoscaler(task, kind, &workload, &hpa, from, to).await,
            None => directly(task, kind, &workload, now, from, to).await,
        };
        match written {
            Err(Fault::Conflict(_)) => {}
            written => return written,
        }
    }
    Err(Fault::Conflict(format!("{} changed again and again while it was written", task.subject())))
}

/// Sets the replicas themselves, if they are still what the plan saw.
async fn directly(
    task: &Task<'_>,
    kind: WorkloadKind,
    workload: &Value,
    now: u32,
    from: u32,
    to: u32,
) -> Result<Step, Fault> {
    if now == to {
        // After an answer that was lost it is what we set.
        return Ok(if task.attempt > 1 { Step::already_ours() } else { Step::unchanged() });
    }
    if now != from {
        return Err(task.not_owner(&format!("it has {now} replicas, and the plan saw {from}")));
    }
    let patch = json!({
        "metadata": { "resourceVersion": text(workload, "/metadata/resourceVersion") },
        "spec": { "replicas": to },
    });
    let path = format!("{}/scale", kind.path(task));
    task.cluster.call(&Call::merge(path, patch, &format!("patch {}/scale", kind.plural))).await?;
    Ok(Step::written(kind.regarding(task, text(workload, "/metadata/uid"))))
}

async fn through_autoscaler(
    task: &Task<'_>,
    kind: WorkloadKind,
    workload: &Value,
    hpa: &Value,
    from: u32,
    to: u32,
) -> Result<Step, Fault> {
    let marks = marks_of(hpa);
    let min = hpa.pointer("/spec/minReplicas").and_then(Value::as_u64).and_then(|min| u32::try_from(min).ok());
    let wanted = match &task.action.undoes {
        Some(undone) => given_back(min, &marks, undone),
        None if to < from => {
            let name = text(hpa, "/metadata/name");
            let words = format!("its autoscaler {name} keeps its replicas: what is taken would be back at once");
            return Err(Fault::Refused(format!("{}: {words}", task.subject())));
        }
        None => raised(task, hpa, min, marks, to)?,
    };
    let (min, marks) = match wanted {
        Wanted::Nothing(step) => return Ok(step),
        Wanted::Write(min, marks) => (min, marks),
    };
    let mark = if marks.is_empty() { Value::Null } else { json!(serde_json::to_string(&marks).unwrap_or_default()) };
    let patch = json!({
        "metadata": {
            "resourceVersion": text(hpa, "/metadata/resourceVersion"),
            "annotations": { MARK: mark },
        },
        "spec": { "minReplicas": min },
    });
    let name = text(hpa, "/metadata/name");
    let path = format!("/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers/{name}", task.namespace());
    task.cluster.call(&Call::merge(path, patch, "patch horizontalpodautoscalers.autoscaling")).await?;
    Ok(Step::written(kind.regarding(task, text(workload, "/metadata/uid"))))
}

/// What to make of an autoscaler.
enum Wanted {
    Nothing(Step),
    /// This `minReplicas` (none: as if nobody had said any), and these marks.
    Write(Option<u32>, Vec<Mark>),
}

fn marks_of(hpa: &Value) -> Vec<Mark> {
    serde_json::from_str(annotation(hpa, MARK)).unwrap_or_default()
}

fn raised(task: &Task<'_>, hpa: &Value, min: Option<u32>, mut marks: Vec<Mark>, to: u32) -> Result<Wanted, Fault> {
    if marks.iter().any(|mark| mark.action == task.action.id) {
        return Ok(Wanted::Nothing(Step::already_ours()));
    }
    let max = count(hpa, "/spec/maxReplicas", 1);
    let set = to.min(max);
    if min.unwrap_or(1) >= set {
        if set < to {
            let name = text(hpa, "/metadata/name");
            let words = format!("its autoscaler {name} keeps {set} already and allows no more");
            return Err(Fault::Insufficient(format!("{}: {words}", task.subject())));
        }
        return Ok(Wanted::Nothing(Step::unchanged()));
    }
    if marks.last().is_some_and(|last| min != Some(last.set)) {
        // Somebody else has set it since: what was before that is over.
        marks.clear();
    }
    marks.push(Mark { action: task.action.id.clone(), was: min, set });
    Ok(Wanted::Write(Some(set), marks))
}

fn given_back(min: Option<u32>, marks: &[Mark], undone: &str) -> Wanted {
    let Some(own) = marks.iter().position(|mark| mark.action == undone) else {
        return Wanted::Nothing(Step::unchanged());
    };
    if min != marks.last().map(|last| last.set) {
        // A person's value stays, and nothing is written.
        return Wanted::Nothing(Step::unchanged());
    }
    let mut rest = marks.to_vec();
    let gone = rest.remove(own);
    match rest.get_mut(own) {
        // Another action of ours stands on it: it keeps what it set, and finds what this one had found.
        Some(next) => {
            next.was = gone.was;
            Wanted::Write(min, rest)
        }
        None => Wanted::Write(gone.was, rest),
    }
}

pub(super) async fn confirm(task: &Task<'_>, from: u32, to: u32) -> Result<Confirmation, Fault> {
    let kind = kind_of(task)?;
    let workload = kind.read(task).await?;
    let hpa = autoscaler(task, kind).await?;
    let wanted = match &hpa {
        None => match count(&workload, "/spec/replicas", 1) {
            now if now == to => to,
            now if task.applied => return Ok(task.reverted(&format!("replicas {to} (now {now})"))),
            now if now == from => return Ok(Confirmation::NeverHeard),
            now => {
                let words = format!("{}: it has {now} replicas, and {to} were to be set", task.subject());
                return Ok(Confirmation::Failed(format!("{words}: somebody else changed it, and theirs stays")));
            }
        },
        Some(hpa) => match standing(task, hpa) {
            Standing::Set(set) => set,
            Standing::Otherwise(confirmation) => return Ok(confirmation),
        },
    };
    Ok(seen(task, &workload, wanted, hpa.is_some() || to > from))
}

enum Standing {
    /// Our mark stands, with so many at least.
    Set(u32),
    Otherwise(Confirmation),
}

fn standing(task: &Task<'_>, hpa: &Value) -> Standing {
    let marks = marks_of(hpa);
    let min = hpa.pointer("/spec/minReplicas").and_then(Value::as_u64);
    if let Some(undone) = &task.action.undoes {
        let stands = marks.iter().any(|mark| mark.action == *undone);
        return Standing::Otherwise(if stands { Confirmation::NeverHeard } else { Confirmation::Done });
    }
    match marks.iter().position(|mark| mark.action == task.action.id) {
        Some(own) if min.is_some_and(|min| min >= u64::from(marks[own].set)) => Standing::Set(marks[own].set),
        None if !task.applied => Standing::Otherwise(Confirmation::NeverHeard),
        _ => Standing::Otherwise(task.reverted("minReplicas")),
    }
}

/// Whether so many replicas can be seen: ready ones, or, where some were to go, no more than that.
fn seen(task: &Task<'_>, workload: &Value, wanted: u32, grows: bool) -> Confirmation {
    let observed = count(workload, "/status/observedGeneration", 0);
    if observed < count(workload, "/metadata/generation", 0) {
        return Confirmation::Pending;
    }
    let (there, ready) = (count(workload, "/status/replicas", 0), count(workload, "/status/readyReplicas", 0));
    let done = if grows { ready >= wanted } else { there <= wanted };
    if done {
        return Confirmation::Done;
    }
    let failure = list(workload, "/status/conditions")
        .iter()
        .find(|condition| text(condition, "/type") == "ReplicaFailure" && text(condition, "/status") == "True");
    if let Some(failure) = failure.filter(|_| grows) {
        let words = super::super::cut(text(failure, "/message"), 300);
        return Confirmation::Insufficient(format!("{there} of {wanted} replicas could be made: {words}"));
    }
    if grows && task.is_overdue() {
        return Confirmation::Insufficient(format!(
            "{ready} of {wanted} replicas are ready after {}: there may be no node for the rest",
            task.settings.confirm_within
        ));
    }
    Confirmation::Pending
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(action: &str, was: Option<u32>, set: u32) -> Mark {
        Mark { action: action.to_owned(), was, set }
    }

    fn words(wanted: &Wanted) -> String {
        match wanted {
            Wanted::Nothing(_) => "nothing".to_owned(),
            Wanted::Write(min, marks) => {
                let marks: Vec<String> = marks.iter().map(|m| format!("{}:{:?}>{}", m.action, m.was, m.set)).collect();
                format!("{min:?} [{}]", marks.join(" "))
            }
        }
    }

    #[test]
    fn gives_back_what_was_there_and_leaves_what_others_set() {
        let check = |min: Option<u32>, marks: &[Mark], undone: &str, wanted: &str| {
            assert_eq!(words(&given_back(min, marks, undone)), wanted, "{min:?} {marks:?} {undone}");
        };
        check(Some(5), &[mark("a", Some(2), 5)], "a", "Some(2) []");
        check(Some(5), &[mark("a", None, 5)], "a", "None []");
        // A person raised or lowered it.
        check(Some(6), &[mark("a", Some(2), 5)], "a", "nothing");
        check(Some(3), &[mark("a", Some(2), 5)], "a", "nothing");
        check(None, &[mark("a", Some(2), 5)], "a", "nothing");
        // Not ours, or given back already.
        check(Some(5), &[], "a", "nothing");
        check(Some(5), &[mark("b", Some(2), 5)], "a", "nothing");
        // Two that stand on one another, the last first or the first first.
        let both = [mark("a", Some(2), 5), mark("b", Some(5), 8)];
        check(Some(8), &both, "b", "Some(5) [a:Some(2)>5]");
        check(Some(8), &both, "a", "Some(8) [b:Some(2)>8]");
    }
}
