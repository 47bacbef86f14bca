//! Exceptions that a calendar knows of: holidays, planned events, in which a signal does not do what its season says.
//!
//! An [`Event`] is a name, what it means for forecasts ([`Effect`]), for which components it counts, and its occurrences as
//! spans of time. Zones and yearly repetition are resolved when the calendar is made, so that asking is a search: nothing
//! here reads files or tells the time.
//!
//! Limits: at most [`EVENTS_MAX`] events of [`OCCURRENCES_MAX`] occurrences each.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::model::{ComponentId, Labels, Millis, Timestamp};

/// The most events of a calendar.
pub const EVENTS_MAX: usize = 1000;
/// The most occurrences of an event: a yearly one is laid out for so many years.
pub const OCCURRENCES_MAX: usize = 100;

/// What an event means for the forecasts of the signals it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Values inside are not learned from: they say nothing of what the signal does otherwise.
    Ignore,
    /// Inside, the signal does what it does on this day of the week (1 = Monday … 7 = Sunday).
    Like(i8),
}

/// A stretch of time, from its start up to and without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Occurrence {
    /// Its first moment.
    pub start: Timestamp,
    /// The first moment after it.
    pub end: Timestamp,
}

/// Something that a calendar knows of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its name, for people.
    pub name: String,
    /// What it means for forecasts.
    pub effect: Effect,
    /// The kind of the components it concerns; any where absent.
    pub kind: Option<String>,
    /// Label → regular expression that matches the whole value: the components it concerns; all where empty.
    pub labels: BTreeMap<String, String>,
    /// The IANA time zone in which days of the week are counted.
    pub zone: String,
    /// When it is, ascending and apart.
    pub occurrences: Vec<Occurrence>,
}

/// All events, in the order in which they were written: of several at one moment the first counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    events: Vec<Event>,
}

impl Event {
    /// Whether a moment lies inside one of its occurrences.
    pub fn contains(&self, at: Timestamp) -> bool {
        let next = self.occurrences.partition_point(|occurrence| occurrence.start <= at);
        next.checked_sub(1).is_some_and(|index| at < self.occurrences[index].end)
    }

    /// Whether it concerns a component: its own labels count before those of its rule, a label that neither has is empty.
    /// An expression that cannot be read concerns none.
    pub fn concerns(&self, component: &ComponentId, rule_labels: &Labels) -> bool {
        let value = |name: &str| component.label(name).or_else(|| rule_labels.get(name)).unwrap_or("");
        self.kind.as_ref().is_none_or(|kind| *kind == component.kind)
            && self.labels.iter().all(|(name, pattern)| {
                Regex::new(&format!("^(?s:{pattern})$")).is_ok_and(|regex| regex.is_match(value(name)))
            })
    }

    /// The same time of day on the day whose shape the signal takes: the newest such weekday before the day of `at`. Absent
    /// where the event is no [`Effect::Like`], and where the zone is not known.
    pub fn stand_in(&self, at: Timestamp) -> Option<Timestamp> {
        let Effect::Like(weekday) = self.effect else { return None };
        let local = jiff::Timestamp::from_millisecond(at.0).ok()?.in_tz(&self.zone).ok()?;
        let today = local.weekday().to_monday_one_offset();
        let back = match (today - weekday).rem_euclid(7) {
            0 => 7,
            days => i64::from(days),
        };
        let then = local.checked_sub(jiff::Span::new().days(back)).ok()?;
        Some(Timestamp(then.timestamp().as_millisecond()))
    }
}

impl Calendar {
    /// A calendar of these events; those beyond [`EVENTS_MAX`] are left out. Occurrences are sorted, and those that overlap
    /// are made one.
    pub fn new(events: Vec<Event>) -> Calendar {
        let sorted = events.into_iter().take(EVENTS_MAX).map(|mut event| {
            event.occurrences.retain(|occurrence| occurrence.start < occurrence.end);
            event.occurrences.sort_unstable();
            event.occurrences.truncate(OCCURRENCES_MAX);
            event.occurrences.dedup_by(|next, before| {
                let overlap = next.start <= before.end;
                if overlap {
                    before.end = before.end.max(next.end);
                }
                overlap
            });
            event
        });
        Calendar { events: sorted.collect() }
    }

    /// Whether it has no events.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Its events, in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The numbers of the events that concern a component: components with the same numbers can share a calendar.
    pub fn concerning(&self, component: &ComponentId, rule_labels: &Labels) -> Vec<usize> {
        let concerns = |index: &usize| self.events[*index].concerns(component, rule_labels);
        (0..self.events.len()).filter(concerns).collect()
    }

    /// The calendar of these events only.
    pub fn only(&self, numbers: &[usize]) -> Calendar {
        Calendar { events: numbers.iter().filter_map(|number| self.events.get(*number)).cloned().collect() }
    }

    /// The event inside which a moment lies: of several the one that was written first.
    pub fn at(&self, at: Timestamp) -> Option<&Event> {
        self.events.iter().find(|event| event.contains(at))
    }

