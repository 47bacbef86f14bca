//! Regular expressions in Go's syntax, anchored at both ends.
//!
//! Go takes some texts for patterns that the regex crate refuses or reads otherwise; these are rewritten. Unicode classes such
//! as `\d` are of ASCII only in Go, which also compiles much smaller.

use regex::{Regex, RegexBuilder};

/// The most memory that one compiled pattern may take, in bytes.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// The most repetitions that Go's syntax allows.
const REPEAT_MAX: u32 = 1000;

/// A compiled pattern that must match a whole text; a dot matches line breaks too.
///
/// # Errors
/// What is wrong, in Go's words where there are the same.
pub(in crate::query) fn anchored(pattern: &str) -> Result<Regex, String> {
    let rewritten = rewrite(pattern)?;
    // The pattern alone must be valid: a lone bracket must not close our group.
    let build = |text: &str| RegexBuilder::new(text).size_limit(COMPILED_BYTES_MAX).build();
    let compiled = build(&rewritten).and_then(|_| build(&format!("^(?s:{rewritten})$")));
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "error parsing regexp: expression too large".to_owned(),
        error => format!("error parsing regexp: {}", reason(&error.to_string(), pattern)),
    })
}

/// Go's words for a mistake.
fn reason(ours: &str, pattern: &str) -> String {
    let quoted = |what: &str, part: &str| format!("{what}: `{part}`");
    if ours.contains("unclosed group") {
        quoted("missing closing )", pattern)
    } else if ours.contains("unopened group") {
        quoted("unexpected )", pattern)
    } else if ours.contains("unclosed character class") {
        let from = pattern.rfind('[').unwrap_or(0);
        quoted("missing closing ]", &pattern[from..])
    } else if ours.contains("repetition operator missing expression") {
        let operator = pattern.chars().find(|c| "*+?".contains(*c)).map(String::from).unwrap_or_default();
        quoted("missing argument to repetition operator", &operator)
    } else if ours.contains("look-around") {
        let from = pattern.find("(?").unwrap_or(0);
        quoted("invalid or unsupported Perl syntax", pattern.get(from..from + 3).unwrap_or("(?"))
    } else {
        quoted("invalid pattern", pattern)
    }
}

/// A pattern in the regex crate's syntax.
fn rewrite(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        rest = match next {
            '\\' => escape(after, &mut out),
            '[' if in_class => match after.strip_prefix(':').and_then(|text| text.split_once(":]")) {
                Some((name, beyond)) => {
                    out.push_str(&format!("[:{name}:]"));
                    beyond
                }
                None => {
                    out.push_str("\\[");
                    after
                }
            },
            '[' => {
                in_class = true;
                class_start(after, &mut out)
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
                after
            }
            // Set operations of the regex crate are plain characters in Go.
            '&' | '~' if in_class => {
                out.extend(['\\', next]);
                after
            }
            '{' if !in_class => repetition(rest, &mut out)?,
            '}' if !in_class => {
                out.push_str("\\}");
                after
            }
            other => {
                out.push(other);
                after
            }
        };
    }
    Ok(out)
}

/// The beginning of a class: a bracket right behind it is one of its characters.
fn class_start<'a>(after: &'a str, out: &mut String) -> &'a str {
    out.push('[');
    let after = after.strip_prefix('^').inspect(|_| out.push('^')).unwrap_or(after);
    after.strip_prefix(']').inspect(|_| out.push_str("\\]")).unwrap_or(after)
}

/// `{2}`, `{2,}` and `{2,3}` repeat; any other brace is itself.
fn repetition<'a>(rest: &'a str, out: &mut String) -> Result<&'a str, String> {
    let counts = rest[1..].split_once('}').map(|(counts, _)| counts);
    let is_count = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let valid = counts.filter(|counts| match counts.split_once(',') {
        None => is_count(counts),
        Some((min, max)) => is_count(min) && (max.is_empty() || is_count(max)),
    });
    let Some(counts) = valid else {
        out.push_str("\\{");
        return Ok(&rest[1..]);
    };
    let is_too_much = |count: &str| !count.is_empty() && count.parse::<u32>().map_or(true, |count| count > REPEAT_MAX);
    if counts.split(',').any(is_too_much) {
        return Err(format!("error parsing regexp: invalid repeat count: `{{{counts}}}`"));
    }
    out.push_str(&format!("{{{counts}}}"));
    Ok(&rest[counts.len() + 2..])
}

/// What follows a backslash.
fn escape<'a>(after: &'a str, out: &mut String) -> &'a str {
    let Some(kind) = after.chars().next() else {
        out.push('\\');
        return after;
    };
    let beyond = &after[kind.len_utf8()..];
    match kind {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str("[\\t\\n\\f\\r ]"),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'b' => out.push_str("(?-u:\\b)"),
        'Q' => {
            let (literal, rest) = beyond.split_once("\\E").unwrap_or((beyond, ""));
            out.push_str(&regex::escape(literal));
            return rest;
        }
        other => out.extend(['\\', other]),
    }
    beyond
}
