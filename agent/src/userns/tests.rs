use super::*;

#[test]
fn blocks_are_apart_and_never_the_hosts_own() {
    let range = Range::new(131_072, 65_536 * 3, 65_536, 3).unwrap();
    let mut taken = Vec::new();
    for random in [u32::MAX, 7, 0] {
        let block = range.choose(&taken, random).unwrap();
        assert!(block.first >= 131_072 && block.first < 131_072 + 3 * 65_536 && block.length == 65_536);
        assert!(taken.iter().all(|other: &Block| other.first != block.first));
        taken.push(block);
    }
    assert_eq!(range.choose(&taken, 1), Err(Error::Full));
    taken.remove(1);
    assert!(range.choose(&taken, 1).is_ok());
}

#[test]
fn blocks_of_another_size_count_where_they_overlap() {
    let range = Range::new(131_072, 131_072 * 2, 131_072, 2).unwrap();
    let small = Block { first: 262_144 + 65_536, length: 65_536 };
    assert_eq!(range.choose(&[small], 1).unwrap().first, 131_072);
    let wide = Block { first: 65_536, length: 1 << 20 };
    assert_eq!(range.choose(&[small, wide], 0), Err(Error::Full));
}

#[test]
fn the_whole_range_ends_with_the_last_id() {
    let range = Range::whole(65_536, 110).unwrap();
    let last = range.choose(&[], 65_534).unwrap();
    assert_eq!(u64::from(last.first) + u64::from(last.length), 1 << 32);
    assert_eq!(range.choose(&[last], 65_534).unwrap().first, 65_536);
}

#[test]
fn ranges_that_cannot_be_used_are_told() {
    for (first, length, each, pods, text) in [
        (65_536, 65_536 * 200, 65_536, 110, ""),
        (65_537, 65_536 * 200, 65_536, 110, "not a multiple of 65536"),
        (0, 65_536 * 200, 65_536, 110, "must be greater than or equal to 65536"),
        (65_536, 65_537, 65_536, 1, "65537 is not a multiple of 65536"),
        (65_536, 65_536 * 109, 65_536, 110, "not enough for 110 pods"),
        (65_536, 1 << 32, 65_536, 110, "more than there are"),
        (65_536, 65_536, 1000, 1, "1000 ids a pod are not a multiple"),
    ] {
        let said = Range::new(first, length, each, pods).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(said.contains(text) && said.is_empty() == text.is_empty(), "{first} {length} {each} {pods}: {said}");
    }
    assert!(Range::whole(196_608, 110).is_err(), "the rest is no whole block");
}

#[test]
fn files_are_kubelets() {
    let block = Block { first: 131_072, length: 65_536 };
    let text = r#"{"uidMappings":[{"hostId":131072,"containerId":0,"length":65536}],"gidMappings":[{"hostId":131072,"containerId":0,"length":65536}]}"#;
    assert_eq!(block.to_file(), text);
    assert_eq!(Block::of_file(text.as_bytes()), Ok(block));
    let of = |uids: &str, gids: &str| Block::of_file(format!(r#"{{"uidMappings":[{uids}],"gidMappings":[{gids}]}}"#).as_bytes());
    let one = |host: u64, inside: u32, length: u64| format!(r#"{{"hostId":{host},"containerId":{inside},"length":{length}}}"#);
    let good = one(131_072, 0, 65_536);
    for (uids, gids) in [
        (String::new(), String::new()),
        (format!("{good},{good}"), format!("{good},{good}")),
        (good.clone(), one(196_608, 0, 65_536)),
        (one(131_072, 1, 65_536), one(131_072, 1, 65_536)),
        (one(0, 0, 65_536), one(0, 0, 65_536)),
        (one(131_072, 0, 0), one(131_072, 0, 0)),
        (one(131_072, 0, 4_294_967_295), one(131_072, 0, 4_294_967_295)),
        (one(1 << 40, 0, 1), one(1 << 40, 0, 1)),
    ] {
        assert!(of(&uids, &gids).is_err(), "{uids} {gids}");
    }
    for text in ["", "{}", "[]", "\u{0}"] {
        assert!(Block::of_file(text.as_bytes()).unwrap_err().to_string().starts_with("invalid user namespace mappings file"));
    }
}

#[test]
fn a_runtime_must_know_user_namespaces() {
    let with = |user_namespaces| cri::HandlerFeatures { user_namespaces, ..Default::default() };
    let status = |handlers: &[(&str, bool)]| cri::RuntimeStatus {
        handlers: handlers.iter().map(|(name, on)| ((*name).to_owned(), with(*on))).collect(),
        ..Default::default()
    };
    let runtime = "can't set `spec.hostUsers: false`, runtime does not support user namespaces";
    assert_eq!(unsupported(&status(&[("", true), ("runc", false)]), ""), None);
    assert_eq!(unsupported(&status(&[]), ""), Some(runtime.to_owned()));
    assert_eq!(unsupported(&status(&[("", false)]), ""), Some(runtime.to_owned()));
    let handler = "can't set `spec.hostUsers: false`, RuntimeClass handler \"runc\" does not support user namespaces";
    assert_eq!(unsupported(&status(&[("", true), ("runc", false)]), "runc"), Some(handler.to_owned()));
    assert_eq!(unsupported(&status(&[("", true)]), "runc"), Some(format!("{handler}: the handler \"runc\" is not known")));
}

#[test]
fn what_getsubids_says() {
    assert_eq!(subids("0: kubelet 65536 2147483648\n"), Ok((65_536, 2_147_483_648)));
    for bad in ["", "0: kubelet 1 2\n1: kubelet 3 4\n", "0: kubelet 65536", "0: kubelet -1 5", "0: kubelet 1 4294967296"] {
        assert!(subids(bad).is_err(), "{bad:?}");
    }
}
