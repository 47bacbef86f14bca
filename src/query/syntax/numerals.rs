//! Numbers and durations as texts.

/// A number as Go reads one: with base 0 as an integer, else as a float.
pub(super) fn number(text: &str) -> Result<f64, String> {
    if let Some(whole) = integer(text) {
        return Ok(whole as f64);
    }
    let wrong = |what: &str| Err(format!("error parsing number: strconv.ParseFloat: parsing \"{text}\": {what}"));
    let bytes = text.as_bytes();
    let separates =
        |at: usize| at > 0 && bytes[at - 1].is_ascii_digit() && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
    if !text.match_indices('_').all(|(at, _)| separates(at)) {
        return wrong("invalid syntax");
    }
    match text.replace('_', "").parse::<f64>() {
        Ok(value) if value.is_infinite() && !text.to_ascii_lowercase().contains("inf") => wrong("value out of range"),
        Ok(value) => Ok(value),
        Err(_) => wrong("invalid syntax"),
    }
}

/// A whole number in Go's syntax: `0x` hexadecimal, a leading `0` octal, underscores between digits where there is a prefix.
fn integer(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => match lower.strip_prefix('0') {
            Some(digits) if !digits.is_empty() => (digits, 8),
            _ => (&*lower, 10),
        },
    };
    // Between digits, and after a prefix, one is allowed; in decimal numbers too, since the base is to be found out.
    let is_misplaced = digits.ends_with('_') || digits.contains("__") || (radix == 10 && digits.starts_with('_'));
    if is_misplaced {
        return None;
    }
    i64::from_str_radix(&digits.replace('_', ""), radix).ok()
}

/// Seconds of a duration as `model.ParseDuration` reads it.
pub(super) fn duration(text: &str) -> Result<f64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    const MILLIS_MAX: u64 = i64::MAX as u64 / 1_000_000;
    let wrong = || format!("not a valid duration string: {}", super::quoted(text));
    let (mut rest, mut units, mut total) = (text, &UNITS[..], 0_u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let place = units.iter().position(|(unit, _)| *unit == &after[..letters]).ok_or_else(wrong)?;
        let count: u64 = number.parse().map_err(|_| if digits == 0 { wrong() } else { out_of_range() })?;
        let millis = count.checked_mul(units[place].1).and_then(|millis| total.checked_add(millis));
        total = millis.filter(|total| *total <= MILLIS_MAX).ok_or_else(out_of_range)?;
        (units, rest) = (&units[place + 1..], &after[letters..]);
    }
    Ok(total as f64 / 1000.0)
}

fn out_of_range() -> String {
    "duration out of range".to_owned()
}
