//! The words that all modules share: time in milliseconds, labels, samples, components.
//!
//! Nothing here knows of files, sockets or clocks. Times are milliseconds since the Unix epoch, as in
//! Prometheus's remote write.

use std::fmt;
use std::ops::{Add, Div, Mul, Sub};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// The bits of the NaN by which Prometheus says that a series has ended (`model/value/value.go`, `StaleNaN`).
pub const STALE_MARKER_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// Whether a value is the stale marker: this NaN and no other.
pub fn is_stale_marker(value: f64) -> bool {
    value.to_bits() == STALE_MARKER_BITS
}

/// A moment, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment `seconds` after the Unix epoch.
    pub const fn from_secs(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    /// Seconds since the Unix epoch, with the milliseconds as a fraction.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The latest multiple of `step` (counted from the epoch) that is not after this moment.
    pub fn align_down(self, step: Millis) -> Timestamp {
        assert!(step.0 > 0, "a step must be positive: {step}");
        Timestamp(self.0.div_euclid(step.0) * step.0)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds; the bare number where the calendar does not reach.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl Add<Millis> for Timestamp {
    type Output = Timestamp;
    fn add(self, span: Millis) -> Timestamp {
        Timestamp(self.0.saturating_add(span.0))
    }
}

impl Sub<Millis> for Timestamp {
    type Output = Timestamp;
    fn sub(self, span: Millis) -> Timestamp {
        Timestamp(self.0.saturating_sub(span.0))
    }
}

impl Sub for Timestamp {
    type Output = Millis;
    fn sub(self, earlier: Timestamp) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// A length of time in milliseconds; negative where a difference is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// No time at all.
    pub const ZERO: Millis = Millis(0);
    /// One second.
    pub const SECOND: Millis = Millis(1000);
    /// One minute.
    pub const MINUTE: Millis = Millis(60_000);
    /// One hour.
    pub const HOUR: Millis = Millis(3_600_000);
    /// One day of 24 hours.
    pub const DAY: Millis = Millis(86_400_000);

    /// A length of whole seconds.
    pub const fn from_secs(seconds: i64) -> Millis {
        Millis(seconds * 1000)
    }

    /// The length in seconds, with a fraction.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The length as the standard library has it; nothing where it is negative.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(u64::try_from(self.0).unwrap_or(0))
    }

    /// Reads a duration in PromQL's form: `5m`, `1h30m`, `250ms`, `2w`; units fall from `y` to `ms`, each at most once.
    ///
    /// # Errors
    /// Says what is wrong with the text and what a duration looks like.
    pub fn parse(text: &str) -> Result<Millis, DurationError> {
        const UNITS: [(&str, i64); 7] = [
            ("y", 365 * Millis::DAY.0),
            ("w", 7 * Millis::DAY.0),
            ("d", Millis::DAY.0),
            ("h", Millis::HOUR.0),
            ("m", Millis::MINUTE.0),
            ("s", Millis::SECOND.0),
            ("ms", 1),
        ];
        let wrong = || DurationError { text: text.chars().take(40).collect() };
        if text == "0" {
            return Ok(Millis::ZERO);
        }
        let mut rest = text;
        let mut total: i64 = 0;
        let mut units_left = &UNITS[..];
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: i64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let index = units_left.iter().position(|(unit, _)| *unit == &rest[..letters]).ok_or_else(wrong)?;
            total = number.checked_mul(units_left[index].1).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
            units_left = &units_left[index + 1..];
            rest = &rest[letters..];
        }
        if text.is_empty() { Err(wrong()) } else { Ok(Millis(total)) }
    }
}

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration; write it as in PromQL: 30s, 5m, 1h30m, 7d")]
pub struct DurationError {
    text: String,
}

impl fmt::Display for Millis {
    /// PromQL's form, largest unit first: `1h30m`; zero is `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let mut rest = self.0.unsigned_abs();
        for (unit, millis) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            let count = rest / millis;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest %= millis;
            }
        }
        Ok(())
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        match text.strip_prefix('-') {
            Some(positive) => Millis::parse(positive).map(|m| Millis(-m.0)),
            None if text == "0s" => Ok(Millis::ZERO),
            None => Millis::parse(&text),
        }
        .map_err(serde::de::Error::custom)
    }
}

