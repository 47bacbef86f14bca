//! Calendar files: holidays and planned events, with zones and yearly repetition resolved.
//!
//! A time is `2026-12-24`, `2026-12-24 18:00` or `2026-12-24T18:00`, with or without a zone after it
//! (`2026-12-24 18:00 Europe/Berlin`), or RFC 3339 with an offset (`2026-12-24T18:00:00+01:00`, which fixes the moment).

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::forecast::{EVENTS_MAX, Effect, Event, OCCURRENCES_MAX, Occurrence};
use crate::model::Timestamp;

use super::policies::read_match;
use super::problem::Report;
use super::reader::Fields;
use super::tree::{Kind, Node};

const FORM: &str = "write 2026-12-24, 2026-12-24 18:00 or 2026-12-24 18:00 Europe/Berlin";
const WEEKDAYS: [(&str, i8); 7] =
    [("monday", 1), ("tuesday", 2), ("wednesday", 3), ("thursday", 4), ("friday", 5), ("saturday", 6), ("sunday", 7)];

/// Reads one calendar file's tree.
pub(super) fn read_calendar(report: &mut Report, root: &Node, events: &mut Vec<Event>) {
    let Some(fields) = report.fields(root, "a calendar file", &["events"]) else { return };
    let Some(list) = report.required(fields, "a calendar file", "events") else { return };
    for node in report.list(list, "events") {
        if events.len() == EVENTS_MAX {
            let message = format!("more than {EVENTS_MAX} events");
            report.error(node.at, "config/too-large", message, "leave out what is long past");
            return;
        }
        events.extend(read_event(report, node));
    }
}

