//! Resource quantities of the Kubernetes API (`100m`, `1.5Gi`, `2e3`), held exactly.
//!
//! Owns the parsing, comparing, adding and printing of quantities; agent and stub both use it. The value is a whole
//! number of nanos in an `i128`, because the API rounds anything finer up to a nano and caps values below 2^63 units:
//! no floating point is ever involved. Source: `apimachinery/pkg/api/resource`, documentation of `Quantity`.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
/// The API caps quantities at this many units (2^63 - 1).
const MAX_UNITS: i128 = i64::MAX as i128;

/// Which family of suffixes a quantity was written in; printing keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `m`, `k`, `M`, ...
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, `Gi`, ...
    BinarySi,
    /// `1e3`
    DecimalExponent,
}

/// An exact amount of a resource.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is not a quantity. The text is part of the message, shortened to 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("quantity is empty, expected a number with an optional suffix such as 100m or 1Gi")]
    Empty,
    #[error("quantity {0:?} has no digits")]
    NoDigits(String),
    #[error("quantity {text:?} has an unknown suffix {suffix:?}")]
    Suffix { text: String, suffix: String },
    #[error("quantity {0:?} has an exponent out of range")]
    Exponent(String),
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    /// A whole number of units (bytes, cores, pods).
    pub fn from_units(units: i64) -> Self {
        Quantity { nanos: i128::from(units) * NANO, format: Format::DecimalSi }
    }

    /// Thousandths of a unit (millicores).
    pub fn from_milli(milli: i64) -> Self {
        Quantity { nanos: i128::from(milli) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Bytes, printed with binary suffixes.
    pub fn from_bytes(bytes: u64) -> Self {
        Quantity { nanos: i128::from(bytes) * NANO, format: Format::BinarySi }
    }

    /// Units, rounded up (toward positive infinity) as the API's `Value()` does.
    pub fn units(&self) -> i64 {
        clamp(div_ceil(self.nanos, NANO))
    }

    /// Thousandths, rounded up, as the API's `MilliValue()` does.
    pub fn milli(&self) -> i64 {
        clamp(div_ceil(self.nanos, NANO / 1000))
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// This amount divided by a divisor, rounded up to a whole number: the rule of `resourceFieldRef.divisor`.
    /// A divisor of zero counts as one unit.
    pub fn div_ceil(&self, divisor: Quantity) -> i64 {
        let by = if divisor.nanos == 0 { NANO } else { divisor.nanos };
        clamp(div_ceil(self.nanos, by))
    }
}

fn clamp(v: i128) -> i64 {
    i64::try_from(v).unwrap_or(if v < 0 { i64::MIN } else { i64::MAX })
}

fn div_ceil(a: i128, b: i128) -> i128 {
    let q = a / b;
    if a % b != 0 && (a < 0) == (b < 0) { q + 1 } else { q }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::Empty);
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let digits_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ParseError::NoDigits(short(text)));
        }
        let (format, scale) = parse_suffix(text, suffix)?;
        let nanos = scaled(whole, fraction, scale);
        let nanos = nanos.min(MAX_UNITS * NANO);
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }
}

#[derive(Clone, Copy)]
enum Scale {
    Pow2(u32),
    Pow10(i32),
}

