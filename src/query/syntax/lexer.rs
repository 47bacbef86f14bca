//! Text to tokens, with Prometheus's words for what is none.
//!
//! What a character means depends on where it stands: inside braces keywords are names, inside brackets numbers are durations.

use super::ast::BinaryOperator;
use super::quote::{quoted, quoted_char};

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    End,
    Identifier,
    MetricIdentifier,
    Text,
    Number,
    Duration,
    Keyword(Keyword),
    Aggregator,
    /// `start` and `end`.
    Bound,
    /// An operator between two operands.
    Operator(BinaryOperator),
    /// `=~`
    Matches,
    /// `!~`
    MatchesNot,
    /// `@`
    At,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Equals,
}

/// A word that modifies what stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    Bool,
    By,
    GroupLeft,
    GroupRight,
    Ignoring,
    Offset,
    On,
    Without,
}

/// A token and where it stands, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) text: &'a str,
}

impl Token<'_> {
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// How messages call it.
    pub(super) fn describe(&self) -> String {
        match self.kind {
            Kind::End => "end of input".to_owned(),
            Kind::Identifier => format!("identifier {}", quoted(self.text)),
            Kind::MetricIdentifier => format!("metric identifier {}", quoted(self.text)),
            Kind::Text => format!("string {}", self.shortened()),
            Kind::Number => format!("number {}", self.shortened()),
            Kind::Duration => format!("duration {}", self.shortened()),
            Kind::Keyword(_) => format!("<{}>", self.text),
            Kind::Aggregator => format!("<aggr:{}>", self.text),
            // Prometheus has no name for this one and writes its number.
            Kind::At => "\"<Item 57400>\" <op:@>".to_owned(),
            Kind::Equals => quoted(self.text),
            Kind::Operator(_) | Kind::Matches | Kind::MatchesNot => format!("<op:{}>", self.text),
            _ => self.shortened(),
        }
    }

    fn shortened(&self) -> String {
        if self.text.len() <= 10 {
            return quoted(self.text);
        }
        let head: String = self.text.chars().take(10).collect();
        format!("{}...", quoted(&head))
    }
}

/// What is wrong with the text, and where.
#[derive(Debug)]
pub(super) struct LexError {
    pub(super) at: usize,
    pub(super) message: String,
}

/// Reads tokens one by one.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    input: &'a str,
    start: usize,
    at: usize,
    paren_depth: usize,
    in_braces: bool,
    in_brackets: bool,
    seen_colon: bool,
    seen_duration: bool,
    /// Whether what follows `[` has not been read past its first duration.
    in_duration: bool,
}

type Lexed<'a> = Result<Token<'a>, LexError>;

