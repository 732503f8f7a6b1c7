//! Messages of D-Bus as bytes, by its specification: those few types that systemd's manager is asked with and answers in. Pure.
//!
//! What comes in is from outside: every length is checked against what is there before it is believed.

/// No answer that is waited for is nearly this long; what is longer is refused before it is read.
pub(crate) const LONGEST: usize = 1 << 20;
/// The part of a message that says how long the rest is.
pub(crate) const HEAD: usize = 16;

/// What a property is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    U64(u64),
    Text(String),
    Texts(Vec<String>),
    Bytes(Vec<u8>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Bool(_) => "b",
            Value::U64(_) => "t",
            Value::Text(_) => "s",
            Value::Texts(_) => "as",
            Value::Bytes(_) => "ay",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it ends before it is whole")]
    Short,
    #[error("it is too long")]
    Long,
    #[error("it is not of this version of the protocol")]
    Protocol,
    #[error("a text in it is none")]
    Text,
    #[error("a field of its head has a type that it must not have")]
    Field,
    #[error("its content is not of the type {0}")]
    Content(&'static str),
}

/// Little-endian; every value begins at a multiple of its size.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub(crate) fn u32(&mut self, n: u32) {
        self.align(4);
        self.bytes.extend(n.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    pub(crate) fn bool(&mut self, on: bool) {
        self.u32(u32::from(on));
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(text.len() as u8);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// A list whose entries begin at multiples of `to`. The length counts neither itself nor the gap before the first entry.
    pub(crate) fn list(&mut self, to: usize, entries: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let at = self.bytes.len() - 4;
        self.align(to);
        let begin = self.bytes.len();
        entries(self);
        let length = (self.bytes.len() - begin) as u32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(on) => self.bool(*on),
            Value::U64(n) => {
                self.align(8);
                self.bytes.extend(n.to_le_bytes());
            }
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => self.list(4, |w| texts.iter().for_each(|text| w.text(text))),
            Value::Bytes(bytes) => self.list(1, |w| w.bytes.extend(bytes)),
        }
    }

    #[cfg(test)]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    #[cfg(test)]
    pub(crate) fn variant_text(&mut self, text: &str) {
        self.variant(&Value::Text(text.to_owned()));
    }

    /// `a(sv)`
    pub(crate) fn properties(&mut self, properties: &[(&str, Value)]) {
        self.list(8, |w| {
            for (name, value) in properties {
                w.align(8);
                w.text(name);
                w.variant(value);
            }
        });
    }
}

/// A method call to one object.
pub(crate) struct Call<'a> {
    /// Who has the object; on a connection without a bus between nobody needs to be named.
    pub(crate) destination: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
    /// Of the content; empty if there is none.
    pub(crate) signature: &'a str,
}

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

pub(crate) fn call(serial: u32, call: &Call<'_>, content: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut body = Writer::default();
    content(&mut body);
    let mut w = Writer { bytes: vec![b'l', METHOD_CALL, 0, 1] };
    w.u32(body.bytes.len() as u32);
    w.u32(serial);
    w.list(8, |w| {
        let mut field = |code: u8, kind: &str, text: &str| {
            w.align(8);
            w.bytes.push(code);
            w.signature(kind);
            match kind {
                "g" => w.signature(text),
                _ => w.text(text),
            }
        };
        field(PATH, "o", call.path);
        field(INTERFACE, "s", call.interface);
        field(MEMBER, "s", call.member);
        if let Some(destination) = call.destination {
            field(DESTINATION, "s", destination);
        }
        if !call.signature.is_empty() {
            field(SIGNATURE, "g", call.signature);
        }
    });
    w.align(8);
    w.bytes.extend(body.bytes);
    w.bytes
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Return {
        to: u32,
    },
    Error {
        to: u32,
        name: String,
    },
    Signal {
        interface: String,
        member: String,
    },
    /// Calls to us, and what later versions may have: passed over.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) sender: String,
    signature: String,
    big: bool,
    body: Vec<u8>,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len()).ok_or(Malformed::Short)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), Malformed> {
        let gap = self.at.next_multiple_of(to) - self.at;
        self.take(gap).map(drop)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.align(4)?;
        let mut n = [0; 4];
        n.copy_from_slice(self.take(4)?);
        Ok(if self.big { u32::from_be_bytes(n) } else { u32::from_le_bytes(n) })
    }

    fn ended(&mut self, length: usize) -> Result<String, Malformed> {
        let text = self.take(length)?;
        if self.byte()? != 0 || text.contains(&0) {
            return Err(Malformed::Text);
        }
        String::from_utf8(text.to_vec()).map_err(|_| Malformed::Text)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = self.u32()? as usize;
        self.ended(length)
    }

    fn signature(&mut self) -> Result<String, Malformed> {
        let length = usize::from(self.byte()?);
        self.ended(length)
    }
}