fn parse_suffix(text: &str, suffix: &str) -> Result<(Format, Scale), ParseError> {
    use Format::*;
    Ok(match suffix {
        "" => (DecimalSi, Scale::Pow10(0)),
        "n" => (DecimalSi, Scale::Pow10(-9)),
        "u" => (DecimalSi, Scale::Pow10(-6)),
        "m" => (DecimalSi, Scale::Pow10(-3)),
        "k" => (DecimalSi, Scale::Pow10(3)),
        "M" => (DecimalSi, Scale::Pow10(6)),
        "G" => (DecimalSi, Scale::Pow10(9)),
        "T" => (DecimalSi, Scale::Pow10(12)),
        "P" => (DecimalSi, Scale::Pow10(15)),
        "E" => (DecimalSi, Scale::Pow10(18)),
        "Ki" => (BinarySi, Scale::Pow2(10)),
        "Mi" => (BinarySi, Scale::Pow2(20)),
        "Gi" => (BinarySi, Scale::Pow2(30)),
        "Ti" => (BinarySi, Scale::Pow2(40)),
        "Pi" => (BinarySi, Scale::Pow2(50)),
        "Ei" => (BinarySi, Scale::Pow2(60)),
        _ => match suffix.strip_prefix(['e', 'E']) {
            Some(exponent) if !exponent.is_empty() => {
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(ParseError::Suffix { text: short(text), suffix: short(suffix) });
                }
                let power: i32 = exponent.parse().map_err(|_| ParseError::Exponent(short(text)))?;
                (DecimalExponent, Scale::Pow10(power))
            }
            _ => return Err(ParseError::Suffix { text: short(text), suffix: short(suffix) }),
        },
    })
}

/// `whole.fraction` times the scale in nanos, rounded up, saturating at the API's cap.
fn scaled(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let cap = MAX_UNITS * NANO;
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').skip_while(|d| *d == 0).collect();
    if digits.is_empty() {
        return 0;
    }
    let (multiplier, power) = match scale {
        Scale::Pow2(p) => (1i128 << p, 0i64),
        Scale::Pow10(p) => (1, i64::from(p)),
    };
    // value = digits * multiplier * 10^(power - fraction.len() + 9) nanos
    let exponent = power - fraction.len() as i64 + 9;
    // Digits beyond this many places can only matter for rounding up; with the multiplier the product must fit an i128.
    let magnitude = digits.len() as i64 + exponent;
    if magnitude > 30 {
        return cap;
    }
    // Below half a nano even with the largest binary multiplier (2^60 < 10^19): rounds up to one nano.
    if magnitude < -20 {
        return 1;
    }
    // Keep what an i128 holds together with the multiplier (10^30, or 10^19 times 2^60), rounding the rest up.
    let kept = digits.len().min(if multiplier == 1 { 30 } else { 19 });
    let mut value = digits[..kept].iter().fold(0i128, |v, d| v * 10 + i128::from(*d));
    if digits[kept..].iter().any(|d| *d != 0) {
        value += 1;
    }
    let exponent = exponent + (digits.len() - kept) as i64;
    let value = value.saturating_mul(multiplier);
    let value = if exponent >= 0 {
        10i128.checked_pow(exponent as u32).map_or(i128::MAX, |p| value.saturating_mul(p))
    } else {
        match 10i128.checked_pow((-exponent) as u32) {
            Some(p) => div_ceil(value, p),
            None => 1,
        }
    };
    value.min(cap)
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that leaves no fraction; binary quantities below 1Ki or with a fraction
    /// print as decimals, as the API does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi && self.nanos % NANO == 0 && self.nanos.abs() >= 1024 * NANO {
            let units = self.nanos / NANO;
            const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            let steps = ((units.trailing_zeros() / 10) as usize).min(6);
            return write!(f, "{}{}", units >> (10 * steps), SUFFIXES[steps]);
        }
        let mut value = self.nanos;
        let mut power = -9;
        while value % 1000 == 0 && power < 18 {
            value /= 1000;
            power += 3;
        }
        if self.format == Format::DecimalExponent && power != 0 {
            return write!(f, "{value}e{power}");
        }
        let suffix = match power {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            0 => "",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            _ => "E",
        };
        write!(f, "{value}{suffix}")
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}
impl Add for Quantity {
    type Output = Quantity;
    fn add(self, other: Self) -> Self {
        // A sum takes the format of its first non-zero part, as the API's `Add` does.
        let format = if self.nanos == 0 { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}
impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
impl Sub for Quantity {
    type Output = Quantity;
    fn sub(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_sub(other.nanos), format }
    }
}
impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Quantity::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests;
