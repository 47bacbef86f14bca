//! What a reload changes: which settings need a restart, and how far policies may go.

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
        ("leader_election", before.leader_election != after.leader_election),
        ("global.start_hold", before.global.start_hold != after.global.start_hold),
    ];
    stored.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// How far each policy may go: its own mode up to the ceiling.
pub fn modes(settings: &Settings) -> BTreeMap<String, Mode> {
    settings.policies.iter().map(|policy| (policy.name.clone(), policy.mode.min(settings.global.mode))).collect()
}
