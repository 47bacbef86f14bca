//! YAML text → a tree that knows where each of its parts stands.
//!
//! Built from the parser's events, one after the other, so that nesting costs no stack. Limits: [`DEPTH_MAX`] levels
//! and [`NODES_MAX`] nodes a file, where an alias counts as all that it stands for: a file cannot blow up when it is read.

use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

/// The deepest nesting of lists and mappings.
pub(super) const DEPTH_MAX: usize = 64;
/// The most nodes of one file, aliases expanded.
pub(super) const NODES_MAX: usize = 200_000;

/// A stretch of one line of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Which file, as an index into the reader's list.
    pub(super) file: usize,
    /// From 1; 0 where the file as a whole is meant.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
    /// In characters, at least 1.
    pub(super) len: usize,
}

/// A part of a file.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) kind: Kind,
    /// How many nodes it is made of, itself among them and aliases expanded.
    size: usize,
}

/// What a part is.
#[derive(Debug)]
pub(super) enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// A number, a word, a text.
    Scalar {
        /// Its text.
        text: String,
        /// Whether it was written without quotes: only then it may be a number or a truth value.
        plain: bool,
    },
    /// A list.
    List(Vec<Rc<Node>>),
    /// A mapping, in the order of the file.
    Map(Vec<(Key, Rc<Node>)>),
}

/// A key of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) at: Place,
}

/// What is wrong with a text as YAML.
#[derive(Debug)]
pub(super) struct YamlProblem {
    pub(super) at: Place,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) help: String,
}

/// A list or mapping that has begun.
struct Open {
    anchor: usize,
    node: Node,
    /// The key of a mapping that waits for its value.
    key: Option<Key>,
    /// The keys so far, with their lines.
    lines: BTreeMap<String, usize>,
}

impl Open {
    fn new(anchor: usize, at: Place, kind: Kind) -> Open {
        Open { anchor, node: Node { at, kind, size: 1 }, key: None, lines: BTreeMap::new() }
    }
}

struct Builder {
    file: usize,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    documents: usize,
    problems: Vec<YamlProblem>,
}

