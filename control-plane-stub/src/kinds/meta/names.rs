//! The syntax of names, label keys and values, and the other small texts of the API. Each function returns what is wrong
//! with a text, in the API's words; nothing means it is fine.

pub type Problems = Vec<String>;

const LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";

fn alnum(c: u8) -> bool {
    c.is_ascii_alphanumeric()
}

fn lower_alnum(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Starts and ends with `edge`, has `edge` or one of `inner` between.
fn shaped(text: &str, edge: fn(u8) -> bool, inner: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            edge(*first) && edge(*last) && bytes.iter().all(|b| edge(*b) || inner.as_bytes().contains(b))
        }
        _ => false,
    }
}

fn too_long(text: &str, max: usize) -> Option<String> {
    (text.len() > max).then(|| format!("must be no more than {max} characters"))
}

fn problems(length: Option<String>, fits: bool, text: impl FnOnce() -> String) -> Problems {
    length.into_iter().chain((!fits).then(text)).collect()
}

pub fn dns1123_label(text: &str) -> Problems {
    problems(too_long(text, 63), shaped(text, lower_alnum, "-"), || {
        format!(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with \
             an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL_FMT}')"
        )
    })
}

pub fn dns1123_subdomain(text: &str) -> Problems {
    let fits = text.split('.').all(|part| shaped(part, lower_alnum, "-"));
    problems(too_long(text, 253), fits, || {
        format!(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and \
             end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{LABEL_FMT}(\\.{LABEL_FMT})*')"
        )
    })
}

/// A label key and the like: `[prefix/]name`.
pub fn qualified(text: &str) -> Problems {
    let (prefix, name) = match text.split_once('/') {
        None => (None, text),
        Some((prefix, name)) => (Some(prefix), name),
    };
    let mut out = Vec::new();
    match prefix {
        Some("") => out.push("prefix part must be non-empty".to_string()),
        Some(prefix) => out.extend(dns1123_subdomain(prefix).into_iter().map(|p| format!("prefix part {p}"))),
        None => {}
    }
    if name.is_empty() {
        out.push("name part must be non-empty".to_string());
    } else if let Some(problem) = too_long(name, 63) {
        out.push(format!("name part {problem}"));
    }
    if !shaped(name, alnum, "-_.") {
        out.push(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
             character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
                .to_string(),
        );
    }
    out
}

pub fn label_value(text: &str) -> Problems {
    problems(too_long(text, 63), text.is_empty() || shaped(text, alnum, "-_."), || {
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
         an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
         '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            .to_string()
    })
}

/// The name of a port: an IANA service name.
pub fn port_name(text: &str) -> Problems {
    let mut out = Vec::new();
    out.extend((text.len() > 15).then(|| "must be no more than 15 characters".to_string()));
    if text.is_empty() || !text.bytes().all(|b| lower_alnum(b) || b == b'-') {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_string());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)".to_string());
    }
    if text.contains("--") {
        out.push("must not contain consecutive hyphens".to_string());
    }
    if text.starts_with('-') || text.ends_with('-') {
        out.push("must not begin or end with a hyphen".to_string());
    }
    out
}

pub fn port_number(port: i64) -> Problems {
    problems(None, (1..=65535).contains(&port), || "must be between 1 and 65535, inclusive".to_string())
}

/// The name of an environment variable: any printable ASCII but `=`.
pub fn env_name(text: &str) -> Problems {
    let fits = !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=');
    problems(None, fits, || {
        "a valid environment variable name must consist only of printable ASCII characters other than '='".to_string()
    })
}

/// A key of a ConfigMap or Secret, which may become a file's name.
pub fn config_key(text: &str) -> Problems {
    let mut out =
        problems(too_long(text, 253), !text.is_empty() && text.bytes().all(|b| alnum(b) || b"-_.".contains(&b)), || {
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or \
             'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .to_string()
        });
    if text == "." || text == ".." {
        out.push(format!("must not be '{text}'"));
    } else if text.starts_with("..") {
        out.push("must not start with '..'".to_string());
    }
    out
}

/// The name of an HTTP header.
pub fn header_name(text: &str) -> Problems {
    problems(None, !text.is_empty() && text.bytes().all(|b| alnum(b) || b == b'-'), || {
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is \
         '[-A-Za-z0-9]+')"
            .to_string()
    })
}

/// An IP address.
pub fn ip(text: &str) -> Problems {
    problems(None, text.parse::<std::net::IpAddr>().is_ok(), || {
        "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_string()
    })
}