impl Add for Millis {
    type Output = Millis;
    fn add(self, other: Millis) -> Millis {
        Millis(self.0.saturating_add(other.0))
    }
}

impl Sub for Millis {
    type Output = Millis;
    fn sub(self, other: Millis) -> Millis {
        Millis(self.0.saturating_sub(other.0))
    }
}

impl Mul<i64> for Millis {
    type Output = Millis;
    fn mul(self, times: i64) -> Millis {
        Millis(self.0.saturating_mul(times))
    }
}

impl Div<i64> for Millis {
    type Output = Millis;
    fn div(self, parts: i64) -> Millis {
        Millis(self.0 / parts)
    }
}

/// One value of a series at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was measured.
    pub at: Timestamp,
    /// What was measured; any bit pattern, the stale marker too.
    pub value: f64,
}

/// The labels of a series, its metric name among them as `__name__`. Cheap to clone.
///
/// Invariant: sorted by name (bytewise), each name at most once, no empty value (an empty value means that the label is absent).
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// Labels from pairs in any order. Empty values are left out; of two pairs with one name the last stays.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Labels {
        let map: std::collections::BTreeMap<Arc<str>, Arc<str>> =
            pairs.into_iter().map(|(name, value)| (Arc::from(name.as_ref()), Arc::from(value.as_ref()))).collect();
        Labels::from_sorted(map.into_iter().collect())
    }

    /// Labels from pairs that are sorted by name and unique already; empty values are left out.
    pub fn from_sorted(mut pairs: Vec<(Arc<str>, Arc<str>)>) -> Labels {
        assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0), "labels must be sorted and unique: {pairs:?}");
        pairs.retain(|(_, value)| !value.is_empty());
        Labels(pairs.into())
    }

    /// The value of a label, if the series has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.binary_search_by(|(n, _)| (**n).cmp(name)).ok().map(|index| &*self.0[index].1)
    }

    /// The metric name; empty where there is none.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    /// All pairs, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The shared texts of all pairs, by name: for building other labels without copying.
    pub fn pairs(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.0
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These labels with one added or replaced; an empty value removes it.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Labels {
        let mut pairs: Vec<_> = self.0.iter().filter(|(n, _)| &**n != name).cloned().collect();
        let index = pairs.partition_point(|(n, _)| &**n < name);
        pairs.insert(index, (Arc::from(name), Arc::from(value)));
        Labels::from_sorted(pairs)
    }

    /// These labels without those for which `drop` says yes.
    #[must_use]
    pub fn without(&self, drop: impl Fn(&str) -> bool) -> Labels {
        Labels(self.0.iter().filter(|(name, _)| !drop(name)).cloned().collect())
    }
}

impl fmt::Display for Labels {
    /// As in PromQL: `up{job="api"}`, values quoted with escapes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.metric_name())?;
        let mut rest = self.iter().filter(|(name, _)| *name != METRIC_NAME).peekable();
        if rest.peek().is_none() && !self.metric_name().is_empty() {
            return Ok(());
        }
        f.write_str("{")?;
        while let Some((name, value)) = rest.next() {
            write!(f, "{name}={value:?}")?;
            if rest.peek().is_some() {
                f.write_str(", ")?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
        let map = std::collections::BTreeMap::<String, String>::deserialize(deserializer)?;
        Ok(Labels::new(map))
    }
}

/// What can fail and be given resources: a kind and the values of the labels that tell one from another.
///
/// Written `deployment/shop/checkout`: the kind, then the values in the order in which the rule names the labels.
/// A `/` or `%` inside a value is written `%2F`, `%25`, so that two components never share a name; so are characters that
/// would break a line, move a terminal's cursor or turn the direction of writing: a name is one line wherever it is shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ComponentId {
    /// What sort of thing it is: `deployment`, `node`, `asg`, `queue`, …
    pub kind: String,
    /// Label names and values, in the rule's order.
    pub labels: Vec<(String, String)>,
}

impl ComponentId {
    /// The component of a series: its values of the labels `by`; an absent label counts as empty. Of a value of more than
    /// 1 KiB the beginning stands with a hash of the whole.
    pub fn of(kind: &str, by: &[String], labels: &Labels) -> ComponentId {
        let labels = by.iter().map(|name| (name.clone(), shortened(labels.get(name).unwrap_or("")))).collect();
        ComponentId { kind: kind.to_owned(), labels }
    }

