//! Whatever is a quantity says the same again when it is written and read back, and keeps its order.
#![no_main]

use ferrolet_quantity::Quantity;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(quantity) = text.parse::<Quantity>() else { return };
    let written = quantity.to_string();
    let again: Quantity = written.parse().unwrap_or_else(|e| panic!("{text:?} is written as {written:?}: {e}"));
    assert_eq!(quantity, again, "{text:?} is written as {written:?}");
    assert_eq!(written, again.to_string());
    assert!(quantity.div_ceil(again) <= 1);
});
