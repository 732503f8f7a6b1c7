use super::State::{Absent, Present, Waiting};
use super::*;

fn object(finalizers: &[&str], deleting: bool, owners: usize) -> Fields {
    Fields {
        finalizers: finalizers.iter().map(|f| f.to_string()).collect(),
        deletion_timestamp: deleting.then(|| "2026-01-01T00:00:00Z".into()),
        owner_references: (0..owners).map(|i| Owner { uid: format!("o{i}"), ..Owner::default() }).collect(),
        ..Fields::default()
    }
}

fn is(finalizers: &[&str], deleting: bool, owners: &[State], blocked: bool) -> String {
    format!("{:?}", decide(&object(finalizers, deleting, owners.len()), owners, blocked))
}

#[test]
fn all_cases() {
    assert_eq!(is(&[], false, &[], false), "Nothing");
    assert_eq!(is(&[], false, &[Present], true), "Nothing");
    assert_eq!(is(&[], false, &[Absent], false), "Delete(Background)");
    assert_eq!(is(&[], false, &[Absent, Absent], true), "Delete(Background)");
    assert_eq!(is(&[ORPHAN], false, &[Absent], false), "Delete(Orphan)");
    assert_eq!(is(&[FOREGROUND], false, &[Absent], false), "Delete(Foreground)");
    assert_eq!(is(&[], false, &[Present, Absent], false), "Unlink([\"o1\"])");
    assert_eq!(is(&[], false, &[Waiting, Present, Absent], false), "Unlink([\"o0\", \"o2\"])");
    assert_eq!(is(&[], false, &[Waiting], false), "Delete(Background)");
    assert_eq!(is(&[], false, &[Waiting, Absent], true), "Delete(Foreground)");
    assert_eq!(is(&[], true, &[Absent], false), "Nothing");
    assert_eq!(is(&[ORPHAN], true, &[], true), "OrphanDependents");
    assert_eq!(is(&[FOREGROUND], true, &[], true), "VisitDependents");
    assert_eq!(is(&[FOREGROUND], true, &[], false), "RemoveFinalizer(\"foregroundDeletion\")");
}