    /// The value of one of its labels.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for ComponentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        for (_, value) in &self.labels {
            f.write_str("/")?;
            write_escaped(f, value)?;
        }
        Ok(())
    }
}

/// Longer values of a component's labels are shortened, in bytes.
const COMPONENT_VALUE_BYTES_MAX: usize = 1024;

fn shortened(value: &str) -> String {
    if value.len() <= COMPONENT_VALUE_BYTES_MAX {
        return value.to_owned();
    }
    let digest = Sha256::digest(value.as_bytes());
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let end = (0..=COMPONENT_VALUE_BYTES_MAX - hash.len() - 3).rev().find(|end| value.is_char_boundary(*end));
    format!("{}…{hash}", &value[..end.unwrap_or(0)])
}

fn write_escaped(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    // Hardly any value needs it, and names are written often.
    if value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'/')) {
        return f.write_str(value);
    }
    let is_special = |c: char| {
        let turns_writing = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        matches!(c, '%' | '/') || c.is_control() || turns_writing
    };
    for part in value.split_inclusive(is_special) {
        let special = part.chars().next_back().filter(|c| is_special(*c));
        let plain = &part[..part.len() - special.map_or(0, char::len_utf8)];
        f.write_str(plain)?;
        for byte in part[plain.len()..].bytes() {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_durations_as_promql_does() {
        for (text, millis) in [("5m", 300_000), ("1h30m", 5_400_000), ("250ms", 250), ("0", 0), ("1d", 86_400_000)] {
            assert_eq!(Millis::parse(text), Ok(Millis(millis)), "{text}");
        }
        for wrong in ["", "5", "m", "5m1h", "1h1h", "-5m", "5 m", "99999999999y", "1.5h"] {
            assert!(Millis::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Millis(5_400_000).to_string(), "1h30m");
        assert_eq!(Millis::parse(&Millis(93_784_005).to_string()), Ok(Millis(93_784_005)));
    }

    #[test]
    fn labels_are_sorted_unique_and_never_empty() {
        let labels = Labels::new([("job", "a"), ("__name__", "up"), ("zone", ""), ("job", "b")]);
        assert_eq!(labels.to_string(), r#"up{job="b"}"#);
        assert_eq!(labels.with("job", "").to_string(), "up");
        assert_eq!(labels.with("a", "1").get("a"), Some("1"));
    }

    #[test]
    fn a_component_keeps_slashes_in_values_apart() {
        let by = ["namespace".to_owned(), "deployment".to_owned()];
        let id = ComponentId::of("deployment", &by, &Labels::new([("namespace", "a/b"), ("deployment", "c")]));
        assert_eq!(id.to_string(), "deployment/a%2Fb/c");
    }

    #[test]
    fn a_component_s_name_is_one_line_of_bounded_length() {
        let of = |value: &str| ComponentId::of("app", &["job".to_owned()], &Labels::new([("job", value)]));
        for (value, name) in [
            ("a\nb", "app/a%0Ab"),
            ("\u{1b}[31mred", "app/%1B[31mred"),
            ("100%/day", "app/100%25%2Fday"),
            ("a\u{202e}b\u{85}", "app/a%E2%80%AEb%C2%85"),
            ("<b>ü</b>", "app/<b>ü<%2Fb>"),
        ] {
            assert_eq!(of(value).to_string(), name, "{value:?}");
        }
        let long = "ü".repeat(1 << 19);
        let (one, other) = (of(&long), of(&format!("{long}x")));
        assert_ne!(one, other, "what is cut off tells them apart all the same");
        assert!(one.labels[0].1.len() <= 1024 && one.labels[0].1.starts_with("üü"), "{} bytes", one.labels[0].1.len());
        assert_eq!(of(&"x".repeat(1024)).labels[0].1, "x".repeat(1024));
    }

    #[test]
    fn aligns_times_before_the_epoch_downwards_too() {
        assert_eq!(Timestamp(-1).align_down(Millis(1000)), Timestamp(-1000));
        assert_eq!(Timestamp(1999).align_down(Millis(1000)), Timestamp(1000));
    }
}
