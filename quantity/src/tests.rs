use super::*;
use proptest::prelude::*;

fn q(text: &str) -> Quantity {
    text.parse().unwrap()
}

#[test]
fn reads_what_the_api_documents() {
    for (text, milli) in [
        ("0", 0),
        ("100m", 100),
        ("0.1", 100),
        ("1", 1000),
        ("1.5", 1500),
        ("2e3", 2_000_000),
        ("1E2", 100_000),
        ("1k", 1_000_000),
        ("1Ki", 1_024_000),
        ("1.5Ki", 1_536_000),
        ("-1", -1000),
        ("+1", 1000),
        (".5", 500),
        ("1.", 1000),
        ("1n", 1),
        ("1e-3", 1),
    ] {
        assert_eq!(q(text).milli(), milli, "{text}");
    }
    assert_eq!(q("1E").units(), 1_000_000_000_000_000_000);
    assert_eq!(q("-1n").milli(), 0);
    assert_eq!(q("1n").units(), 1);
}

#[test]
fn refuses_what_is_not_a_quantity() {
    for text in ["", "-", "abc", "1.2.3", "1 Gi", "1gi", "1e", "1e+", "1Kii", "١", "1e99999999999", "--1", "0x10"] {
        assert!(text.parse::<Quantity>().is_err(), "{text:?}");
    }
}

#[test]
fn caps_and_rounds_without_overflow() {
    assert_eq!(q("1e400").units(), i64::MAX);
    assert_eq!(q(&"9".repeat(500)).units(), i64::MAX);
    assert_eq!(q("1e-400").milli(), 1);
    assert_eq!(q("0e400").units(), 0);
    assert_eq!(q(&format!("0.{}1", "0".repeat(400))).milli(), 1);
    assert_eq!(q("8Ei").units(), i64::MAX);
}

#[test]
fn prints_canonically() {
    for (text, printed) in [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1536Ki", "1536Ki"),
        ("1000", "1k"),
        ("100Ki", "100Ki"),
        ("512", "512"),
        ("1.5Gi", "1536Mi"),
        ("2000e3", "2e6"),
        ("0.0000000001", "1n"),
        ("-500m", "-500m"),
        ("0Ki", "0"),
    ] {
        assert_eq!(q(text).to_string(), printed, "{text}");
    }
}

#[test]
fn divides_by_a_divisor() {
    assert_eq!(q("250m").div_ceil(q("1m")), 250);
    assert_eq!(q("250m").div_ceil(q("1")), 1);
    assert_eq!(q("64Mi").div_ceil(q("1Mi")), 64);
    assert_eq!(q("64Mi").div_ceil(q("0")), 64 << 20);
}

proptest! {
    #[test]
    fn printed_form_reads_back(nanos in -1_000_000_000_000_000_000_000i128..1_000_000_000_000_000_000_000, f in 0..3) {
        let format = [Format::DecimalSi, Format::BinarySi, Format::DecimalExponent][f as usize];
        let quantity = Quantity { nanos, format };
        prop_assert_eq!(quantity.to_string().parse::<Quantity>().unwrap(), quantity);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
        let _ = text.parse::<Quantity>();
    }

    #[test]
    fn order_is_that_of_the_numbers(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000) {
        prop_assert_eq!(Quantity::from_milli(a).cmp(&Quantity::from_milli(b)), a.cmp(&b));
        prop_assert_eq!((Quantity::from_milli(a) + Quantity::from_milli(b)).milli(), a + b);
    }
}
