//! What is wrong with the files, as data and as the text that a person reads.

use std::fmt;

use super::tree::Place;

/// The most problems that are kept; what is beyond is counted.
pub const PROBLEMS_MAX: usize = 200;
/// The most characters of a source line that are shown.
const SHOWN_MAX: usize = 140;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The files cannot be used.
    Error,
    /// The files can be used, but probably do not say what was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: String,
    /// From 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// How many characters are meant, from `column` on.
    pub span_len: usize,
    /// Stable name: `rule/horizon-too-long`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The line, as it stands in the file.
    pub source_line: String,
    /// What would be right.
    pub help: String,
}

impl fmt::Display for Problem {
    /// `file:line:column: message`, the source line, carets under the place, help and code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.severity == Severity::Warning { "warning: " } else { "" };
        if self.line == 0 {
            return write!(f, "{}: {word}{}\n        {}  [{}]", self.file, self.message, self.help, self.code);
        }
        writeln!(f, "{}:{}:{}: {word}{}", self.file, self.line, self.column, self.message)?;
        let (shown, caret_at) = excerpt(&self.source_line, self.column);
        writeln!(f, "{:>5} | {shown}", self.line)?;
        let length = self.span_len.clamp(1, shown.chars().count().saturating_sub(caret_at).max(1));
        let (before, carets) = (" ".repeat(caret_at), "^".repeat(length));
        write!(f, "        {before}{carets} {}  [{}]", self.help, self.code)
    }
}

/// The part of a line around a column that fits on a screen, and the place of the column in it, from 0.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    // Tabs and control characters would move the caret away from its place.
    let clean: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let caret_at = column.saturating_sub(1).min(clean.len());
    if clean.len() <= SHOWN_MAX {
        return (clean.iter().collect(), caret_at);
    }
    let from = caret_at.saturating_sub(SHOWN_MAX / 2);
    let to = (from + SHOWN_MAX).min(clean.len());
    let (head, tail) = (if from > 0 { "…" } else { "" }, if to < clean.len() { "…" } else { "" });
    let middle: String = clean[from..to].iter().collect();
    (format!("{head}{middle}{tail}"), caret_at - from + head.chars().count())
}

/// All that is wrong, in the order of files and lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems {
    /// The problems; warnings are among them.
    pub problems: Vec<Problem>,
    /// How many more there were beyond [`PROBLEMS_MAX`].
    pub left_out: usize,
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
}

/// Collects problems while the files are read.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) sources: Vec<Source>,
    found: Vec<(Place, Problem)>,
    left_out: usize,
    /// How many errors were found.
    pub(super) errors: usize,
}

impl Report {
    /// Notes an error.
    pub(super) fn error(&mut self, at: Place, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        self.add(at, Severity::Error, code, message.into(), help.into());
    }

    /// Notes a warning.
    pub(super) fn warning(
        &mut self,
        at: Place,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(at, Severity::Warning, code, message.into(), help.into());
    }

    fn add(&mut self, at: Place, severity: Severity, code: &'static str, message: String, help: String) {
        if severity == Severity::Error {
            self.errors += 1;
        }
        if self.found.len() == PROBLEMS_MAX {
            self.left_out += 1;
            return;
        }
        let problem = Problem {
            file: self.sources[at.file].name.clone(),
            line: at.line,
            column: at.column,
            span_len: at.len,
            code,
            severity,
            message,
            source_line: String::new(),
            help,
        };
        self.found.push((at, problem));
    }

    /// Makes a stretch that holds a secret unreadable in whatever is shown of its line.
    pub(super) fn mask(&mut self, at: Place) {
        let source = &mut self.sources[at.file];
        let mask = |line: &str| -> String {
            let from = at.column.saturating_sub(1);
            // A text of several lines has no length of its own: all that is left of its first line is hidden.
            let to = if at.len == 1 { usize::MAX } else { from + at.len };
            line.chars().enumerate().map(|(index, c)| if from <= index && index < to { '*' } else { c }).collect()
        };
        let lines = source.text.lines().enumerate();
        source.text =
            lines.map(|(index, line)| if index + 1 == at.line { mask(line) } else { line.to_owned() } + "\n").collect();
    }

    /// Whether any error was found.
    pub(super) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Everything found, sorted by file in the order of reading, line and column.
    pub(super) fn finish(mut self) -> Problems {
        self.found.sort_by_key(|(at, _)| (at.file, at.line, at.column));
        self.found.dedup_by(|a, b| a.1 == b.1);
        let lines: Vec<Vec<&str>> = self.sources.iter().map(|source| source.text.lines().collect()).collect();
        for (at, problem) in &mut self.found {
            let line = at.line.checked_sub(1).and_then(|index| lines[at.file].get(index));
            problem.source_line = line.unwrap_or(&"").to_string();
            // The parser counts the blanks behind a quoted text as part of it.
            let meant: String = problem.source_line.chars().skip(at.column.saturating_sub(1)).take(at.len).collect();
            problem.span_len = meant.trim_end().chars().count().max(1);
        }
        Problems { problems: self.found.into_iter().map(|(_, problem)| problem).collect(), left_out: self.left_out }
    }
}
