use super::*;
use proptest::prelude::*;

#[test]
fn places_and_images() {
    for (place, image, expected) in [
        ("reg.io", "reg.io/a/b", true),
        ("reg.io", "reg.io:5000/a", false),
        ("reg.io:5000", "reg.io:5000/a", true),
        ("reg.io/a", "reg.io/a/b", true),
        ("reg.io/a", "reg.io/ab", true),
        ("reg.io/a/", "reg.io/ab", false),
        ("reg.io/b", "reg.io/a/b", false),
        ("*.io", "reg.io/a", true),
        ("*.io", "a.reg.io/a", false),
        ("*.*.io", "a.reg.io/a", true),
        ("app*.io", "app-1.io/a", true),
        ("app*.io", "map.io/a", false),
        ("*app*.io", "my-app-1.io/a", true),
        ("r?g.io", "reg.io/a", false),
        ("*", "localhost/a", true),
        ("*.io:*", "reg.io:5000/a", false),
        ("reg.io/*", "reg.io/a", false),
        ("[::1]:5000", "[::1]:5000/a", true),
        ("127.0.0.1:5000/team", "127.0.0.1:5000/team/x", true),
        ("", "reg.io/a", false),
        ("reg .io", "reg .io/a", false),
    ] {
        assert_eq!(matches(place, image), expected, "{place} {image}");
    }
}

#[test]
fn what_may_stand_in_a_configuration() {
    for good in ["reg.io", "*.reg.io:5000/a/b", "[::1]:5000", "*"] {
        assert!(is_place(good), "{good}");
    }
    for bad in ["", "/a", "a b", "reg.io:port", "a\n", "https://reg.io"] {
        assert!(!is_place(bad), "{bad}");
    }
}

/// What Go's documentation of patterns says, by trying everything.
fn slow(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => slow(&pattern[1..], text) || (!text.is_empty() && slow(pattern, &text[1..])),
        (Some(b'?'), Some(_)) => slow(&pattern[1..], &text[1..]),
        (Some(p), Some(t)) if p == t => slow(&pattern[1..], &text[1..]),
        _ => false,
    }
}

fn login(name: &str) -> Login {
    Login { username: name.to_owned(), ..Login::default() }
}

proptest! {
    #[test]
    fn globs(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
        prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), slow(pattern.as_bytes(), text.as_bytes()));
    }

    /// Many stars must not take many years.
    #[test]
    fn hostile_globs(n in 1usize..2000) {
        let text = "a".repeat(n) + "b";
        prop_assert!(!glob("*a".repeat(n).as_bytes(), text.as_bytes()));
    }

    /// Each that is found fits; each that fits is found, once for each time it was added; the order is that of the places.
    #[test]
    fn what_fits_is_found(places in prop::collection::btree_set("(https://)?[ab*]{1,2}\\.io(:1)?(/[ab]{1,2}){0,2}", 0..8)) {
        let mut ring = Keyring::default();
        let config = |tag: &str| DockerConfig(places.iter().map(|p| (p.clone(), login(&format!("{tag}{p}")))).collect());
        ring.add(&Source::Node, config("1 "));
        ring.add(&Source::Node, config("2 "));
        let image = Reference::parse("ab.io/a/b").unwrap();
        let found: Vec<String> = ring.find(&image).into_iter().map(|c| c.config.username).collect();
        let fits = |p: &&String| matches(&effective(p).unwrap(), "ab.io/a/b");
        prop_assert_eq!(found.len(), 2 * places.iter().filter(fits).count());
        let of: Vec<String> = found.iter().map(|name| effective(&name[2..]).unwrap()).collect();
        prop_assert!(of.windows(2).all(|w| w[0] >= w[1]), "{:?}", of);
    }

    #[test]
    fn hostile_places(place in ".{0,40}", image in ".{0,40}") {
        let _ = (matches(&place, &image), is_place(&place));
        let mut ring = Keyring::default();
        ring.add(&Source::Node, DockerConfig([(place, login("u"))].into()));
        if let Ok(image) = Reference::parse(&image) {
            let _ = ring.find(&image);
        }
    }
}
