//! Whether two answers are the same: values to 1e-9, everything else exactly, in the order that Prometheus defines.

use serde_json::Value;

/// The greatest relative difference between two values that are the same.
const TOLERANCE: f64 = 1e-9;

/// What an answer must say in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The series of a vector may come in any.
    Any,
    /// That of the values.
    Values,
}

/// What of the order counts for an expression: `sort` and its like order an instant vector.
pub(super) fn order_of(text: &str) -> Order {
    let sorts = ["sort(", "sort_desc(", "sort_by_label(", "sort_by_label_desc(", "topk (", "bottomk ("];
    if sorts.iter().any(|name| text.starts_with(name)) { Order::Values } else { Order::Any }
}

/// The first difference between what Prometheus and we answer (each a status and a body), in words.
pub(super) fn difference(theirs: &(u16, Value), ours: &(u16, Value), order: Order) -> Option<String> {
    if theirs.0 != ours.0 {
        return Some(format!("status {} and {}", theirs.0, ours.0));
    }
    let (theirs, ours) = (&theirs.1, &ours.1);
    for field in ["status", "errorType"] {
        if theirs[field] != ours[field] {
            return Some(format!("{field}: {} and {}", theirs[field], ours[field]));
        }
    }
    let (their_error, our_error) = (error(&theirs["error"]), error(&ours["error"]));
    if their_error != our_error {
        return Some(format!("error: {their_error:?} and {our_error:?}"));
    }
    for field in ["warnings", "infos"] {
        let (theirs, ours) = (notes(&theirs[field]), notes(&ours[field]));
        // Of more than ten Prometheus tells any ten.
        let is_cut = |notes: &[String]| notes.iter().any(|note| note.ends_with("annotations omitted"));
        if theirs != ours && !(is_cut(&theirs) && is_cut(&ours)) {
            return Some(format!("{field}: {theirs:?} and {ours:?}"));
        }
    }
    let (theirs, ours) = (&theirs["data"], &ours["data"]);
    if theirs["resultType"] != ours["resultType"] {
        return Some(format!("resultType: {} and {}", theirs["resultType"], ours["resultType"]));
    }
    let (theirs, ours) = (&theirs["result"], &ours["result"]);
    match theirs_or(theirs, ours) {
        Some(("vector", theirs, ours)) => vectors(theirs, ours, order),
        Some((_, theirs, ours)) => matrices(theirs, ours),
        None => sample(theirs, ours),
    }
}

/// Which element of a vector is told of in an error depends on the order of series, which nobody defines.
fn error(value: &Value) -> String {
    let text = value.as_str().unwrap_or("");
    let kinds = ["found duplicate series for", "multiple matches for labels"];
    kinds.iter().find(|kind| text.contains(**kind)).map_or_else(|| text.to_owned(), |_| "matching".to_owned())
}

/// Lists of series, and whether they are vectors or matrices; nothing where they are a scalar or a text.
fn theirs_or<'a>(theirs: &'a Value, ours: &'a Value) -> Option<(&'static str, &'a [Value], &'a [Value])> {
    let (theirs, ours) = (theirs.as_array()?, ours.as_array()?);
    match theirs.first().or(ours.first()) {
        Some(first) if first.get("value").is_some() => Some(("vector", theirs, ours)),
        Some(first) if first.get("values").is_some() => Some(("matrix", theirs, ours)),
        Some(_) => None,
        None => Some(("vector", theirs, ours)),
    }
}

/// Warnings or infos in order. A number in them is rounded: that of a power may differ in its last digit.
fn notes(value: &Value) -> Vec<String> {
    let round = |text: &str| match text.split_once(", got ") {
        Some((head, tail)) => {
            let (number, place) = tail.split_once(' ').unwrap_or((tail, ""));
            let number = number.parse::<f64>().map_or(number.to_owned(), |number| format!("{number:.9e}"));
            format!("{head}, got {number} {place}")
        }
        None => text.to_owned(),
    };
    let mut texts: Vec<String> = value.as_array().into_iter().flatten().filter_map(Value::as_str).map(round).collect();
    texts.sort_unstable();
    texts
}

fn vectors(theirs: &[Value], ours: &[Value], order: Order) -> Option<String> {
    if theirs.len() != ours.len() {
        return Some(format!("{} and {} series", theirs.len(), ours.len()));
    }
    if order == Order::Values {
        for (their, our) in theirs.iter().zip(ours) {
            if let Some(difference) = sample(&their["value"], &our["value"]) {
                return Some(format!("order: {difference}"));
            }
        }
    }
    let key = |series: &Value| series["metric"].to_string();
    let (mut theirs, mut ours): (Vec<&Value>, Vec<&Value>) = (theirs.iter().collect(), ours.iter().collect());
    theirs.sort_by_key(|series| key(series));
    ours.sort_by_key(|series| key(series));
    theirs.iter().zip(&ours).find_map(|(their, our)| {
        if their["metric"] != our["metric"] {
            return Some(format!("series {} and {}", their["metric"], our["metric"]));
        }
        sample(&their["value"], &our["value"]).map(|difference| format!("{}: {difference}", their["metric"]))
    })
}

fn matrices(theirs: &[Value], ours: &[Value]) -> Option<String> {
    if theirs.len() != ours.len() {
        return Some(format!("{} and {} series", theirs.len(), ours.len()));
    }
    theirs.iter().zip(ours).find_map(|(their, our)| {
        if their["metric"] != our["metric"] {
            return Some(format!("series {} and {}", their["metric"], our["metric"]));
        }
        let (theirs, ours) = (their["values"].as_array()?, our["values"].as_array()?);
        if theirs.len() != ours.len() {
            return Some(format!("{}: {} and {} values", their["metric"], theirs.len(), ours.len()));
        }
        let found = theirs.iter().zip(ours).find_map(|(their, our)| sample(their, our));
        found.map(|difference| format!("{}: {difference}", their["metric"]))
    })
}

/// `[time, "value"]`
fn sample(their: &Value, our: &Value) -> Option<String> {
    let same = their[0] == our[0] && same_value(their[1].as_str()?, our[1].as_str().unwrap_or("missing"));
    (!same).then(|| format!("{their} and {our}"))
}

fn same_value(their: &str, our: &str) -> bool {
    if their == our {
        return true;
    }
    match (their.parse::<f64>(), our.parse::<f64>()) {
        (Ok(a), Ok(b)) => {
            (a.is_nan() && b.is_nan()) || a.total_cmp(&b).is_eq() || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
        }
        _ => false,
    }
}
