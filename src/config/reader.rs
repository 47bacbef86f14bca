//! Typed reading of the tree: each method notes what is wrong and answers nothing, so that reading goes on.

use std::rc::Rc;

use crate::health::NumberOrQuery;
use crate::model::Millis;
use crate::query::Query;
use crate::store::Matcher;

use super::problem::Report;
use super::tree::{Key, Kind, Node, Place};

/// The longest name, label value or other short text, in bytes.
const TEXT_BYTES_MAX: usize = 2048;
/// The longest expression, in bytes.
const EXPRESSION_BYTES_MAX: usize = 16 << 10;
/// The longest duration: what is longer is a slip of the pen.
const DURATION_MAX: Millis = Millis(10 * 365 * Millis::DAY.0);

/// The entries of a mapping whose keys have been checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    /// Where the mapping begins.
    pub(super) at: Place,
    entries: &'a [(Key, Rc<Node>)],
}

impl<'a> Fields<'a> {
    /// The value of a key; nothing where the key is absent or has no value.
    pub(super) fn get(self, key: &str) -> Option<&'a Node> {
        self.get_any(key).filter(|node| !matches!(node.kind, Kind::Null))
    }

    /// The value of a key, be it empty.
    pub(super) fn get_any(self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(known, _)| known.text == key).map(|(_, node)| &**node)
    }

    /// Where a key stands.
    pub(super) fn key_at(self, key: &str) -> Option<Place> {
        self.entries.iter().find(|(known, _)| known.text == key).map(|(known, _)| known.at)
    }

    /// All entries in the order of the file.
    pub(super) fn entries(self) -> impl Iterator<Item = (&'a Key, &'a Node)> {
        self.entries.iter().map(|(key, node)| (key, &**node))
    }
}

/// Whether a field that there is not looks as if its value were a secret, which must not be shown.
fn may_be_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let speaks_of_secrets =
        ["secret", "token", "password", "credential", "hmac", "bearer"].iter().any(|w| key.contains(w));
    speaks_of_secrets && !key.contains("file")
}

/// What a node is, for people.
fn kind_name(node: &Node) -> &'static str {
    match &node.kind {
        Kind::Null => "nothing",
        Kind::Scalar { text, plain: true } if text.parse::<f64>().is_ok() => "a number",
        Kind::Scalar { .. } => "a text",
        Kind::List(_) => "a list",
        Kind::Map(_) => "a mapping",
    }
}

impl Report {
    fn wrong_type(&mut self, node: &Node, expected: &str) {
        let message = format!("expected {expected}, found {}", kind_name(node));
        self.error(node.at, "config/wrong-type", message, format!("write {expected} here"));
    }

