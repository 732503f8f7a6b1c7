use super::*;
use proptest::prelude::*;

#[test]
fn what_is_written_is_read() {
    let mut w = Writer::default();
    let m = w.message(7, 1, 42, 2, 10);
    w.text(1, "abc");
    let n = w.nest(3);
    w.be32(5, 6);
    w.attr(9, &[1]);
    w.end(n);
    w.end_message(m);
    w.add_flags(0, 4);
    let all: Vec<_> = messages(&w.bytes).collect();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].kind, all[0].flags, all[0].seq), (7, 5, 42));
    let body = &all[0].body[4..];
    assert_eq!(find(body, 1), Some(&b"abc\0"[..]));
    let inside = find(body, 3).unwrap();
    assert_eq!(find(inside, 5), Some(&[0, 0, 0, 6][..]));
    assert_eq!(find(inside, 9), Some(&[1][..]));
    assert_eq!(find(inside, 8), None);
}

proptest! {
    /// Whatever arrives, reading ends and stays inside.
    #[test]
    fn reading_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(messages(&bytes).count() <= bytes.len());
        prop_assert!(attrs(&bytes).take(1000).count() <= bytes.len() / 4 + 1);
    }
}