/// A time as it was written: on the clock of a zone.
#[derive(Debug, Clone)]
struct Moment {
    local: DateTime,
    zone: TimeZone,
    /// Only the date was written.
    whole_day: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Every {
    Once,
    Year,
}

fn read_event(report: &mut Report, node: &Node) -> Option<Event> {
    const KNOWN: [&str; 7] = ["name", "start", "end", "zone", "every", "match", "effect"];
    let fields = report.fields(node, "an event", &KNOWN)?;
    let name = report.required(fields, "an event", "name").and_then(|n| report.text(n, "an event's name"));
    let zone = match fields.get("zone") {
        Some(n) => read_zone(report, n),
        None => Some("UTC".to_owned()),
    };
    let start = report.required(fields, "an event", "start");
    let start = start.zip(zone.as_ref()).and_then(|(n, zone)| read_moment(report, n, zone));
    let end = match fields.get("end") {
        Some(n) => zone.as_ref().and_then(|zone| read_moment(report, n, zone)),
        None => whole_day(report, fields, start.as_ref()),
    };
    let every = fields.get("every").map_or(Some(Every::Once), |n| {
        report.word(n, "a value of `every`", &[("year", Every::Year), ("none", Every::Once)], &[])
    });
    let effect = fields.get("effect").map_or(Some(Effect::Ignore), |n| read_effect(report, n));
    let (kind, labels) = match fields.get("match") {
        Some(n) => read_match(report, n).map(|selector| (selector.kind, selector.labels))?,
        None => (None, BTreeMap::new()),
    };
    let (start, end, every) = (start?, end?, every?);
    let occurrences = occurrences(&start, &end, every);
    let longest = occurrences.iter().map(|one| one.end - one.start).max().unwrap_or_default();
    let at = fields.get("end").map_or(fields.at, |n| n.at);
    if occurrences.is_empty() {
        report.error(
            at,
            "calendar/ends-before-start",
            "the event ends before it begins",
            "`end` is the first moment after it",
        );
        return None;
    }
    if every == Every::Year && longest > crate::model::Millis::DAY * 366 {
        report.error(at, "calendar/overlaps-itself", "an event of every year is longer than a year", "shorten it");
        return None;
    }
    Some(Event { name: name?, effect: effect?, kind, labels, zone: zone?, occurrences })
}

/// Without an end, an event that begins with a date is that day.
fn whole_day(report: &mut Report, fields: Fields<'_>, start: Option<&Moment>) -> Option<Moment> {
    let start = start?;
    if !start.whole_day {
        let at = fields.key_at("end").unwrap_or(fields.at);
        report.error(at, "config/missing-field", "an event that begins at a time needs `end`", "add `end: …`");
        return None;
    }
    let local = start.local.checked_add(jiff::Span::new().days(1)).ok()?;
    Some(Moment { local, ..start.clone() })
}

fn read_zone(report: &mut Report, node: &Node) -> Option<String> {
    let zone = report.text(node, "a time zone")?;
    if TimeZone::get(&zone).is_ok() {
        return Some(zone);
    }
    let help = "a name of the IANA data base: Europe/Berlin, UTC";
    report.error(node.at, "calendar/bad-time", format!("`{zone}` is not a time zone"), help);
    None
}

fn read_effect(report: &mut Report, node: &Node) -> Option<Effect> {
    if matches!(node.kind, Kind::Map(_)) {
        let fields = report.fields(node, "`effect`", &["like"])?;
        let day = report.required(fields, "`effect`", "like")?;
        return report.word(day, "a day of the week", &WEEKDAYS, &[]).map(Effect::Like);
    }
    let text = report.text(node, "an effect")?;
    if text == "ignore" {
        return Some(Effect::Ignore);
    }
    let help = "write `ignore`, or `{ like: sunday }`";
    report.error(node.at, "config/unknown-value", format!("`{text}` is not an effect"), help);
    None
}

fn read_moment(report: &mut Report, node: &Node, zone: &str) -> Option<Moment> {
    let text = report.text(node, "a time")?;
    match parse(&text, zone) {
        Ok(moment) => Some(moment),
        Err(message) => {
            report.error(node.at, "calendar/bad-time", message, FORM);
            None
        }
    }
}

fn parse(text: &str, zone: &str) -> Result<Moment, String> {
    let wrong = || format!("`{text}` is not a time");
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_time = |word: &str| word.contains(':');
    let (time, zone) = match words[..] {
        [date] => (date.to_owned(), zone),
        [date, time] if is_time(time) => (format!("{date}T{time}"), zone),
        [date, zone] => (date.to_owned(), zone),
        [date, time, zone] if is_time(time) => (format!("{date}T{time}"), zone),
        _ => return Err(wrong()),
    };
    if let Ok(fixed) = time.parse::<jiff::Timestamp>() {
        return Ok(Moment { local: TimeZone::UTC.to_datetime(fixed), zone: TimeZone::UTC, whole_day: false });
    }
    let zone = TimeZone::get(zone).map_err(|_| format!("`{zone}` is not a time zone"))?;
    if let Ok(date) = time.parse::<jiff::civil::Date>()
        && !is_time(&time)
    {
        return Ok(Moment { local: date.to_datetime(jiff::civil::Time::midnight()), zone, whole_day: true });
    }
    let local = time.parse::<DateTime>().map_err(|_| wrong())?;
    Ok(Moment { local, zone, whole_day: false })
}

/// When it is: once, or from its first year on. A day that a year does not have (29 February) is left out in that year.
fn occurrences(start: &Moment, end: &Moment, every: Every) -> Vec<Occurrence> {
    let years = match every {
        Every::Once => 1,
        Every::Year => i16::try_from(OCCURRENCES_MAX).unwrap_or(i16::MAX),
    };
    let occurrence = |years: i16| {
        let occurrence = Occurrence { start: resolve(start, years)?, end: resolve(end, years)? };
        (occurrence.start < occurrence.end).then_some(occurrence)
    };
    (0..years).filter_map(occurrence).collect()
}

/// The moment so many years later. A time that a change of the clock leaves out is the one just after it, a time that comes
/// twice the first (as RFC 5545 has it).
fn resolve(moment: &Moment, years: i16) -> Option<Timestamp> {
    let year = moment.local.year().checked_add(years)?;
    let local = moment.local.with().year(year).build().ok()?;
    let zoned = moment.zone.to_ambiguous_zoned(local).compatible().ok()?;
    Some(Timestamp(zoned.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, zone: &str, moment: &str) {
        let parsed = parse(text, zone).unwrap_or_else(|message| panic!("{message}"));
        let got = resolve(&parsed, 0).expect("the time exists");
        assert_eq!(got.to_string(), moment, "{text} {zone}");
    }

    #[test]
    fn reads_dates_and_times_with_their_zone() {
        check("2026-12-24", "UTC", "2026-12-24T00:00:00.000Z");
        check("2026-12-24 18:30", "Europe/Berlin", "2026-12-24T17:30:00.000Z");
        check("2026-12-24T18:30:15", "UTC", "2026-12-24T18:30:15.000Z");
        check("2026-07-01 Europe/Berlin", "UTC", "2026-06-30T22:00:00.000Z");
        check("2026-07-01 08:00 America/New_York", "UTC", "2026-07-01T12:00:00.000Z");
        check("2026-07-01T08:00:00+02:00", "America/New_York", "2026-07-01T06:00:00.000Z");
        // The hour that the clock leaves out in March, and the one that comes twice in October.
        check("2026-03-29 02:30", "Europe/Berlin", "2026-03-29T01:30:00.000Z");
        check("2026-10-25 02:30", "Europe/Berlin", "2026-10-25T00:30:00.000Z");
    }

    #[test]
    fn says_which_part_is_wrong() {
        for (text, part) in [
            ("", "is not a time"),
            ("24.12.2026", "`24.12.2026` is not a time"),
            ("2026-13-01", "is not a time"),
            ("2026-12-24 25:00", "is not a time"),
            ("2026-12-24 18:00 Mars/Olympus", "`Mars/Olympus` is not a time zone"),
            ("2026-12-24 18:00 UTC UTC", "is not a time"),
        ] {
            let message = parse(text, "UTC").expect_err("the test's time is wrong");
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn a_yearly_event_follows_its_zone_and_skips_days_that_a_year_does_not_have() {
        let moment = |text: &str| parse(text, "Europe/Berlin").expect("a time");
        let days = occurrences(&moment("2024-02-29"), &moment("2024-03-01"), Every::Year);
        let years: Vec<String> = days.iter().take(2).map(|one| one.start.to_string()).collect();
        assert_eq!(years, ["2024-02-28T23:00:00.000Z", "2028-02-28T23:00:00.000Z"]);
        assert_eq!(days.len(), 24, "2100 is no leap year");
    }
}
