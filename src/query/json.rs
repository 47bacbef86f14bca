//! Answers in the form of Prometheus's HTTP API: the object `data` with `resultType` and `result`.

use std::fmt::Write as _;

use crate::model::{Labels, Sample, Timestamp};

use super::{Answer, Value, numbers};

/// Appends the `data` object of an answer: `{"resultType":"vector","result":[…]}`.
///
/// Numbers are strings as Prometheus writes them, with `NaN`, `+Inf` and `-Inf`, the very small and very large of a vector or
/// matrix with an exponent; times are seconds with milliseconds where there are any. Warnings and infos are not in `data`.
pub fn write_answer(answer: &Answer, out: &mut String) {
    out.push_str("{\"resultType\":\"");
    out.push_str(match answer.value {
        Value::Scalar(_) => "scalar",
        Value::String(..) => "string",
        Value::Vector(_) => "vector",
        Value::Matrix(_) => "matrix",
    });
    out.push_str("\",\"result\":");
    match &answer.value {
        Value::Scalar(sample) => write_single(sample.at, &numbers::format(sample.value), out),
        Value::String(at, text) => write_single(*at, text, out),
        Value::Vector(elements) => write_list(elements, out, |element, out| {
            write_metric(&element.labels, out);
            out.push_str(",\"value\":");
            write_sample(element.sample, out);
            out.push('}');
        }),
        Value::Matrix(all) => write_list(all, out, |series, out| {
            write_metric(&series.labels, out);
            out.push_str(",\"values\":");
            write_list(&series.samples, out, |sample, out| write_sample(*sample, out));
            out.push('}');
        }),
    }
    out.push('}');
}

fn write_list<T>(items: &[T], out: &mut String, write: impl Fn(&T, &mut String)) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(']');
}

/// Opens an object and writes its `metric`.
fn write_metric(labels: &Labels, out: &mut String) {
    out.push_str("{\"metric\":{");
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_text(name, out);
        out.push(':');
        write_text(value, out);
    }
    out.push('}');
}

/// A scalar or a string. Prometheus writes these by another way than samples: plain decimals, and no zeros at a time's end.
fn write_single(at: Timestamp, text: &str, out: &mut String) {
    write!(out, "[{},", at.as_secs_f64()).expect("writing to a string cannot fail");
    write_text(text, out);
    out.push(']');
}

fn write_sample(sample: Sample, out: &mut String) {
    out.push('[');
    write_time(sample.at, out);
    out.push_str(",\"");
    out.push_str(&numbers::format_short(sample.value));
    out.push_str("\"]");
}

fn write_time(at: Timestamp, out: &mut String) {
    let (seconds, millis) = (at.0.unsigned_abs() / 1000, at.0.unsigned_abs() % 1000);
    let sign = if at.0 < 0 { "-" } else { "" };
    let written = match millis {
        0 => write!(out, "{sign}{seconds}"),
        _ => write!(out, "{sign}{seconds}.{millis:03}"),
    };
    written.expect("writing to a string cannot fail");
}

fn write_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::to_string(text).expect("a text is always valid JSON"));
}
