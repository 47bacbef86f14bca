//! Windows of time: `deny: 'Mon-Fri 08:00-09:00 Europe/Berlin'`.

use crate::plan::Window;

use super::problem::Report;
use super::tree::Node;

const DAYS: [(&str, i8); 7] = [("Mon", 1), ("Tue", 2), ("Wed", 3), ("Thu", 4), ("Fri", 5), ("Sat", 6), ("Sun", 7)];
const FORM: &str = "write [days] from-to [zone]: 'Mon-Fri 08:00-09:00 Europe/Berlin'";

/// Reads a list of windows.
pub(super) fn read_windows(report: &mut Report, node: &Node) -> Vec<Window> {
    report.list(node, "windows").iter().filter_map(|item| read_window(report, item)).collect()
}

fn read_window(report: &mut Report, node: &Node) -> Option<Window> {
    let fields = report.fields(node, "a window", &["deny", "allow"])?;
    let (deny, value) = match (fields.get("deny"), fields.get("allow")) {
        (Some(value), None) => (true, value),
        (None, Some(value)) => (false, value),
        (None, None) => {
            report.error(fields.at, "config/missing-field", "a window needs `deny` or `allow`", FORM);
            return None;
        }
        (Some(_), Some(allow)) => {
            let help = "make two windows of it";
            report.error(allow.at, "config/conflict", "`deny` and `allow` exclude each other", help);
            return None;
        }
    };
    let text = report.text(value, "a window of time")?;
    match parse(&text, deny) {
        Ok(window) => Some(window),
        Err(message) => {
            report.error(value.at, "policy/bad-window", message, FORM);
            None
        }
    }
}

/// Reads `[days] from-to [zone]`. Without days it is every day, without zone it is UTC.
fn parse(text: &str, deny: bool) -> Result<Window, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_time = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let (days, hours, zone) = match words[..] {
        [hours] if is_time(hours) => (None, hours, "UTC"),
        [hours, zone] if is_time(hours) => (None, hours, zone),
        [days, hours] if is_time(hours) => (Some(days), hours, "UTC"),
        [days, hours, zone] if is_time(hours) => (Some(days), hours, zone),
        _ => return Err(format!("`{text}` is not a window of time")),
    };
    let weekdays = match days {
        Some(days) => parse_days(days)?,
        None => (1..=7).collect(),
    };
    let (from, to) = hours.split_once('-').ok_or_else(|| format!("`{hours}` is not from-to"))?;
    let (from_minute, to_minute) = (parse_minute(from)?, parse_minute(to)?);
    if jiff::tz::TimeZone::get(zone).is_err() {
        return Err(format!("`{zone}` is not a time zone"));
    }
    let (zone, text) = (zone.to_owned(), text.to_owned());
    Ok(Window { deny, weekdays, from_minute, to_minute, zone, text })
}

/// `Mon-Fri`, `Sat,Sun`, `Fri-Mon,Wed`; sorted.
fn parse_days(text: &str) -> Result<Vec<i8>, String> {
    let number = |word: &str| {
        let found = DAYS.iter().find(|(day, _)| day.eq_ignore_ascii_case(word)).map(|(_, number)| *number);
        found.ok_or_else(|| format!("`{word}` is not a day (Mon, Tue, Wed, Thu, Fri, Sat, Sun)"))
    };
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        let mut day = first;
        days.push(day);
        while day != last {
            day = day % 7 + 1;
            days.push(day);
        }
    }
    days.sort_unstable();
    days.dedup();
    Ok(days)
}

/// `08:30` as minutes since midnight; `24:00` is midnight.
fn parse_minute(text: &str) -> Result<u16, String> {
    let wrong = || format!("`{text}` is not a time of day");
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let two_digits = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    if !two_digits(hour) || !two_digits(minute) {
        return Err(wrong());
    }
    let (hour, minute): (u16, u16) = (hour.parse().map_err(|_| wrong())?, minute.parse().map_err(|_| wrong())?);
    let all = hour * 60 + minute;
    if minute > 59 || all > 24 * 60 {
        return Err(wrong());
    }
    Ok(all % (24 * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, weekdays: &[i8], from_minute: u16, to_minute: u16, zone: &str) {
        let window = parse(text, true).expect("the test's window is valid");
        assert_eq!(
            (&window.weekdays[..], window.from_minute, window.to_minute, window.zone.as_str()),
            (weekdays, from_minute, to_minute, zone),
            "{text}"
        );
    }

    #[test]
    fn reads_days_hours_and_zone() {
        check("Mon-Fri 08:00-09:00 UTC", &[1, 2, 3, 4, 5], 480, 540, "UTC");
        check("fri-mon,Wed 22:30-06:00", &[1, 3, 5, 6, 7], 1350, 360, "UTC");
        check("00:00-24:00", &[1, 2, 3, 4, 5, 6, 7], 0, 0, "UTC");
    }

    #[test]
    fn says_which_part_is_wrong() {
        for (text, part) in [
            ("", "is not a window"),
            ("Mon", "is not a window"),
            ("Mon-Fry 08:00-09:00", "`Fry` is not a day"),
            ("8:00-09:00", "`8:00` is not a time"),
            ("08:00-24:01", "`24:01` is not a time"),
            ("08:00-09:60", "`09:60` is not a time"),
            ("08:00", "is not from-to"),
            ("08:00-09:00 Mars/Olympus", "`Mars/Olympus` is not a time zone"),
        ] {
            let message = parse(text, true).expect_err("the test's window is wrong");
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
