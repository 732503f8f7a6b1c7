//! Label and field selectors: parsing and matching.
//!
//! Owns both texts' grammars. Must never look at anything but labels and a kind's selectable fields.

use super::Kind;
use super::meta::names;
use serde_json::{Map, Value};

/// Why a selector is refused: HTTP 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("unable to parse requirement: {0}")]
    Parse(String),
    #[error("{0}")]
    Field(String),
    #[error("invalid label selector: {0}")]
    Object(String),
}

/// A parsed label selector; empty matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// Made from a missing selector, which selects nothing.
    nothing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    op: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    Equals(String),
    NotEquals(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Greater(i64),
    Less(i64),
}

impl Operator {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = |v: &str| v.parse::<i64>().ok();
        match self {
            Operator::Equals(v) => value == Some(v.as_str()),
            Operator::NotEquals(v) => value != Some(v.as_str()),
            Operator::In(set) => value.is_some_and(|v| set.iter().any(|s| s == v)),
            Operator::NotIn(set) => !value.is_some_and(|v| set.iter().any(|s| s == v)),
            Operator::Exists => value.is_some(),
            Operator::Missing => value.is_none(),
            Operator::Greater(bound) => value.and_then(number).is_some_and(|v| v > *bound),
            Operator::Less(bound) => value.and_then(number).is_some_and(|v| v < *bound),
        }
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = &self.key;
        match &self.op {
            Operator::Equals(v) => write!(f, "{key}={v}"),
            Operator::NotEquals(v) => write!(f, "{key}!={v}"),
            Operator::In(set) => write!(f, "{key} in ({})", set.join(",")),
            Operator::NotIn(set) => write!(f, "{key} notin ({})", set.join(",")),
            Operator::Exists => write!(f, "{key}"),
            Operator::Missing => write!(f, "!{key}"),
            Operator::Greater(v) => write!(f, "{key}>{v}"),
            Operator::Less(v) => write!(f, "{key}<{v}"),
        }
    }
}

impl LabelSelector {
    /// The query-string form: `a=b,c in (d,e),!f`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { tokens: tokens(text), at: 0 };
        Ok(LabelSelector { requirements: parser.selector()?, nothing: false })
    }

    /// The object form (`matchLabels`, `matchExpressions`); null selects nothing, an empty object everything.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(LabelSelector { requirements: Vec::new(), nothing: true });
        }
        let mut requirements = equalities(&selector["matchLabels"]);
        for e in selector["matchExpressions"].as_array().into_iter().flatten() {
            let key = e["key"].as_str().unwrap_or_default().to_string();
            let values: Vec<String> =
                e["values"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect();
            let op = match e["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::Missing,
                other => return Err(SelectorError::Object(format!("{other:?} is not a valid label selector operator"))),
            };
            requirements.push(Requirement { key, op });
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }

    /// The plain map form of Services; null or empty selects nothing.
    pub fn from_map(selector: &Value) -> Self {
        let requirements = equalities(selector);
        LabelSelector { nothing: requirements.is_empty(), requirements }
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn matches_labels(&self, labels: Option<&Map<String, Value>>) -> bool {
        let value = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
        !self.nothing && self.requirements.iter().all(|r| r.op.matches(value(&r.key)))
    }

    /// Against an object's `metadata.labels`.
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_labels(object["metadata"]["labels"].as_object())
    }
}

impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            write!(f, "{}{r}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

fn equalities(map: &Value) -> Vec<Requirement> {
    let entries = map.as_object().into_iter().flatten();
    entries
        .map(|(k, v)| Requirement { key: k.clone(), op: Operator::Equals(v.as_str().unwrap_or_default().to_string()) })
        .collect()
}

/// The query-string form of a selector object, as `status.selector` of a Scale and tables show it.
pub fn format_object(selector: &Value) -> String {
    LabelSelector::from_object(selector).map(|s| s.to_string()).unwrap_or_default()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Symbol(&'static str),
}

fn tokens(text: &str) -> Vec<Token> {
    const SYMBOLS: [&str; 10] = ["==", "!=", "=", "!", ">", "<", ",", "(", ")", " "];
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if rest.starts_with(char::is_whitespace) {
            rest = rest.trim_start();
            continue;
        }
        if let Some(symbol) = SYMBOLS.into_iter().find(|s| rest.starts_with(s)) {
            out.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
            continue;
        }
        let end = rest.find(|c: char| c.is_whitespace() || "=!<>,()".contains(c)).unwrap_or(rest.len());
        out.push(Token::Word(rest[..end].to_string()));
        rest = &rest[end..];
    }
    out
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn takes(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Symbol(s)) if *s == symbol);
        if found {
            self.at += 1;
        }
        found
    }

    fn unexpected(token: Option<Token>, expected: &str) -> SelectorError {
        let found = match token {
            Some(Token::Word(w)) => w,
            Some(Token::Symbol(s)) => s.to_string(),
            None => String::new(),
        };
        SelectorError::Parse(format!("found '{found}', expected: {expected}"))
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut out = Vec::new();
        if self.peek().is_none() {
            return Ok(out);
        }
        loop {
            out.push(self.requirement()?);
            if self.peek().is_none() {
                out.sort_by(|a, b| a.key.cmp(&b.key));
                return Ok(out);
            }
            if !self.takes(",") {
                return Err(Self::unexpected(self.next(), "',' or end of string"));
            }
        }
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        match self.next() {
            Some(Token::Word(key)) => match names::qualified(&key).first() {
                None => Ok(key),
                Some(problem) => Err(SelectorError::Parse(format!("key: Invalid value: {key:?}: {problem}"))),
            },
            other => Err(Self::unexpected(other, "!, identifier, or 'end of string'")),
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.takes("!") {
            return Ok(Requirement { key: self.key()?, op: Operator::Missing });
        }
        let key = self.key()?;
        let op = match self.peek().cloned() {
            None | Some(Token::Symbol(",")) => Operator::Exists,
            Some(Token::Symbol("=" | "==")) => {
                self.at += 1;
                Operator::Equals(self.value()?)
            }
            Some(Token::Symbol("!=")) => {
                self.at += 1;
                Operator::NotEquals(self.value()?)
            }
            Some(Token::Symbol(sign @ (">" | "<"))) => {
                self.at += 1;
                let value = self.value()?;
                let bound = value.parse().map_err(|_| {
                    SelectorError::Parse(format!("for 'Gt', 'Lt' operators, the value must be an integer, not {value:?}"))
                })?;
                if sign == ">" { Operator::Greater(bound) } else { Operator::Less(bound) }
            }
            Some(Token::Word(word)) if word == "in" || word == "notin" => {
                self.at += 1;
                let set = self.set()?;
                if word == "in" { Operator::In(set) } else { Operator::NotIn(set) }
            }
            other => return Err(Self::unexpected(other, "in, notin, =, ==, !=, gt, lt")),
        };
        Ok(Requirement { key, op })
    }

    /// One value; may be empty before a comma or at the end.
    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            None | Some(Token::Symbol(",")) => Ok(String::new()),
            _ => match self.next() {
                Some(Token::Word(value)) => check_value(value),
                other => Err(Self::unexpected(other, "identifier")),
            },
        }
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        if !self.takes("(") {
            return Err(Self::unexpected(self.next(), "'('"));
        }
        let mut out = Vec::new();
        loop {
            match self.next() {
                Some(Token::Word(value)) => {
                    out.push(check_value(value)?);
                    match self.next() {
                        Some(Token::Symbol(",")) => {}
                        Some(Token::Symbol(")")) => break,
                        other => return Err(Self::unexpected(other, "',' or ')'")),
                    }
                }
                // An empty value, as in `a in (,x)`.
                Some(Token::Symbol(",")) => out.push(String::new()),
                Some(Token::Symbol(")")) => {
                    out.push(String::new());
                    break;
                }
                other => return Err(Self::unexpected(other, "',', ')' or identifier")),
            }
        }
        out.sort();
        out.dedup();
        Ok(out)
    }
}

fn check_value(value: String) -> Result<String, SelectorError> {
    match names::label_value(&value).first() {
        None => Ok(value),
        Some(problem) => Err(SelectorError::Parse(format!("values[0]: Invalid value: {value:?}: {problem}"))),
    }
}

/// A parsed field selector; empty matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// `spec.nodeName=a,status.phase!=Running`, with the fields of this kind.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self, SelectorError> {
        let known = (kind.selectable_fields)(&Value::Null);
        let mut terms = Vec::new();
        for part in split_terms(text).into_iter().filter(|p| !p.is_empty()) {
            let (field, equal, value) = split_term(&part)
                .ok_or_else(|| SelectorError::Field(format!("invalid selector: '{text}'; can't understand '{part}'")))?;
            if !known.iter().any(|(name, _)| *name == field) {
                return Err(unknown_field(&known, field));
            }
            terms.push(Term { field: field.to_string(), equal, value: unescape(value)? });
        }
        Ok(FieldSelector { terms })
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value the field must equal, where there is exactly one (a watch on one name, the pods of one node).
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    pub fn matches(&self, kind: &Kind, object: &Value) -> bool {
        if self.terms.is_empty() {
            return true;
        }
        let fields = (kind.selectable_fields)(object);
        self.terms.iter().all(|t| fields.iter().any(|(name, v)| *name == t.field && (*v == t.value) == t.equal))
    }
}

fn unknown_field(known: &[(&str, String)], field: &str) -> SelectorError {
    let plain = known.iter().all(|(name, _)| name.starts_with("metadata."));
    SelectorError::Field(if plain {
        format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {field}")
    })
}

/// Splits at commas that no backslash precedes; the escapes stay.
fn split_terms(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        match c {
            ',' if !escaped => out.push(String::new()),
            _ => {
                if let Some(last) = out.last_mut() {
                    last.push(c);
                }
            }
        }
        escaped = c == '\\' && !escaped;
    }
    out
}

fn split_term(part: &str) -> Option<(&str, bool, &str)> {
    let at = part.find(['=', '!'])?;
    let (field, rest) = part.split_at(at);
    let (equal, value) = match rest {
        r if r.starts_with("!=") => (false, &r[2..]),
        r if r.starts_with("==") => (true, &r[2..]),
        r if r.starts_with('=') => (true, &r[1..]),
        _ => return None,
    };
    (!field.is_empty()).then_some((field, equal, value))
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                _ => return Err(SelectorError::Field(format!("invalid field selector: invalid escape sequence in {value:?}"))),
            },
            ',' | '=' => return Err(SelectorError::Field(format!("invalid field selector: unescaped {c:?} in {value:?}"))),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
