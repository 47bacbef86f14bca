//! What is known of metric families: type, help, unit. Bounded; never forgotten before a restart.

use std::collections::BTreeMap;

use crate::ingest::{Metadata, MetricKind};

/// The most families that are remembered; of others nothing is known.
const FAMILIES_MAX: usize = 20_000;

/// What a family takes beside its texts, in bytes: an estimate, rounded up.
const FAMILY_BYTES: usize = 160;

/// What is known of a metric family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FamilyMetadata {
    /// What sort of metric it is.
    pub kind: MetricKind,
    /// The help text; may be empty.
    pub help: String,
    /// The unit; mostly empty.
    pub unit: String,
}

/// The families by name.
#[derive(Debug, Default)]
pub(super) struct Families {
    by_name: BTreeMap<String, FamilyMetadata>,
    memory_bytes: usize,
}

impl Families {
    pub(super) fn all(&self) -> BTreeMap<String, FamilyMetadata> {
        self.by_name.clone()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Whether this very thing is known already.
    pub(super) fn knows(&self, metadata: &Metadata<'_>) -> bool {
        self.by_name.get(metadata.family).is_some_and(|known| {
            known.kind == metadata.kind && known.help == metadata.help && known.unit == metadata.unit
        })
    }

    /// Takes what was told last about a family, if it takes no more than `room` bytes; tells whether it was taken.
    pub(super) fn set(&mut self, metadata: &Metadata<'_>, room: usize) -> bool {
        let name = metadata.family;
        let cost = FAMILY_BYTES + name.len() + metadata.help.len() + metadata.unit.len();
        let known = self.by_name.get(name).map(|known| FAMILY_BYTES + name.len() + known.help.len() + known.unit.len());
        if cost.saturating_sub(known.unwrap_or(0)) > room || (known.is_none() && self.by_name.len() >= FAMILIES_MAX) {
            return false;
        }
        let family =
            FamilyMetadata { kind: metadata.kind, help: metadata.help.to_owned(), unit: metadata.unit.to_owned() };
        self.by_name.insert(name.to_owned(), family);
        self.memory_bytes = self.memory_bytes - known.unwrap_or(0) + cost;
        true
    }
}
