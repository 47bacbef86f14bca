//! Requests with the values of an action in them: typed, so that no value can become anything but a value.
//!
//! A placeholder is a path into what the webhook posts ([`WebhookBody`]) in braces: `{target.name}`, `{change.to}`,
//! `{target.labels.zone}`. In a JSON body it is a whole value and keeps its type; in an address it is percent-encoded and may
//! stand in the path or the query only; in a header it is the whole value. There is no way to put text around a value in JSON.

use reqwest::Url;
use serde_json::Value;

use super::WebhookBody;
use super::http::check_url;
use crate::plan::Action;

/// The placeholders that are one text or number; those with a last part of one's own follow in [`OPEN`].
const PLAIN: [&str; 18] = [
    "id",
    "action",
    "policy",
    "target.component",
    "target.kind",
    "target.namespace",
    "target.name",
    "change.change",
    "change.from",
    "change.to",
    "change.share",
    "undoes",
    "makes_room_for",
    "why.probability",
    "why.eta_seconds",
    "why.expected_loss",
    "decided_at",
    "expires_at",
];
/// Placeholders that end in a name: of a label, of a resource.
const OPEN: [&str; 3] = ["target.labels.", "change.from.", "change.to."];
/// Placeholders that are for bodies only: a list, and a text for people.
const FOR_BODIES: [&str; 2] = ["change.from_nodes", "why.sentence"];

/// What placeholders stand for in one action.
#[derive(Debug)]
pub(super) struct Facts(Value);

impl Facts {
    pub(super) fn of(action: &Action) -> Facts {
        Facts(serde_json::to_value(WebhookBody::of(action)).expect("a body of plain fields is always JSON"))
    }

    /// The value of a placeholder; says what is missing.
    fn get(&self, path: &str) -> Result<&Value, String> {
        let found = path.split('.').try_fold(&self.0, |value, name| value.get(name));
        found.filter(|value| !value.is_null()).ok_or_else(|| {
            let kind = self.0["action"].as_str().unwrap_or_default();
            let change = self.0["change"]["change"].as_str().unwrap_or_default();
            format!("this action (`{kind}`, a change of `{change}`) has no `{{{path}}}`")
        })
    }

    /// A value as it stands in an address or a header.
    fn text(&self, path: &str) -> Result<String, String> {
        match self.get(path)? {
            Value::String(text) => Ok(text.clone()),
            Value::Object(_) | Value::Array(_) => Err(format!("`{{{path}}}` is more than one value")),
            plain => Ok(plain.to_string()),
        }
    }
}

/// The path of a placeholder that is the whole text: `{change.to}`. Nothing where the text has no braces.
///
/// # Errors
/// Where there are braces and it is no placeholder that there is; says what would be right.
pub fn placeholder(text: &str) -> Result<Option<&str>, String> {
    let Some(path) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        if text.contains(['{', '}']) {
            return Err(format!("`{text}` puts text around a placeholder; it must be the whole value"));
        }
        return Ok(None);
    };
    let open = |prefix: &&str| path.strip_prefix(*prefix).is_some_and(|name| !name.is_empty() && !name.contains('.'));
    if PLAIN.contains(&path) || FOR_BODIES.contains(&path) || OPEN.iter().any(open) {
        return Ok(Some(path));
    }
    let known: Vec<String> = PLAIN.iter().chain(&FOR_BODIES).map(|name| format!("{{{name}}}")).collect();
    Err(format!("there is no placeholder `{text}`; there are {{target.labels.NAME}}, {}", known.join(", ")))
}

/// A JSON body with the values of an action in the place of its placeholders.
pub(super) fn fill(body: &Value, facts: &Facts) -> Result<Value, String> {
    Ok(match body {
        Value::String(text) => match placeholder(text)? {
            Some(path) => facts.get(path)?.clone(),
            None => body.clone(),
        },
        Value::Array(items) => Value::Array(items.iter().map(|item| fill(item, facts)).collect::<Result<_, _>>()?),
        Value::Object(fields) => {
            let filled = fields.iter().map(|(name, value)| Ok((name.clone(), fill(value, facts)?)));
            Value::Object(filled.collect::<Result<_, String>>()?)
        }
        plain => plain.clone(),
    })
}