    /// A mapping with these keys and no others. `what` names it: "a policy". An empty node is an empty mapping.
    pub(super) fn fields<'a>(&mut self, node: &'a Node, what: &str, known: &[&str]) -> Option<Fields<'a>> {
        let fields = self.mapping(node, what)?;
        for (key, value) in fields.entries() {
            if known.contains(&key.text.as_str()) {
                continue;
            }
            let mut help = suggestion(&key.text, known);
            if may_be_secret(&key.text) && matches!(value.kind, Kind::Scalar { .. }) {
                self.mask(value.at);
                help = "a secret stands in a file of its own, which a field `…_file` names".to_owned();
            }
            let message = format!("{what} has no field `{}`", key.text);
            self.error(key.at, "config/unknown-field", message, help);
        }
        Some(fields)
    }

    /// A mapping with any keys.
    pub(super) fn mapping<'a>(&mut self, node: &'a Node, what: &str) -> Option<Fields<'a>> {
        match &node.kind {
            Kind::Map(entries) => Some(Fields { at: node.at, entries }),
            Kind::Null => Some(Fields { at: node.at, entries: &[] }),
            Kind::Scalar { .. } | Kind::List(_) => {
                let message = format!("expected a mapping for {what}, found {}", kind_name(node));
                self.error(node.at, "config/wrong-type", message, "write `key: value` pairs here");
                None
            }
        }
    }

    /// A field that must be there.
    pub(super) fn required<'a>(&mut self, fields: Fields<'a>, what: &str, key: &str) -> Option<&'a Node> {
        let found = fields.get(key);
        if found.is_none() {
            let at = fields.key_at(key).unwrap_or(fields.at);
            self.error(at, "config/missing-field", format!("{what} needs `{key}`"), format!("add `{key}: …`"));
        }
        found
    }

    /// The items of a list.
    pub(super) fn list<'a>(&mut self, node: &'a Node, what: &str) -> &'a [Rc<Node>] {
        match &node.kind {
            Kind::List(items) => items,
            Kind::Null => &[],
            Kind::Scalar { .. } | Kind::Map(_) => {
                let message = format!("expected a list of {what}, found {}", kind_name(node));
                self.error(node.at, "config/wrong-type", message, "write a list: `[a, b]`, or one `- ` line for each");
                &[]
            }
        }
    }

    /// A text that is not empty; a bare number or word counts as text.
    pub(super) fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        let Kind::Scalar { text, .. } = &node.kind else {
            self.wrong_type(node, what);
            return None;
        };
        if text.trim().is_empty() {
            self.error(
                node.at,
                "config/wrong-type",
                format!("{what} is empty"),
                "write something, or leave the field out",
            );
            return None;
        }
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("{what} is longer than {TEXT_BYTES_MAX} bytes");
            self.error(node.at, "config/too-large", message, "shorten it");
            return None;
        }
        Some(text.clone())
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, node: &Node, what: &str) -> Vec<String> {
        self.list(node, what).iter().filter_map(|item| self.text(item, what)).collect()
    }

    /// A name of ours: letters, digits, `_`, `-`, `.`; it stands in labels, URLs and file names.
    pub(super) fn name(&mut self, node: &Node, what: &str) -> Option<String> {
        let name = self.text(node, what)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if !name.chars().all(allowed) || name.len() > 128 {
            let message = format!("`{name}` cannot be {what}");
            self.error(node.at, "config/bad-name", message, "at most 128 letters, digits, `_`, `-` and `.`");
            return None;
        }
        Some(name)
    }

    /// The name of a label, as in Prometheus.
    pub(super) fn label_name(&mut self, text: &str, at: Place) -> Option<String> {
        let mut bytes = text.bytes();
        let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if starts && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') && !text.starts_with("__") {
            return Some(text.to_owned());
        }
        let help = "letters, digits and `_`, not first a digit, not first `__`";
        self.error(at, "config/bad-name", format!("`{text}` is not a label name"), help);
        None
    }

    /// A list of different label names, not empty.
    pub(super) fn label_names(&mut self, node: &Node) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let items = self.list(node, "label names");
        for item in items {
            let Some(name) = self.text(item, "a label name").and_then(|text| self.label_name(&text, item.at)) else {
                continue;
            };
            if names.contains(&name) {
                self.error(item.at, "config/duplicate-name", format!("`{name}` stands twice"), "name each label once");
            } else {
                names.push(name);
            }
        }
        if matches!(&node.kind, Kind::List(items) if items.is_empty()) {
            self.error(node.at, "config/wrong-type", "the list is empty", "name the labels that tell one from another");
        }
        names
    }

    /// Label → text; `""` too, which takes a label away.
    pub(super) fn label_texts(&mut self, node: &Node, what: &str) -> Vec<(String, String)> {
        let Some(fields) = self.mapping(node, what) else { return Vec::new() };
        let mut pairs = Vec::new();
        for (key, value) in fields.entries() {
            let name = self.label_name(&key.text, key.at);
            let value = match &value.kind {
                Kind::Scalar { text, plain: false } if text.is_empty() => Some(String::new()),
                _ => self.text(value, "a text"),
            };
            if let (Some(name), Some(value)) = (name, value) {
                pairs.push((name, value));
            }
        }
        pairs
    }

    /// A number, not a quoted one.
    pub(super) fn number(&mut self, node: &Node) -> Option<f64> {
        let value = match &node.kind {
            Kind::Scalar { text, plain: true } => text.parse::<f64>().ok(),
            _ => None,
        };
        match value {
            Some(value) if value.is_finite() => Some(value),
            _ => {
                self.wrong_type(node, "a number");
                None
            }
        }
    }

    /// A number from `low` to `high`, which may be infinite.
    pub(super) fn number_within(&mut self, node: &Node, low: f64, high: f64) -> Option<f64> {
        let value = self.number(node)?;
        if low <= value && value <= high {
            return Some(value);
        }
        let range = if high.is_finite() { format!("from {low} to {high}") } else { format!("at least {low}") };
        self.error(node.at, "config/out-of-range", format!("{value} is out of range"), format!("a number {range}"));
        None
    }

    /// A share: 0 to 1, or 0% to 100%.
    pub(super) fn ratio(&mut self, node: &Node) -> Option<f64> {
        let (number, parts) = match &node.kind {
            Kind::Scalar { text, plain: true } => match text.strip_suffix('%') {
                Some(percent) => (percent.parse::<f64>().ok(), 100.0),
                None => (text.parse::<f64>().ok(), 1.0),
            },
            _ => (None, 1.0),
        };
        let Some(value) = number.filter(|value| value.is_finite()).map(|value| value / parts) else {
            self.wrong_type(node, "a share like 0.8 or 80%");
            return None;
        };
        if (0.0..=1.0).contains(&value) {
            return Some(value);
        }
        self.error(node.at, "config/out-of-range", "a share lies between 0 and 1", "write 0.8 or 80%");
        None
    }

    /// A whole number from `low` to `high`.
    pub(super) fn whole(&mut self, node: &Node, low: i64, high: i64) -> Option<i64> {
        let value = match &node.kind {
            Kind::Scalar { text, plain: true } => text.parse::<i64>().ok(),
            _ => None,
        };
        let Some(value) = value else {
            self.wrong_type(node, "a whole number");
            return None;
        };
        if low <= value && value <= high {
            return Some(value);
        }
        let help = format!("a whole number from {low} to {high}");
        self.error(node.at, "config/out-of-range", format!("{value} is out of range"), help);
        None
    }

    /// A whole number that counts something.
    pub(super) fn count(&mut self, node: &Node, low: u32, high: u32) -> Option<u32> {
        self.whole(node, i64::from(low), i64::from(high)).and_then(|value| u32::try_from(value).ok())
    }

    /// `true` or `false`.
    pub(super) fn truth(&mut self, node: &Node) -> Option<bool> {
        match &node.kind {
            Kind::Scalar { text, plain: true } if text == "true" => Some(true),
            Kind::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => {
                self.wrong_type(node, "true or false");
                None
            }
        }
    }

    /// One of a few words. `later` are words of a later version.
    pub(super) fn word<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&str, T)], later: &[&str]) -> Option<T> {
        let text = self.text(node, what)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        if later.contains(&text.as_str()) {
            let message = format!("`{text}` is not in this version");
            self.error(node.at, "config/not-yet", message, format!("there is {}", quoted(&known)));
        } else {
            let message = format!("`{text}` is not {what}");
            self.error(node.at, "config/unknown-value", message, suggestion(&text, &known));
        }
        None
    }

    /// A duration in PromQL's form, from `low` on.
    pub(super) fn duration(&mut self, node: &Node, low: Millis) -> Option<Millis> {
        let text = self.text(node, "a duration like 30s, 5m or 1h30m")?;
        let value = match Millis::parse(&text) {
            Ok(value) => value,
            Err(_) => {
                let message = format!("`{text}` is not a duration");
                self.error(node.at, "config/bad-duration", message, "as in PromQL: 30s, 5m, 1h30m, 7d");
                return None;
            }
        };
        if value < low || DURATION_MAX < value {
            let help = format!("from {low} to {DURATION_MAX}");
            self.error(node.at, "config/out-of-range", format!("{text} is out of range"), help);
            return None;
        }
        Some(value)
    }

    /// A size in bytes from `low` to `high`: `512MiB`, `1GiB`, `1000000`.
    pub(super) fn bytes(&mut self, node: &Node, low: usize, high: usize) -> Option<usize> {
        const UNITS: [(&str, u64); 9] = [
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
            ("KB", 1000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000),
            ("B", 1),
        ];
        let text = self.text(node, "a size like 512MiB")?;
        let (number, unit) = UNITS
            .iter()
            .find_map(|(unit, bytes)| text.strip_suffix(unit).map(|number| (number, *bytes)))
            .unwrap_or((&text, 1));
        let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        let Some(bytes) = bytes.and_then(|bytes| usize::try_from(bytes).ok()) else {
            self.error(node.at, "config/wrong-type", format!("`{text}` is not a size"), "write 512MiB or 2GiB");
            return None;
        };
        if bytes < low {
            self.error(node.at, "config/out-of-range", format!("{text} is too small"), format!("at least {low} bytes"));
            return None;
        }
        if bytes > high {
            self.error(node.at, "config/out-of-range", format!("{text} is too large"), format!("at most {high} bytes"));
            return None;
        }
        Some(bytes)
    }

    /// A PromQL expression.
    pub(super) fn query(&mut self, node: &Node) -> Option<Query> {
        let Kind::Scalar { text, .. } = &node.kind else {
            self.wrong_type(node, "a PromQL expression");
            return None;
        };
        if text.len() > EXPRESSION_BYTES_MAX {
            let message = format!("an expression of more than {EXPRESSION_BYTES_MAX} bytes");
            self.error(node.at, "config/too-large", message, "split it with recording rules");
            return None;
        }
        match Query::parse(text.trim()) {
            Ok(query) => Some(query),
            Err(error) => {
                let message = error.to_string();
                let (first, rest) = message.split_once('\n').unwrap_or((&message, ""));
                let help = if rest.is_empty() { "correct the expression" } else { rest.trim() };
                self.error(node.at, "rule/bad-promql", format!("bad PromQL: {first}"), help.replace('\n', " "));
                None
            }
        }
    }

    /// A number for all, or a PromQL expression that gives one to each.
    pub(super) fn number_or_query(&mut self, node: &Node) -> Option<NumberOrQuery> {
        match &node.kind {
            Kind::Scalar { text, .. } => match text.trim().parse::<f64>() {
                Ok(number) if number.is_finite() => Some(NumberOrQuery::Number(number)),
                _ => self.query(node).map(NumberOrQuery::Query),
            },
            _ => {
                self.wrong_type(node, "a number or a PromQL expression");
                None
            }
        }
    }

    /// A series selector as in PromQL, as matchers.
    pub(super) fn selector(&mut self, node: &Node) -> Option<Vec<Matcher>> {
        let query = self.query(node)?;
        if !matches!(query.expr(), crate::query::syntax::Expr::Selector(_)) {
            let help = "write one like up{job=\"api\"}";
            self.error(node.at, "config/wrong-type", "expected a series selector, found an expression", help);
            return None;
        }
        query.matcher_sets().into_iter().next()
    }
}

/// A regular expression that must match a whole value, as Prometheus has it.
pub(super) fn anchored(pattern: &str) -> Option<regex::Regex> {
    // `a)|(b` is none by itself, but would be between brackets.
    regex::Regex::new(pattern).ok()?;
    regex::RegexBuilder::new(&format!("^(?s:{pattern})$")).size_limit(1 << 20).build().ok()
}

/// Words in a sentence: `` `a`, `b` or `c` ``.
pub(super) fn quoted(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// "did you mean …?" where a known word is near; otherwise the known words.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    let word: String = word.chars().take(64).collect();
    let nearest = known.iter().map(|candidate| (distance(&word, candidate), candidate)).min();
    match nearest {
        Some((steps, candidate)) if steps <= 2.max(candidate.len() / 3) && steps < candidate.len() => {
            format!("did you mean `{candidate}`?")
        }
        _ if known.is_empty() => "it takes none: remove it".to_owned(),
        _ => format!("there is {}", quoted(known)),
    }
}

/// How many letters must be added, dropped or changed to make one word of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_letters_between_two_words() {
        for (a, b, steps) in [("", "ab", 2), ("horzion", "horizon", 2), ("mode", "mode", 0), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b), steps, "{a} {b}");
        }
    }
}