impl<'a> Lexer<'a> {
    pub(super) fn new(input: &'a str) -> Lexer<'a> {
        Lexer {
            input,
            start: 0,
            at: 0,
            paren_depth: 0,
            in_braces: false,
            in_brackets: false,
            seen_colon: false,
            seen_duration: false,
            in_duration: false,
        }
    }

    /// The next token; the end again and again once it is reached.
    pub(super) fn next(&mut self) -> Lexed<'a> {
        self.skip_blanks();
        self.start = self.at;
        if self.in_braces {
            return self.in_braces();
        }
        if self.in_duration {
            return self.in_duration();
        }
        self.anywhere()
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(is_space);
            // Within a duration `#` is no comment.
            if self.in_duration || self.peek() != Some('#') {
                return;
            }
            self.take_while(|c| !matches!(c, '\r' | '\n'));
        }
    }

    fn anywhere(&mut self) -> Lexed<'a> {
        let Some(first) = self.bump() else {
            return match (self.paren_depth, self.in_brackets) {
                (1.., _) => self.fail("unclosed left parenthesis"),
                (_, true) => self.fail("unclosed left bracket"),
                _ => self.emit(Kind::End),
            };
        };
        match first {
            ',' => self.emit(Kind::Comma),
            '*' => self.operator(BinaryOperator::Multiply),
            '/' => self.operator(BinaryOperator::Divide),
            '%' => self.operator(BinaryOperator::Modulo),
            '+' => self.operator(BinaryOperator::Add),
            '-' => self.operator(BinaryOperator::Subtract),
            '^' => self.operator(BinaryOperator::Power),
            '@' => self.emit(Kind::At),
            '=' if self.accept('=') => self.operator(BinaryOperator::Equal),
            '=' if self.peek() == Some('~') => self.fail("unexpected character after '=': '~'"),
            '=' => self.emit(Kind::Equals),
            '!' => match self.bump() {
                Some('=') => self.operator(BinaryOperator::NotEqual),
                other => self.fail(&format!("unexpected character after '!': {}", quoted_char(other))),
            },
            '<' if self.accept('=') => self.operator(BinaryOperator::LessOrEqual),
            '<' => self.operator(BinaryOperator::Less),
            '>' if self.accept('=') => self.operator(BinaryOperator::GreaterOrEqual),
            '>' => self.operator(BinaryOperator::Greater),
            '"' | '\'' | '`' => self.text(first),
            '(' => self.open_paren(),
            ')' => self.close_paren(),
            '{' => {
                self.in_braces = true;
                self.emit(Kind::LeftBrace)
            }
            '[' if self.in_brackets => self.fail("unexpected left bracket '['"),
            '[' => {
                (self.in_brackets, self.in_duration, self.seen_colon) = (true, true, false);
                self.emit(Kind::LeftBracket)
            }
            ']' if !self.in_brackets => self.fail("unexpected right bracket ']'"),
            ']' => {
                self.in_brackets = false;
                self.emit(Kind::RightBracket)
            }
            _ if first.is_ascii_digit() || self.begins_fraction(first) => self.number_or_duration(),
            ':' | '_' | 'a'..='z' | 'A'..='Z' if self.in_brackets && self.seen_colon => {
                self.fail(&format!("unexpected colon {}", quoted_char(Some(first))))
            }
            ':' | '_' | 'a'..='z' | 'A'..='Z' if self.in_brackets => {
                self.seen_colon = true;
                self.emit(Kind::Colon)
            }
            ':' | '_' | 'a'..='z' | 'A'..='Z' => self.word(),
            other => self.fail(&format!("unexpected character: {}", quoted_char(Some(other)))),
        }
    }

    fn in_braces(&mut self) -> Lexed<'a> {
        let Some(first) = self.bump() else { return self.fail("unexpected end of input inside braces") };
        match first {
            ',' => self.emit(Kind::Comma),
            '"' | '\'' | '`' => self.text(first),
            '=' if self.accept('~') => self.emit(Kind::Matches),
            '=' => self.emit(Kind::Equals),
            '!' => match self.bump() {
                Some('~') => self.emit(Kind::MatchesNot),
                Some('=') => self.operator(BinaryOperator::NotEqual),
                other => self.fail(&format!("unexpected character after '!' inside braces: {}", quoted_char(other))),
            },
            '{' => self.fail("unexpected left brace '{'"),
            '}' => {
                self.in_braces = false;
                self.emit(Kind::RightBrace)
            }
            '_' | 'a'..='z' | 'A'..='Z' => {
                self.take_while(is_alphanumeric);
                self.emit(Kind::Identifier)
            }
            other => self.fail(&format!("unexpected character inside braces: {}", quoted_char(Some(other)))),
        }
    }

    /// Right after `[`, up to the first duration.
    fn in_duration(&mut self) -> Lexed<'a> {
        let Some(first) = self.bump() else { return self.fail("unexpected end of input in duration expression") };
        match first {
            ']' => {
                (self.in_brackets, self.in_duration, self.seen_colon) = (false, false, false);
                self.emit(Kind::RightBracket)
            }
            ':' if !self.seen_duration => self.fail_after("unexpected colon before duration in duration expression"),
            ':' if self.seen_colon => self.fail_after("unexpected repeated colon in duration expression"),
            ':' => {
                self.seen_colon = true;
                self.emit(Kind::Colon)
            }
            '(' => self.open_paren(),
            ')' => self.close_paren(),
            '+' => self.operator(BinaryOperator::Add),
            '-' => self.operator(BinaryOperator::Subtract),
            '*' => self.operator(BinaryOperator::Multiply),
            '/' => self.operator(BinaryOperator::Divide),
            '%' => self.operator(BinaryOperator::Modulo),
            '^' => self.operator(BinaryOperator::Power),
            _ if first.is_ascii_digit() || self.begins_fraction(first) => {
                (self.seen_duration, self.in_duration) = (true, false);
                self.number_or_duration()
            }
            other => self.fail(&format!("unexpected character in duration expression: {}", quoted_char(Some(other)))),
        }
    }

    fn open_paren(&mut self) -> Lexed<'a> {
        self.paren_depth += 1;
        self.emit(Kind::LeftParen)
    }

    fn close_paren(&mut self) -> Lexed<'a> {
        match self.paren_depth.checked_sub(1) {
            Some(depth) => self.paren_depth = depth,
            None => return self.fail_after("unexpected right parenthesis ')'"),
        }
        self.emit(Kind::RightParen)
    }

    fn begins_fraction(&self, first: char) -> bool {
        first == '.' && self.peek().is_some_and(|c| c.is_ascii_digit())
    }

    /// A name or a keyword, whose first character is read already.
    fn word(&mut self) -> Lexed<'a> {
        self.take_while(|c| is_alphanumeric(c) || c == ':');
        let word = &self.input[self.start..self.at];
        self.emit(keyword(&word.to_ascii_lowercase()).unwrap_or(if word.contains(':') {
            Kind::MetricIdentifier
        } else {
            Kind::Identifier
        }))
    }

    /// A quoted text, whose first quote is read already.
    fn text(&mut self, quote: char) -> Lexed<'a> {
        loop {
            match self.bump() {
                Some('\\') if quote != '`' => self.escape(quote)?,
                Some(char::REPLACEMENT_CHARACTER) => return self.fail("invalid UTF-8 rune"),
                Some('\n') if quote != '`' => return self.fail("unterminated quoted string"),
                None if quote == '`' => return self.fail("unterminated raw string"),
                None => return self.fail("unterminated quoted string"),
                Some(other) if other == quote => return self.emit(Kind::Text),
                Some(_) => {}
            }
        }
    }

    fn escape(&mut self, quote: char) -> Result<(), LexError> {
        let first = self.bump();
        let (digits, radix, max) = match first {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => return Ok(()),
            Some(other) if other == quote => return Ok(()),
            Some('0'..='7') => (3, 8, 255),
            Some('x') => (2, 16, 255),
            Some('u') => (4, 16, u32::from(char::MAX)),
            Some('U') => (8, 16, u32::from(char::MAX)),
            None => return self.fail("escape sequence not terminated").map(|_| ()),
            Some(other) => return self.fail(&format!("unknown escape sequence {}", code_point(other))).map(|_| ()),
        };
        let mut digit = if radix == 8 { first } else { self.bump() };
        let mut code: u64 = 0;
        for index in 0..digits {
            let Some(character) = digit else { return self.fail("escape sequence not terminated").map(|_| ()) };
            let Some(value) = character.to_digit(radix) else {
                let what = format!("illegal character {} in escape sequence", code_point(character));
                return self.fail(&what).map(|_| ());
            };
            code = code * u64::from(radix) + u64::from(value);
            if index + 1 < digits {
                digit = self.bump();
            }
        }
        if code > u64::from(max) || (0xd800..0xe000).contains(&code) {
            return self.fail("escape sequence is an invalid Unicode code point").map(|_| ());
        }
        Ok(())
    }

    fn number_or_duration(&mut self) -> Lexed<'a> {
        self.at = self.start;
        if self.number() {
            return self.emit(Kind::Number);
        }
        if self.rest_of_duration() {
            return self.emit(Kind::Duration);
        }
        // What was looked at beyond the number counts to it.
        let end = self.at.min(self.input.len());
        self.fail(&format!("bad number or duration syntax: {}", quoted(&self.input[self.start..end])))
    }

    /// Reads a number; says whether it is one. Where it is none, what was read stays read.
    fn number(&mut self) -> bool {
        let is_hexadecimal = self.accept('0') && self.accept_any("xX");
        if is_hexadecimal {
            self.accept('_');
        }
        let digits = if is_hexadecimal { "0123456789abcdefABCDEF" } else { "0123456789" };
        self.accept('.');
        self.accept_any(digits);
        let (mut seen_dot, mut seen_exponent) = (false, false);
        while let Some(next) = self.peek().filter(|c| digits.contains(*c) || "._eE".contains(*c)) {
            if (next == '.' && seen_dot) || ("eE".contains(next) && seen_exponent) {
                self.bump();
                return false;
            }
            if self.accept('.') {
                seen_dot = true;
                if self.accept_any("_.") || is_hexadecimal {
                    return false;
                }
            } else if self.accept_any("eE") {
                seen_exponent = true;
                self.accept_any("+-");
                if self.accept_any("._eE") || self.peek().is_none() {
                    return false;
                }
            } else if self.accept('_') {
                if self.accept_any("._eE") || self.peek().is_none() {
                    return false;
                }
            } else {
                self.take_while(|c| digits.contains(c));
            }
        }
        self.at > self.start && !self.peek().is_some_and(is_alphanumeric)
    }

    /// Reads the units of a duration, and further numbers with theirs.
    fn rest_of_duration(&mut self) -> bool {
        if !self.accept_any("smhdwy") {
            return false;
        }
        self.accept('s');
        while self.accept_any("0123456789") {
            self.take_while(|c| c.is_ascii_digit());
            if !self.accept_any("smhdw") {
                return false;
            }
            self.accept('s');
        }
        if self.peek().is_some_and(is_alphanumeric) {
            self.bump();
            return false;
        }
        true
    }

    fn operator(&self, operator: BinaryOperator) -> Lexed<'a> {
        self.emit(Kind::Operator(operator))
    }

    fn emit(&self, kind: Kind) -> Lexed<'a> {
        Ok(Token { kind, start: self.start, text: &self.input[self.start..self.at] })
    }

    fn fail(&self, message: &str) -> Lexed<'a> {
        Err(LexError { at: self.start, message: message.to_owned() })
    }

    /// A failure that is noticed once the token is read: it stands behind it.
    fn fail_after(&self, message: &str) -> Lexed<'a> {
        Err(LexError { at: self.at, message: message.to_owned() })
    }

    fn peek(&self) -> Option<char> {
        self.input[self.at..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn accept(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += if is_there { wanted.len_utf8() } else { 0 };
        is_there
    }

    fn accept_any(&mut self, wanted: &str) -> bool {
        match self.peek() {
            Some(next) if wanted.contains(next) => {
                self.at += next.len_utf8();
                true
            }
            _ => false,
        }
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) {
        while let Some(next) = self.peek().filter(|c| wanted(*c)) {
            self.at += next.len_utf8();
        }
    }
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r')
}

fn is_alphanumeric(character: char) -> bool {
    character == '_' || character.is_ascii_alphanumeric()
}

/// A character as Go's `%#U` writes it.
fn code_point(character: char) -> String {
    let code = u32::from(character);
    if character.is_control() { format!("U+{code:04X}") } else { format!("U+{code:04X} '{character}'") }
}

fn keyword(word: &str) -> Option<Kind> {
    Some(match word {
        "and" => Kind::Operator(BinaryOperator::And),
        "or" => Kind::Operator(BinaryOperator::Or),
        "unless" => Kind::Operator(BinaryOperator::Unless),
        "atan2" => Kind::Operator(BinaryOperator::Atan2),
        "sum" | "avg" | "count" | "min" | "max" | "group" | "stddev" | "stdvar" | "topk" | "bottomk"
        | "count_values" | "quantile" | "limitk" | "limit_ratio" => Kind::Aggregator,
        "offset" => Kind::Keyword(Keyword::Offset),
        "by" => Kind::Keyword(Keyword::By),
        "without" => Kind::Keyword(Keyword::Without),
        "on" => Kind::Keyword(Keyword::On),
        "ignoring" => Kind::Keyword(Keyword::Ignoring),
        "group_left" => Kind::Keyword(Keyword::GroupLeft),
        "group_right" => Kind::Keyword(Keyword::GroupRight),
        "bool" => Kind::Keyword(Keyword::Bool),
        "start" | "end" => Kind::Bound,
        "inf" | "nan" => Kind::Number,
        _ => return None,
    })
}
