use super::*;

#[test]
fn every_row_can_be_found() {
    for kind in KINDS {
        assert_eq!(find(kind.group, kind.version, kind.plural), Some(*kind));
        assert_eq!(find_by_kind(kind.group, kind.kind), Some(*kind));
    }
}

#[test]
fn subresource_names_parse_back() {
    for sub in Sub::ALL {
        assert_eq!(Sub::parse(sub.name()), Some(sub));
    }
    assert_eq!(Sub::parse("nothing"), None);
}

#[test]
fn cells_match_columns() {
    for kind in KINDS {
        let cells = (kind.cells)(&Value::Null, Timestamp::UNIX_EPOCH);
        assert_eq!(cells.len(), kind.columns.len(), "{}", kind.kind);
    }
}
