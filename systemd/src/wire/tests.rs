use super::*;

const STOP: Call<'static> = Call { destination: None, path: "/a", interface: "b.c", member: "Stop", signature: "ss" };

#[test]
fn a_call_is_as_the_specification_lays_it_out() {
    let bytes = call(7, &STOP, |w| {
        w.text("x");
        w.text("yz");
    });
    #[rustfmt::skip]
    let wanted: &[u8] = &[
        // little-endian, method call, no flags, version 1; 15 bytes of content; serial 7; 56 bytes of fields
        b'l', 1, 0, 1, 15, 0, 0, 0, 7, 0, 0, 0, 56, 0, 0, 0,
        1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'a', 0, 0, 0, 0, 0, 0,
        2, 1, b's', 0, 3, 0, 0, 0, b'b', b'.', b'c', 0, 0, 0, 0, 0,
        3, 1, b's', 0, 4, 0, 0, 0, b'S', b't', b'o', b'p', 0, 0, 0, 0,
        8, 1, b'g', 0, 2, b's', b's', 0,
    ];
    let (before, content) = bytes.split_at(wanted.len());
    assert_eq!(before, wanted);
    assert_eq!(content, [1, 0, 0, 0, b'x', 0, 0, 0, 2, 0, 0, 0, b'y', b'z', 0]);
}

#[test]
fn properties_are_a_list_of_names_with_values_of_any_type() {
    let mut w = Writer::default();
    w.properties(&[
        ("A", Value::U64(0x0102_0304_0506_0708)),
        ("B", Value::Bool(true)),
        ("C", Value::Texts(vec!["x".into()])),
        ("D", Value::Bytes(vec![3, 5])),
        ("E", Value::Text("y".into())),
    ]);
    #[rustfmt::skip]
    let wanted: &[u8] = &[
        // the length, and the gap before the first entry, which is not counted
        106, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, b'A', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1,
        1, 0, 0, 0, b'B', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0,
        1, 0, 0, 0, b'C', 0, 2, b'a', b's', 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, b'x', 0, 0, 0,
        1, 0, 0, 0, b'D', 0, 2, b'a', b'y', 0, 0, 0, 2, 0, 0, 0, 3, 5, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, b'E', 0, 1, b's', 0, 0, 0, 0, 1, 0, 0, 0, b'y', 0,
    ];
    assert_eq!(w.bytes, wanted);
}

fn parse(bytes: &[u8]) -> Result<Message, Malformed> {
    let head: [u8; HEAD] = bytes[..HEAD].try_into().unwrap();
    message(&head, &bytes[HEAD..])
}

/// Laid out by hand, its fields in another order than ours.
const UNKNOWN: &[u8] = b"l\x03\x01\x01\x06\x00\x00\x00\x05\x00\x00\x00\x2a\x00\x00\x00\
    \x04\x01s\x00\x05\x00\x00\x00a.b.c\x00\x00\x00\
    \x05\x01u\x00\x03\x00\x00\x00\
    \x08\x01g\x00\x01s\x00\x00\
    \x07\x01s\x00\x01\x00\x00\x00d\x00\
    \x00\x00\x00\x00\x00\x00\
    \x01\x00\x00\x00w\x00";

#[test]
fn an_error_is_read() {
    let read = parse(UNKNOWN).unwrap();
    assert_eq!(read.kind, Kind::Error { to: 3, name: "a.b.c".into() });
    assert_eq!((read.sender.as_str(), read.words().as_str()), ("d", "w"));
    // Content of another type than what is wanted is told from it.
    assert_eq!(read.path(), Err(Malformed::Content("o")));
    assert_eq!(read.job_removed(), Err(Malformed::Content("uoss")));
}

/// What a call of ours looks like to who is called.
#[test]
fn what_is_written_is_read_the_same() {
    let job = Call { destination: Some("x"), path: "/o", interface: "i.j", member: "M", signature: "uoss" };
    let mut bytes = call(1, &job, |w| {
        w.u32(9);
        for text in ["/job/9", "a.slice", "done"] {
            w.text(text);
        }
    });
    bytes[1] = SIGNAL;
    let read = parse(&bytes).unwrap();
    assert_eq!(read.kind, Kind::Signal { interface: "i.j".into(), member: "M".into() });
    assert_eq!(read.job_removed(), Ok(("/job/9".into(), "done".into())));
}

#[test]
fn the_other_byte_order_is_read_too() {
    let bytes: &[u8] = b"B\x02\x00\x01\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x0f\
        \x05\x01u\x00\x00\x00\x00\x02\x08\x01g\x00\x01o\x00\x00\x00\x00\x00\x02/a\x00";
    let read = parse(bytes).unwrap();
    assert_eq!(read.kind, Kind::Return { to: 2 });
    assert_eq!(read.path().as_deref(), Ok("/a"));
}

#[test]
fn no_bytes_panic_and_no_length_is_believed() {
    let good = call(3, &STOP, |w| {
        w.text("x");
        w.text("y");
    });
    let mut random: u64 = 1;
    for round in 0..200_000usize {
        let mut bytes = good.clone();
        for _ in 0..=round % 3 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (random >> 33) as usize % bytes.len();
            bytes[at] = (random >> 24) as u8;
        }
        if let Ok(read) = parse(&bytes) {
            drop((read.words(), read.path(), read.job_removed(), read.text_property()));
        }
    }
    let head = |fields: u32, body: u32| {
        let mut head = [b'l', 2, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        head[4..8].copy_from_slice(&body.to_le_bytes());
        head[12..].copy_from_slice(&fields.to_le_bytes());
        head
    };
    for (fields, body) in [(0, u32::MAX), (u32::MAX, 0), (u32::MAX, u32::MAX), (1 << 20, 1), (0, (1 << 20) + 1)] {
        assert_eq!(lengths(&head(fields, body)), Err(Malformed::Long), "{fields} {body}");
    }
    assert_eq!(lengths(&head(3, 5)), Ok((3, 5)));
    assert_eq!(parse(&[b"l\x02\x00\x01".as_slice(), &[0; 12]].concat()), Err(Malformed::Field), "an answer to nothing");
    assert_eq!(parse(&[b"l\x02\x00\x02".as_slice(), &[0; 12]].concat()), Err(Malformed::Protocol));
}