    /// The share of a stretch of time that lies inside events, 0..1: what of a cell is an exception.
    pub fn share(&self, start: Timestamp, length: Millis) -> f64 {
        let end = start + length;
        let mut parts: Vec<(i64, i64)> = self
            .events
            .iter()
            .flat_map(|event| &event.occurrences)
            .map(|occurrence| (occurrence.start.max(start).0, occurrence.end.min(end).0))
            .filter(|(from, to)| from < to)
            .collect();
        parts.sort_unstable();
        let (mut inside, mut reached) = (0, start.0);
        for (from, to) in parts {
            inside += (to - from.max(reached)).max(0);
            reached = reached.max(to);
        }
        if length > Millis::ZERO { inside as f64 / length.0 as f64 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().expect("a time").as_millisecond())
    }

    /// An event from `2026-12-24T18:00Z/2026-12-26T06:00Z`, several separated by spaces.
    fn event(name: &str, effect: Effect, labels: &[(&str, &str)], spans: &str) -> Event {
        let occurrences = spans.split_whitespace().map(|span| {
            let (start, end) = span.split_once('/').expect("from/to");
            Occurrence { start: at(start), end: at(end) }
        });
        Event {
            name: name.to_owned(),
            effect,
            kind: None,
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            zone: "Europe/Berlin".to_owned(),
            occurrences: occurrences.collect(),
        }
    }

    fn calendar() -> Calendar {
        Calendar::new(vec![
            event(
                "christmas",
                Effect::Like(7),
                &[],
                "2026-12-24T23:00:00Z/2026-12-26T23:00:00Z 2025-12-24T23:00:00Z/2025-12-26T23:00:00Z",
            ),
            event("sale", Effect::Ignore, &[("namespace", "shop|pay")], "2026-12-26T00:00:00Z/2026-12-28T00:00:00Z"),
        ])
    }

    fn check(moment: &str, inside: Option<&str>) {
        let calendar = calendar();
        assert_eq!(calendar.at(at(moment)).map(|event| event.name.as_str()), inside, "{moment}");
    }

    #[test]
    fn an_event_begins_with_its_start_and_ends_before_its_end() {
        check("2026-12-24T22:59:59Z", None);
        check("2026-12-24T23:00:00Z", Some("christmas"));
        check("2025-12-25T12:00:00Z", Some("christmas"));
        check("2026-12-26T12:00:00Z", Some("christmas"));
        check("2026-12-26T23:00:00Z", Some("sale"));
        check("2026-12-28T00:00:00Z", None);
    }

    #[test]
    fn an_event_concerns_components_by_kind_and_by_the_whole_value_of_a_label() {
        let calendar = calendar();
        for (namespace, concerned) in [("shop", vec![0, 1]), ("shops", vec![0]), ("", vec![0])] {
            let labels = vec![("namespace".to_owned(), namespace.to_owned())];
            let component = ComponentId { kind: "service".to_owned(), labels };
            assert_eq!(calendar.concerning(&component, &Labels::default()), concerned, "{namespace}");
            assert_eq!(calendar.only(&concerned).events().len(), concerned.len());
        }
    }

    #[test]
    fn a_stand_in_is_the_same_time_of_day_on_the_weekday_before() {
        let calendar = calendar();
        // 2026-12-25 is a Friday; the Sunday before it is the 20th. Berlin is an hour ahead.
        for (moment, then) in [
            ("2026-12-25T09:30:00Z", "2026-12-20T09:30:00Z"),
            ("2026-12-24T23:30:00Z", "2026-12-19T23:30:00Z"),
            ("2026-12-26T22:30:00Z", "2026-12-20T22:30:00Z"),
        ] {
            assert_eq!(calendar.events()[0].stand_in(at(moment)), Some(at(then)), "{moment}");
        }
        assert_eq!(calendar.events()[1].stand_in(at("2026-12-26T22:30:00Z")), None);
        // Over the end of summer time the hour on the clock counts.
        let autumn = event("autumn", Effect::Like(6), &[], "2026-10-26T00:00:00Z/2026-10-27T00:00:00Z");
        assert_eq!(autumn.stand_in(at("2026-10-26T11:00:00Z")), Some(at("2026-10-24T10:00:00Z")));
    }

    #[test]
    fn the_share_of_a_cell_inside_events_counts_each_moment_once() {
        let calendar = calendar();
        for (start, hours, share) in [
            ("2026-12-24T22:00:00Z", 2, 0.5),
            ("2026-12-26T22:00:00Z", 2, 1.0),
            ("2026-12-27T22:00:00Z", 4, 0.5),
            ("2026-11-01T00:00:00Z", 1, 0.0),
        ] {
            let got = calendar.share(at(start), Millis::HOUR * hours);
            assert!((got - share).abs() < 1e-12, "{start}: {got}");
        }
    }

    #[test]
    fn occurrences_are_sorted_and_made_one_where_they_overlap() {
        let spans = "2026-01-02T00:00:00Z/2026-01-04T00:00:00Z 2026-01-01T00:00:00Z/2026-01-03T00:00:00Z";
        let calendar = Calendar::new(vec![event("twice", Effect::Ignore, &[], spans)]);
        let one = Occurrence { start: at("2026-01-01T00:00:00Z"), end: at("2026-01-04T00:00:00Z") };
        assert_eq!(calendar.events()[0].occurrences, [one]);
    }
}