/// A text of which parts are placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextTemplate(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(String),
}

impl TextTemplate {
    /// Reads a text such as `https://host/groups/{target.name}`.
    ///
    /// # Errors
    /// Where a brace has no partner or a placeholder is none; says what would be right.
    pub fn parse(text: &str) -> Result<TextTemplate, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(['{', '}']) {
            let end = rest[start..].find('}').map(|end| start + end + 1);
            let Some(end) = end.filter(|_| rest[start..].starts_with('{')) else {
                return Err(format!("a brace in `{text}` has no partner"));
            };
            let whole = &rest[start..end];
            let path = placeholder(whole)?.unwrap_or_default();
            if FOR_BODIES.contains(&path) {
                return Err(format!("`{whole}` may stand in a body only"));
            }
            pieces.extend((start > 0).then(|| Piece::Text(rest[..start].to_owned())));
            pieces.push(Piece::Placeholder(path.to_owned()));
            rest = &rest[end..];
        }
        pieces.extend((!rest.is_empty()).then(|| Piece::Text(rest.to_owned())));
        Ok(TextTemplate(pieces))
    }

    /// The text for an action, values as they are.
    pub(super) fn fill(&self, facts: &Facts) -> Result<String, String> {
        self.render(|path| facts.text(path))
    }

    fn render(&self, mut value: impl FnMut(&str) -> Result<String, String>) -> Result<String, String> {
        self.0.iter().try_fold(String::new(), |text, piece| match piece {
            Piece::Text(piece) => Ok(text + piece),
            Piece::Placeholder(path) => Ok(text + &value(path)?),
        })
    }
}

/// An address of which parts of the path and the query are placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlTemplate {
    text: TextTemplate,
    allow_local: bool,
}

impl UrlTemplate {
    /// Reads an address.
    ///
    /// # Errors
    /// Where it is none that may be called, or a placeholder could choose who is called.
    pub fn parse(text: &str, allow_local: bool) -> Result<UrlTemplate, String> {
        let template = TextTemplate::parse(text)?;
        let with = |word: &str| check_url(&template.render(|_| Ok(word.to_owned()))?, allow_local);
        let (one, other) = (with("1")?, with("2")?);
        if one.authority() != other.authority() || one.scheme() != other.scheme() {
            return Err("a placeholder may stand in the path or the query only".to_owned());
        }
        if one.fragment().is_some() {
            return Err("an address to call has no `#`".to_owned());
        }
        Ok(UrlTemplate { text: template, allow_local })
    }

    /// Some address of it, for who is called.
    pub fn sample(&self) -> String {
        self.text.render(|_| Ok("1".to_owned())).unwrap_or_default()
    }

    /// The address for an action. A value is one segment of the path or a part of one, never more.
    pub(super) fn fill(&self, facts: &Facts) -> Result<Url, String> {
        let text = self.text.render(|path| {
            let value = facts.text(path)?;
            if value.is_empty() { Err(format!("`{{{path}}}` is empty")) } else { Ok(percent_encode(&value)) }
        })?;
        // Dots as a segment would be followed to another path.
        let mut segments = text.split(['?', '#']).next().unwrap_or_default().split('/');
        let is_dots = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
        if segments.any(is_dots) {
            return Err("a value of dots would lead to another path".to_owned());
        }
        check_url(&text, self.allow_local)
    }
}

/// Everything but the unreserved characters of RFC 3986 becomes `%XX`.
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A condition on a JSON answer: `/status/ready >= {change.to} and /status/phase == "Ready"`.
///
/// Each part compares what a JSON Pointer (RFC 6901) leads to with a JSON value or a placeholder. Numbers are compared as
/// numbers, anything else for equality only. What is not there fulfils nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusExpr(Vec<Comparison>);

