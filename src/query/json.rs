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
    let mut text = Backwards::new();
    text.push("\"]");
    push_value(sample.value, &mut text);
    text.push(",\"");
    push_time(sample.at, &mut text);
    text.push("[");
    out.push_str(text.as_str());
}

/// A short text that is written from its end to its beginning, as digits come.
struct Backwards {
    bytes: [u8; 96],
    from: usize,
}

impl Backwards {
    fn new() -> Backwards {
        Backwards { bytes: [b'0'; 96], from: 96 }
    }

    fn push(&mut self, text: &str) {
        let to = self.from;
        self.from -= text.len();
        self.bytes[self.from..to].copy_from_slice(text.as_bytes());
    }

    /// Writes a number with at least `places` digits.
    fn push_digits(&mut self, mut number: u64, places: usize) {
        let filled = self.from - places;
        while number >= 100 {
            let pair = usize::from(low(number % 100)) * 2;
            number /= 100;
            self.from -= 2;
            self.bytes[self.from..self.from + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
        }
        if number >= 10 {
            self.from -= 1;
            self.bytes[self.from] = b'0' + low(number % 10);
            number /= 10;
        }
        if number > 0 {
            self.from -= 1;
            self.bytes[self.from] = b'0' + low(number);
        }
        // What is not written yet is zeros.
        self.from = self.from.min(filled);
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.from..]).expect("texts and digits were written")
    }
}

/// The digits of 00 to 99.
const PAIRS: [u8; 200] = {
    let mut pairs = [b'0'; 200];
    let (mut tens, mut at) = (0, 0);
    while tens < 10 {
        let mut ones = 0;
        while ones < 10 {
            pairs[at] += tens;
            pairs[at + 1] += ones;
            (ones, at) = (ones + 1, at + 2);
        }
        tens += 1;
    }
    pairs
};

fn low(digits: u64) -> u8 {
    u8::try_from(digits).expect("two digits at most")
}

/// A value as [`numbers::format_short`] has it; most are whole numbers of a few digits, or have a few decimals.
fn push_value(value: f64, text: &mut Backwards) {
    match decimal(value) {
        Some((0, _)) if value.is_sign_negative() => text.push("-0"),
        Some((mut whole, mut places)) => {
            while places > 0 && whole % 10 == 0 {
                (whole, places) = (whole / 10, places - 1);
            }
            if places > 0 {
                text.push_digits(whole % 10_u64.pow(places), places as usize);
                text.push(".");
                whole /= 10_u64.pow(places);
            }
            text.push_digits(whole, 1);
            if value < 0.0 {
                text.push("-");
            }
        }
        None => text.push(&numbers::format_short(value)),
    }
}

/// The size of a number of no, three or six decimals, as a whole number of ones, thousandths or millionths, and how many
/// decimals. With at most 15 digits no other decimal is the same number, so that it is the shortest.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be small")]
fn decimal(value: f64) -> Option<(u64, u32)> {
    const WHOLE_MAX: f64 = 1e15;
    let size = value.abs();
    let as_whole = |scale: f64, places: u32| {
        let scaled = size * scale + 0.5;
        let whole = scaled as u64;
        (scaled < WHOLE_MAX && numbers::same(whole as f64 / scale, size)).then_some((whole, places))
    };
    let whole = as_whole(1.0, 0);
    if whole.is_some() || size < 1e-3 { whole } else { as_whole(1e3, 3).or_else(|| as_whole(1e6, 6)) }
}

fn push_time(at: Timestamp, text: &mut Backwards) {
    let (seconds, millis) = (at.0.unsigned_abs() / 1000, at.0.unsigned_abs() % 1000);
    if millis > 0 {
        text.push_digits(millis, 3);
        text.push(".");
    }
    text.push_digits(seconds, 1);
    if at.0 < 0 {
        text.push("-");
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_are_written_as_numbers_are_formatted(
            value in prop_oneof![
                any::<f64>(),
                (any::<i32>(), 0..10_i32).prop_map(|(digits, places)| f64::from(digits) / 10_f64.powi(places)),
                (-2_000_000_000_000_000_i64..2_000_000_000_000_000).prop_map(|digits| digits as f64 / 1000.0),
            ],
            millis in -4_000_000_000_000_i64..4_000_000_000_000,
        ) {
            let mut out = String::new();
            write_sample(Sample { at: Timestamp(millis), value }, &mut out);
            let sign = if millis < 0 { "-" } else { "" };
            let (seconds, rest) = (millis.abs() / 1000, millis.abs() % 1000);
            let rest = if rest == 0 { String::new() } else { format!(".{rest:03}") };
            prop_assert_eq!(out, format!("[{sign}{seconds}{rest},\"{}\"]", numbers::format_short(value)));
        }
    }
}
