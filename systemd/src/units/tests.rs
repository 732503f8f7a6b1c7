use super::*;

#[test]
fn a_slice_lies_in_the_one_that_its_name_says() {
    assert_eq!(parent("kubepods-burstable-pod1_2.slice").as_deref(), Some("kubepods-burstable.slice"));
    assert_eq!(parent("kubepods.slice"), None);
    assert_eq!(parent("-.slice"), None);
    assert_eq!(parent("a.scope"), None);
}
