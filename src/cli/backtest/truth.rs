//! Failures that are known from elsewhere: `component,fail_time,end_time`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use crate::cli::readers::{ReadError, parse_time, shown};
use crate::health::Failure;
use crate::model::ComponentId;

const HEADER: [&str; 3] = ["component", "fail_time", "end_time"];
const HELP: &str = "begin with a line `component,fail_time,end_time`; a failure that is not over has no end_time";
const TIME_HELP: &str = "unix seconds (1767225600), milliseconds (1767225600000) or RFC 3339 (2026-01-01T00:00:00Z)";

/// The failures of each component.
#[derive(Debug)]
pub(super) struct Truth {
    /// The file they stand in.
    pub(super) file: String,
    failures: BTreeMap<String, Vec<Failure>>,
}

impl Truth {
    /// Reads failures from CSV; `file` is its name in messages.
    ///
    /// # Errors
    /// The first place that cannot be understood.
    pub(super) fn read(file: &str, text: impl Read) -> Result<Truth, ReadError> {
        let error = |line: u64, message: String, help: &str| ReadError {
            file: file.to_owned(),
            line,
            message,
            help: help.to_owned(),
        };
        let mut reader = ::csv::ReaderBuilder::new().trim(::csv::Trim::All).from_reader(text);
        let header = reader.headers().map_err(|e| error(1, e.to_string(), HELP))?.clone();
        let column = |name: &str| {
            let found = header.iter().position(|known| known == name);
            found.ok_or_else(|| error(1, format!("there is no column `{name}`"), HELP))
        };
        let [component, fail_time, end_time] = HEADER.map(column);
        let (component, fail_time, end_time) = (component?, fail_time?, end_time?);
        let mut failures: BTreeMap<String, Vec<Failure>> = BTreeMap::new();
        for row in reader.records() {
            let row = row.map_err(|e| error(e.position().map_or(0, ::csv::Position::line), e.to_string(), HELP))?;
            let line = row.position().map_or(0, ::csv::Position::line);
            let time = |text: &str| {
                let parsed = parse_time(text).map(|(at, _)| at);
                parsed.ok_or_else(|| error(line, format!("{} is no time", shown(text)), TIME_HELP))
            };
            let at = time(&row[fail_time])?;
            let until = if row[end_time].is_empty() { None } else { Some(time(&row[end_time])?) };
            if until.is_some_and(|until| until < at) {
                return Err(error(line, "the failure ends before it begins".to_owned(), HELP));
            }
            failures.entry(row[component].to_owned()).or_default().push(Failure { at, until });
        }
        failures.values_mut().for_each(|failures| failures.sort_by_key(|failure| failure.at));
        Ok(Truth { file: file.to_owned(), failures })
    }

    /// The failures of a component, which the file names as forestall does (`node/db1`), or without its kind (`db1`).
    pub(super) fn of(&self, component: &ComponentId) -> &[Failure] {
        let (whole, short) = names(component);
        self.failures.get(&whole).or_else(|| self.failures.get(&short)).map_or(&[], Vec::as_slice)
    }

    /// The names in the file that no component has.
    pub(super) fn unknown<'a>(&self, components: impl Iterator<Item = &'a ComponentId>) -> Vec<&str> {
        let known: BTreeSet<String> = components.map(names).flat_map(|(whole, short)| [whole, short]).collect();
        self.failures.keys().filter(|name| !known.contains(*name)).map(String::as_str).collect()
    }
}

/// A component's name, with and without its kind.
fn names(component: &ComponentId) -> (String, String) {
    let whole = component.to_string();
    let short = whole.strip_prefix(&format!("{}/", component.kind)).unwrap_or(&whole).to_owned();
    (whole, short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    fn count(text: &str, component: &str) -> Result<usize, String> {
        let id = ComponentId::of("node", &["node".to_owned()], &Labels::new([("node", component)]));
        Truth::read("t.csv", text.as_bytes()).map(|truth| truth.of(&id).len()).map_err(|error| error.to_string())
    }

    #[test]
    fn components_are_known_with_and_without_their_kind() {
        let text = "component,fail_time,end_time\nnode/a,60,120\nb,60,\nb,2026-01-01T00:00:00Z,\n";
        assert_eq!(count(text, "a"), Ok(1));
        assert_eq!(count(text, "b"), Ok(2));
        assert_eq!(count(text, "c"), Ok(0));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, expected) in [
            ("component,end_time\n", format!("t.csv:1: there is no column `fail_time`\n        {HELP}")),
            ("component,fail_time,end_time\na,soon,\n", format!("t.csv:2: `soon` is no time\n        {TIME_HELP}")),
            (
                "component,fail_time,end_time\na,2,1\n",
                format!("t.csv:2: the failure ends before it begins\n        {HELP}"),
            ),
        ] {
            assert_eq!(count(text, "a"), Err(expected), "{text}");
        }
    }
}