#[derive(Debug, Clone, PartialEq)]
struct Comparison {
    pointer: String,
    operator: Operator,
    /// A placeholder where it is a text in braces.
    wanted: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    AtLeast,
    AtMost,
    Above,
    Below,
}

impl StatusExpr {
    /// Reads a condition.
    ///
    /// # Errors
    /// Says what is wrong with it and what would be right.
    pub fn parse(text: &str) -> Result<StatusExpr, String> {
        let mut comparisons = Vec::new();
        let mut rest = text.trim();
        loop {
            let (comparison, after) = comparison(rest)?;
            comparisons.push(comparison);
            let after = after.trim_start();
            if after.is_empty() {
                return Ok(StatusExpr(comparisons));
            }
            rest = after
                .strip_prefix("and ")
                .ok_or_else(|| format!("`{after}` follows a comparison; join comparisons by `and`"))?
                .trim_start();
        }
    }

    /// Whether an answer fulfils it, for an action.
    pub(super) fn holds(&self, answer: &Value, facts: &Facts) -> Result<bool, String> {
        for Comparison { pointer, operator, wanted } in &self.0 {
            let wanted = fill(wanted, facts)?;
            let Some(found) = answer.pointer(pointer) else { return Ok(false) };
            if !operator.holds(found, &wanted) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn comparison(text: &str) -> Result<(Comparison, &str), String> {
    let form = "a comparison is a JSON Pointer, one of == != >= <= > <, and a JSON value or placeholder";
    let wrong = |what: String| format!("{what}; {form}: `/status/ready >= {{change.to}}`");
    let (pointer, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    if !pointer.starts_with('/') {
        return Err(wrong(format!("`{pointer}` is no JSON Pointer")));
    }
    let (word, rest) = rest.trim_start().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
    let operator = match word {
        "==" => Operator::Equal,
        "!=" => Operator::NotEqual,
        ">=" => Operator::AtLeast,
        "<=" => Operator::AtMost,
        ">" => Operator::Above,
        "<" => Operator::Below,
        other => return Err(wrong(format!("`{other}` is no comparison"))),
    };
    let rest = rest.trim_start();
    let (wanted, after) = if rest.starts_with('{') {
        let end = rest.find('}').map_or(rest.len(), |end| end + 1);
        placeholder(&rest[..end])?;
        (Value::String(rest[..end].to_owned()), &rest[end..])
    } else {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let value = values.next().and_then(Result::ok).filter(|value| !value.is_object() && !value.is_array());
        let value = value.ok_or_else(|| wrong(format!("`{rest}` does not begin with a value")))?;
        if value.as_str().is_some_and(|text| text.contains(['{', '}'])) {
            return Err(wrong(format!("{value} has braces in quotes")));
        }
        (value, &rest[values.byte_offset()..])
    };
    Ok((Comparison { pointer: pointer.to_owned(), operator, wanted }, after))
}

impl Operator {
    fn holds(self, found: &Value, wanted: &Value) -> bool {
        let order = match (found.as_f64(), wanted.as_f64()) {
            (Some(found), Some(wanted)) => found.partial_cmp(&wanted),
            _ => (found == wanted).then_some(std::cmp::Ordering::Equal),
        };
        let numbers = found.is_number() && wanted.is_number();
        match self {
            Operator::Equal => order.is_some_and(|order| order.is_eq()),
            Operator::NotEqual => order.is_none_or(|order| order.is_ne()),
            Operator::AtLeast => numbers && order.is_some_and(|order| order.is_ge()),
            Operator::AtMost => numbers && order.is_some_and(|order| order.is_le()),
            Operator::Above => numbers && order.is_some_and(|order| order.is_gt()),
            Operator::Below => numbers && order.is_some_and(|order| order.is_lt()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::action;
    use super::*;

    /// The facts of an action on a component whose name is this.
    fn facts(name: &str) -> Facts {
        let mut action = action("a/1");
        action.target.name = name.to_owned();
        Facts::of(&action)
    }

    #[test]
    fn a_value_in_a_body_is_a_value_whatever_it_holds() {
        let body = json!({"to": "{change.to}", "who": ["{target.name}", "x", 1, null], "p": "{why.probability}"});
        for name in ["checkout", r#"","evil":"1"#, "{change.from}", "a\nb"] {
            let filled = fill(&body, &facts(name)).expect("all of it is there");
            assert_eq!(filled, json!({"to": 5, "who": [name, "x", 1, null], "p": 0.9}));
        }
        let missing = fill(&json!({"a": "{change.to.cpu}"}), &facts("x")).expect_err("replicas have no cpu");
        assert!(missing.contains("`scale_out`") && missing.contains("`{change.to.cpu}`"), "{missing}");
    }

    #[test]
    fn a_value_in_an_address_stays_in_its_place() {
        let template = UrlTemplate::parse("https://h/g/{target.name}/size?to={change.to}&n={target.name}", false);
        let template = template.expect("a good address");
        for (name, wanted) in [
            ("checkout", Ok("https://h/g/checkout/size?to=5&n=checkout")),
            ("a/b?c#d&e=é", Ok("https://h/g/a%2Fb%3Fc%23d%26e%3D%C3%A9/size?to=5&n=a%2Fb%3Fc%23d%26e%3D%C3%A9")),
            ("..", Err("dots")),
            (".", Err("dots")),
            ("%2e%2e", Ok("https://h/g/%252e%252e/size?to=5&n=%252e%252e")),
            ("", Err("empty")),
            ("@evil.example", Ok("https://h/g/%40evil.example/size?to=5&n=%40evil.example")),
        ] {
            match (template.fill(&facts(name)), wanted) {
                (Ok(url), Ok(wanted)) => assert_eq!(url.as_str(), wanted),
                (Err(error), Err(wanted)) => assert!(error.contains(wanted), "{name}: {error}"),
                (got, wanted) => panic!("{name}: {got:?} instead of {wanted:?}"),
            }
        }
    }

    #[test]
    fn says_what_is_wrong_with_an_address() {
        for (text, part) in [
            ("https://{target.name}.example/x", "path or the query"),
            ("https://h:{change.to}/x", "path or the query"),
            ("{target.name}://h/", "cannot be read"),
            ("https://h/{target.nam}", "there is no placeholder `{target.nam}`"),
            ("https://h/{change.from_nodes}", "in a body only"),
            ("https://h/{target.labels.}", "there is no placeholder"),
            ("https://h/}{", "no partner"),
            ("https://h/{id", "no partner"),
            ("https://h/x#{id}", "`#`"),
            ("http://127.0.0.1/{id}", "allow_local"),
        ] {
            let error = UrlTemplate::parse(text, false).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_condition_looks_at_the_answer() {
        let answer = json!({"status": {"ready": 5, "phase": "Ready or not", "a/b": true}, "items": [1, 2.5]});
        for (text, holds) in [
            ("/status/ready >= {change.to}", true),
            ("/status/ready > {change.to}", false),
            ("/status/ready == 5.0", true),
            ("/status/ready != 5", false),
            ("/status/ready < 6 and /items/1 <= 2.5", true),
            ("/status/ready < 6 and /items/1 < 2.5", false),
            (r#"/status/phase == "Ready or not""#, true),
            (r#"/status/phase != "Ready" and /status/a~1b == true"#, true),
            (r#"/status/phase > "A""#, false),
            ("/status/gone == null", false),
            ("/status/gone != 1", false),
        ] {
            let expr = StatusExpr::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(expr.holds(&answer, &facts("x")), Ok(holds), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_condition() {
        for (text, part) in [
            ("", "no JSON Pointer"),
            ("status == 1", "`status` is no JSON Pointer"),
            ("/a = 1", "`=` is no comparison"),
            ("/a ==", "does not begin with a value"),
            ("/a == yes", "does not begin with a value"),
            ("/a == [1]", "does not begin with a value"),
            ("/a == 1 or /b == 2", "join comparisons by `and`"),
            ("/a == {change.too}", "no placeholder"),
            (r#"/a == "{id}""#, "braces in quotes"),
        ] {
            let error = StatusExpr::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