/// How long the fields of the head, with the gap after them, and the content are.
pub(crate) fn lengths(head: &[u8; HEAD]) -> Result<(usize, usize), Malformed> {
    let mut r = Reader { bytes: head, at: 4, big: head[0] == b'B' };
    if !matches!(head[0], b'l' | b'B') || head[3] != 1 {
        return Err(Malformed::Protocol);
    }
    let body = r.u32()? as usize;
    r.u32()?;
    let fields = r.u32()? as usize;
    // Each alone first, so that the sum cannot overflow.
    if body > LONGEST || fields > LONGEST || fields.next_multiple_of(8) + body > LONGEST {
        return Err(Malformed::Long);
    }
    Ok((fields, body))
}

/// `rest` is what `lengths` says that follows the head.
pub(crate) fn message(head: &[u8; HEAD], rest: &[u8]) -> Result<Message, Malformed> {
    let (fields, body) = lengths(head)?;
    let big = head[0] == b'B';
    let begin = fields.next_multiple_of(8);
    if rest.len() != begin + body {
        return Err(Malformed::Short);
    }
    let (mut texts, mut reply) = (<[String; 9]>::default(), None);
    // The head is a multiple of 8 long, so that what is aligned here is aligned in the whole.
    let mut r = Reader { bytes: &rest[..fields], at: 0, big };
    while r.at < fields {
        r.align(8)?;
        let code = r.byte()?;
        let kind = r.signature()?;
        match (kind.as_str(), code) {
            ("u", REPLY_SERIAL) => reply = Some(r.u32()?),
            ("u", _) => drop(r.u32()?),
            ("g", _) => {
                let text = r.signature()?;
                put(&mut texts, code, text);
            }
            ("s" | "o", _) => {
                let text = r.text()?;
                put(&mut texts, code, text);
            }
            _ => return Err(Malformed::Field),
        }
    }
    let mut of = |code: u8| std::mem::take(&mut texts[usize::from(code)]);
    let kind = match (head[1], reply) {
        (METHOD_RETURN, Some(to)) => Kind::Return { to },
        (ERROR, Some(to)) => Kind::Error { to, name: of(ERROR_NAME) },
        (METHOD_RETURN | ERROR, None) => return Err(Malformed::Field),
        (SIGNAL, _) => Kind::Signal { interface: of(INTERFACE), member: of(MEMBER) },
        _ => Kind::Other,
    };
    Ok(Message { kind, sender: of(SENDER), signature: of(SIGNATURE), big, body: rest[begin..].to_vec() })
}

fn put(texts: &mut [String; 9], code: u8, text: String) {
    if let Some(place) = texts.get_mut(usize::from(code)) {
        *place = text;
    }
}

impl Message {
    fn reader(&self, signature: &'static str) -> Result<Reader<'_>, Malformed> {
        match self.signature == signature {
            true => Ok(Reader { bytes: &self.body, at: 0, big: self.big }),
            false => Err(Malformed::Content(signature)),
        }
    }

    pub(crate) fn path(&self) -> Result<String, Malformed> {
        self.reader("o")?.text()
    }

    /// What an error says beside its name.
    pub(crate) fn words(&self) -> String {
        // An error may have more than its words.
        let begins = self.signature.starts_with('s');
        let mut r = Reader { bytes: &self.body, at: 0, big: self.big };
        begins.then(|| r.text().ok()).flatten().unwrap_or_default()
    }

    /// A property that is a text.
    pub(crate) fn text_property(&self) -> Result<String, Malformed> {
        let mut r = self.reader("v")?;
        match r.signature()?.as_str() {
            "s" => r.text(),
            _ => Err(Malformed::Content("v of s")),
        }
    }

    /// Of the signal that a job has ended: its path, and how.
    pub(crate) fn job_removed(&self) -> Result<(String, String), Malformed> {
        let mut r = self.reader("uoss")?;
        r.u32()?;
        let path = r.text()?;
        r.text()?;
        Ok((path, r.text()?))
    }
}

#[cfg(test)]
mod tests;
