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
    write_value(sample.value, out);
    out.push_str("\"]");
}

/// A value as [`numbers::format_short`] has it; most are whole numbers of a few digits.
#[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
fn write_value(value: f64, out: &mut String) {
    const WHOLE_MAX: f64 = 1e15;
    if value.abs() < WHOLE_MAX && numbers::same(value.trunc(), value) && !(value.is_sign_negative() && value > -1.0) {
        write_whole(value as i64, out);
    } else if let Some((whole, scale)) = decimal(value) {
        write_decimal(whole, scale, out);
    } else if value.is_finite() && (1e-6..1e21).contains(&value.abs()) {
        write!(out, "{value}").expect("writing to a string cannot fail");
    } else {
        out.push_str(&numbers::format_short(value));
    }
}

/// A number of few decimals as a whole number of thousandths or millionths. With at most 15 digits no other decimal is the
/// same number, so that it is the shortest.
#[expect(clippy::cast_possible_truncation, reason = "checked to be small")]
fn decimal(value: f64) -> Option<(i64, i64)> {
    const WHOLE_MAX: f64 = 1e15;
    let as_whole = |scale: i64| {
        let whole = (value * scale as f64).round();
        let is_same = whole.abs() < WHOLE_MAX && numbers::same(whole / scale as f64, value);
        is_same.then_some((whole as i64, scale))
    };
    if value.abs() < 1e-3 { None } else { as_whole(1000).or_else(|| as_whole(1_000_000)) }
}

fn write_decimal(whole: i64, scale: i64, out: &mut String) {
    if whole < 0 {
        out.push('-');
    }
    let (whole, scale) = (whole.abs(), scale);
    write_whole(whole / scale, out);
    out.push('.');
    let (mut rest, mut place) = (whole % scale, scale / 10);
    while rest > 0 {
        write_whole(rest / place, out);
        (rest, place) = (rest % place, place / 10);
    }
}

fn write_whole(number: i64, out: &mut String) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push('-');
    }
    out.push_str(std::str::from_utf8(&digits[at..]).expect("digits are ASCII"));
}

fn write_time(at: Timestamp, out: &mut String) {
    let (seconds, millis) = (at.0.unsigned_abs() / 1000, at.0.unsigned_abs() % 1000);
    if at.0 < 0 {
        out.push('-');
    }
    write_whole(i64::try_from(seconds).expect("a thousandth of an i64"), out);
    if millis > 0 {
        write!(out, ".{millis:03}").expect("writing to a string cannot fail");
    }
}

fn write_text(text: &str, out: &mut String) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
        return;
    }
    out.push_str(&serde_json::to_string(text).expect("a text is always valid JSON"));
}
