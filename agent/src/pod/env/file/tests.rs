use super::*;
use proptest::prelude::*;

fn of(text: &str, key: &str) -> Result<Option<String>, String> {
    find(text.as_bytes(), key).map_err(|e| e.to_string())
}

#[test]
fn what_is_read() {
    for (text, expected) in [
        ("K='v'", Some("v")),
        ("K='v'\n", Some("v")),
        ("  \tK='v'  # why\r\n", Some("v")),
        ("# K='no'\n\n \t\nK='v'", Some("v")),
        ("K='first'\nK='second'", Some("first")),
        ("L='x'\nK='  a # b  '", Some("  a # b  ")),
        ("K='one\ntwo\r\n\n  three'\t", Some("one\ntwo\n\n  three")),
        ("L='K=\nK=\n'\nK='v'", Some("v")),
        ("K='a\"b\\n$(X)=c'", Some("a\"b\\n$(X)=c")),
        ("K='v'\nthis line is never reached", Some("v")),
        ("größe='x'\nK='ä'", Some("ä")),
        ("A B='x'\nK='v'", Some("v")),
        ("", None),
        ("L='x'\n", None),
        ("k='v'", None),
        ("K=''", None),
        ("K= 'v'\nK='later'", None),
        ("K=\t", None),
        ("K='\n'", Some("\n")),
    ] {
        assert_eq!(of(text, "K"), Ok(expected.map(str::to_owned)), "{text:?}");
    }
}

#[test]
fn what_is_refused_with_its_line() {
    for (text, expected) in [
        ("L='x'\nsecret\nK='v'", "line 2: missing '='"),
        ("='v'", "line 1: empty variable name"),
        ("  ='v'", "line 1: empty variable name"),
        ("K ='v'", "line 1: whitespace before '=' is not allowed"),
        ("\n\nK=secret", "line 3: value must be enclosed in single quotes"),
        ("K=\"secret\"", "line 1: value must be enclosed in single quotes"),
        ("K=", "line 1: value must be enclosed in single quotes"),
        ("export K='v'\nL='1' x\nK='2'", "line 2: unexpected content after closing quote"),
        ("K='a\nb' 'secret'", "line 2: unexpected content after closing quote"),
        ("\nL='secret\n\nmore", "line 2: unclosed single quote"),
    ] {
        assert_eq!(of(text, "K"), Err(expected.to_owned()), "{text:?}");
    }
    let bytes = [b"K='".as_slice(), &[0xff], b"'"].concat();
    assert_eq!(find(bytes.as_slice(), "K").unwrap_err().to_string(), "line 1: value is not UTF-8 text");
}

#[test]
fn sizes_at_their_limits() {
    let line = |len: usize| format!("L='{}'", "x".repeat(len - 4));
    assert_eq!(of(&format!("{}\nK='v'", line(65_535)), "K"), Ok(Some("v".into())));
    assert_eq!(of(&format!("{}\nK='v'", line(65_536)), "K"), Err("line 1: the line is too long".into()));
    assert_eq!(of(&line(65_535), "K"), Ok(None));
    assert_eq!(of(&line(65_536), "K"), Err("line 1: the line is too long".into()), "also where the file ends with it");

    let value = |len: usize| format!("\n{}", "x".repeat(999)).repeat(len / 1000);
    let fits = format!("K='{}'", value(131_000));
    assert_eq!(of(&fits, "K").unwrap().unwrap().len(), 131_000);
    assert_eq!(of(&format!("K='{}'", value(132_000)), "K"), Err("line 1: value is longer than any process can be given".into()));
    assert_eq!(of(&format!("L='{}'\nK='v'", value(1_000_000)), "K"), Ok(Some("v".into())), "others may be of any length");

    let endless = std::io::repeat(b'\n');
    assert!(matches!(find(endless, "K"), Err(FileError::TooBig)));
    let never_closed = b"K='".as_slice().chain(std::io::repeat(b'\n'));
    assert!(find(never_closed, "K").is_err());
}

/// How a shell would have to be told each of these values.
fn written(vars: &[(String, String)], noise: &[String]) -> String {
    let mut out = String::new();
    for (i, (name, value)) in vars.iter().enumerate() {
        out.push_str(noise.get(i).map_or("", String::as_str));
        out.push_str(&format!("{name}='{value}'\n"));
    }
    out
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        vars in prop::collection::vec(("[A-Za-z_.][A-Za-z0-9 _.-]{0,8}[A-Z0-9]", "[^'\r]{1,40}"), 1..8),
        noise in prop::collection::vec("([ \t]{0,3}(#[^\r\n]{0,10})?\r?\n){0,3}[ \t]{0,3}", 0..8),
    ) {
        let text = written(&vars, &noise);
        for (name, _) in &vars {
            let first = vars.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
            prop_assert_eq!(of(&text, name), Ok(first), "{} in {:?}", name, text);
        }
        prop_assert_eq!(of(&text, "absent"), Ok(None));
    }

    /// Anything at all: no panic, and no word of the content in an error.
    #[test]
    fn hostile_bytes(bytes in prop::collection::vec(prop_oneof![Just(b'='), Just(b'\''), Just(b'\n'), Just(b' '), Just(b'K'), Just(b'#'), any::<u8>()], 0..300)) {
        if let Err(error) = find(bytes.as_slice(), "K") {
            let text = error.to_string();
            prop_assert!(text.starts_with("line "), "{}", text);
        }
    }
}