/// Reads the one document of a text. Duplicate keys are reported and reading goes on; after an error of syntax or a
/// limit there is no tree.
pub(super) fn parse(file: usize, text: &str) -> (Option<Rc<Node>>, Vec<YamlProblem>) {
    let mut builder =
        Builder { file, open: Vec::new(), anchors: BTreeMap::new(), root: None, documents: 0, problems: Vec::new() };
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let taken = match next {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err(syntax_problem(file, *error.marker(), error.info(), text)),
        };
        if let Err(problem) = taken {
            builder.problems.push(problem);
            return (None, builder.problems);
        }
    }
    let nothing = || Rc::new(Node { at: Place { file, line: 1, column: 1, len: 1 }, kind: Kind::Null, size: 1 });
    (Some(builder.root.unwrap_or_else(nothing)), builder.problems)
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlProblem> {
        match event {
            Event::DocumentStart(_) => self.start_document(span),
            Event::Alias(anchor) => self.take_alias(anchor, span),
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let kind = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Kind::Null,
                    _ => Kind::Scalar { text: text.into_owned(), plain },
                };
                self.close(Open::new(anchor, self.place(span), kind))
            }
            Event::SequenceStart(anchor, _) => self.begin(anchor, span, Kind::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.begin(anchor, span, Kind::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.close(open),
                None => Ok(()),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn start_document(&mut self, span: Span) -> Result<(), YamlProblem> {
        self.documents += 1;
        if self.documents > 1 {
            let help = "one document a file: move it to a file of its own";
            return Err(problem(self.place(span), "config/yaml", "a second document begins here", help));
        }
        Ok(())
    }

    fn begin(&mut self, anchor: usize, span: Span, kind: Kind) -> Result<(), YamlProblem> {
        let at = self.place(span);
        if self.open.len() == DEPTH_MAX {
            let message = format!("lists and mappings are nested more than {DEPTH_MAX} deep");
            return Err(problem(at, "config/too-deep", &message, "nothing in these files needs more than ten"));
        }
        self.open.push(Open::new(anchor, at, kind));
        Ok(())
    }

    fn take_alias(&mut self, anchor: usize, span: Span) -> Result<(), YamlProblem> {
        // An anchor inside itself is not finished yet: it has no value that could be used here.
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            let help = "an alias repeats a value that stands before it";
            return Err(problem(self.place(span), "config/yaml", "this alias stands inside its own value", help));
        };
        self.attach(node, self.place(span))
    }

    fn close(&mut self, open: Open) -> Result<(), YamlProblem> {
        let node = Rc::new(open.node);
        if open.anchor > 0 {
            self.anchors.insert(open.anchor, Rc::clone(&node));
        }
        let at = node.at;
        self.attach(node, at)
    }

    /// Puts a finished node where it belongs: under the key that waits, at the list's end, or as the root.
    fn attach(&mut self, node: Rc<Node>, at: Place) -> Result<(), YamlProblem> {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.node.size += node.size;
        if parent.node.size > NODES_MAX {
            let message = format!("more than {NODES_MAX} values");
            let help = "aliases count as all that they repeat; split the file or repeat less";
            return Err(problem(at, "config/too-large", &message, help));
        }
        match &mut parent.node.kind {
            Kind::List(items) => items.push(node),
            Kind::Map(entries) => match parent.key.take() {
                Some(key) => {
                    if let Some(line) = parent.lines.get(&key.text) {
                        let message = format!("`{}` stands here a second time", key.text);
                        let help = format!("it was given in line {line} already; keep one");
                        self.problems.push(YamlProblem { at: key.at, code: "config/duplicate-key", message, help });
                    } else {
                        parent.lines.insert(key.text.clone(), key.at.line);
                        entries.push((key, node));
                    }
                }
                None => parent.key = Some(key_of(&node, at)?),
            },
            Kind::Null | Kind::Scalar { .. } => {}
        }
        Ok(())
    }

    fn place(&self, span: Span) -> Place {
        place_of(self.file, span)
    }
}

fn key_of(node: &Node, at: Place) -> Result<Key, YamlProblem> {
    match &node.kind {
        Kind::Scalar { text, .. } => Ok(Key { text: text.clone(), at }),
        Kind::Null => Ok(Key { text: "null".to_owned(), at }),
        Kind::List(_) | Kind::Map(_) => {
            let help = "a key is a word; quote a template: '{{ … }}'";
            Err(problem(at, "config/yaml", "a list or mapping stands where a key is expected", help))
        }
    }
}

fn problem(at: Place, code: &'static str, message: &str, help: &str) -> YamlProblem {
    YamlProblem { at, code, message: message.to_owned(), help: help.to_owned() }
}

fn place_of(file: usize, span: Span) -> Place {
    let one_line = span.start.line() == span.end.line();
    let len = if one_line { span.end.index().saturating_sub(span.start.index()) } else { 1 };
    Place { file, line: span.start.line(), column: span.start.col() + 1, len: len.max(1) }
}

fn syntax_problem(file: usize, marker: Marker, info: &str, text: &str) -> YamlProblem {
    let at = Place { file, line: marker.line(), column: marker.col() + 1, len: 1 };
    let line = text.lines().nth(marker.line().saturating_sub(1)).unwrap_or("");
    let help = if line.trim_start_matches(' ').starts_with('\t') {
        "indent with spaces: YAML allows no tabs there"
    } else if line.contains(": ") && line.contains('{') {
        "check quotes, brackets and colons; an expression with `{`, `: ` or `#` needs quotes or a block (`expr: |`)"
    } else {
        "check indentation, quotes, brackets and colons, here and in the line before"
    };
    YamlProblem { at, code: "config/yaml", message: format!("this is not YAML: {info}"), help: help.to_owned() }
}
