//! What a reload changes: which settings need a restart, and which policies may do more than before.

use std::collections::BTreeMap;

use crate::plan::Mode;

use super::Settings;

/// The settings that differ and take effect at the next start only.
pub fn restart_needed(before: &Settings, after: &Settings) -> Vec<&'static str> {
    let stored = [
        ("storage.raw_retention", before.store.raw_retention != after.store.raw_retention),
        ("storage.signal_retention", before.store.signal_retention != after.store.signal_retention),
        ("storage.memory_limit", before.store.memory_bytes_max != after.store.memory_bytes_max),
        ("storage.max_series", before.store.series_max != after.store.series_max),
        ("global.start_hold", before.global.start_hold != after.global.start_hold),
    ];
    stored.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// The policies that may do more than before, with their mode before and after: to be logged and written down. A policy
/// that is new counts as having observed.
pub fn widened(before: &Settings, after: &Settings) -> Vec<(String, Mode, Mode)> {
    let earlier: BTreeMap<&str, Mode> = effective(before).collect();
    effective(after)
        .map(|(name, mode)| (name, earlier.get(name).copied().unwrap_or(Mode::Observe), mode))
        .filter(|(_, before, after)| after > before)
        .map(|(name, before, after)| (name.to_owned(), before, after))
        .collect()
}

/// Each policy with its mode under the ceiling.
fn effective(settings: &Settings) -> impl Iterator<Item = (&str, Mode)> {
    settings.policies.iter().map(|policy| (policy.name.as_str(), policy.mode.min(settings.global.mode)))
}
