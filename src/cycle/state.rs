//! What was learned, in a form that outlives the process: watches, probability maps, outcomes, networks.
//!
//! ```text
//! snappy frames (each with a checksum) of records: length (4 bytes, little endian) + postcard bytes
//! Header │ Watch … │ Network … │ Outcomes … │ End with the number of records
//! ```
//!
//! It is written and read record by record, so that neither needs twice the memory. What is torn, foreign or of another
//! version is refused as a whole: half of what was learned is worse than none.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::Cycle;
use crate::forecast::{Network, Watch};
use crate::health::UntoldOutcomes;
use crate::model::{ComponentId, Timestamp};

/// The version of everything that is serialised below; another one is not read.
const VERSION: u32 = 2;
const MAGIC: &str = "forestall state";
/// A record is never longer: a longer one is not ours.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// What is written; [`Record`] is the same read.
#[derive(Debug, Serialize)]
enum Written<'a> {
    Header { magic: &'a str, version: u32, at: Timestamp },
    Watch { rule: &'a str, signal: &'a str, component: &'a ComponentId, watch: &'a Watch },
    Network { rule: &'a str, signal: &'a str, network: &'a Network },
    Outcomes(&'a UntoldOutcomes),
    End { records: u64 },
}

#[derive(Debug, Deserialize)]
enum Record {
    Header { magic: String, version: u32, at: Timestamp },
    Watch { rule: String, signal: String, component: ComponentId, watch: Box<Watch> },
    Network { rule: String, signal: String, network: Box<Network> },
    Outcomes(Box<UntoldOutcomes>),
    End { records: u64 },
}

/// Why a state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The bytes cannot be read, or their checksum is wrong.
    #[error("the state cannot be read: {0}")]
    Io(#[from] io::Error),
    /// They are something else.
    #[error("this is no state of forestall")]
    Foreign,
    /// Another version wrote them.
    #[error("version {found} of the state is not {VERSION}, the one that is read here")]
    Version {
        /// The version found.
        found: u32,
    },
    /// They end too early or hold what cannot be.
    #[error("the state is damaged: {0}")]
    Damaged(String),
}

impl Cycle {
    /// Writes what was learned up to `at`; returns how many watches that were.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_state(&self, out: impl Write, at: Timestamp) -> io::Result<u64> {
        let mut packed = snap::write::FrameEncoder::new(out);
        let mut write = |record: &Written<'_>| -> io::Result<()> {
            let bytes = postcard::to_allocvec(record).map_err(io::Error::other)?;
            let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= RECORD_BYTES_MAX);
            let length = length.ok_or_else(|| io::Error::other("a record is too long"))?;
            packed.write_all(&length.to_le_bytes())?;
            packed.write_all(&bytes)?;
            Ok(())
        };
        write(&Written::Header { magic: MAGIC, version: VERSION, at })?;
        let mut watches = 0u64;
        for (rule, signal, component, watch) in self.watches.all() {
            write(&Written::Watch { rule, signal, component, watch })?;
            watches += 1;
        }
        let mut networks = 0;
        for (rule, signal, network) in self.watches.networks() {
            write(&Written::Network { rule, signal, network })?;
            networks += 1;
        }
        let mut rules = 0;
        for untold in self.outcomes.untold_by_rule() {
            write(&Written::Outcomes(&untold))?;
            rules += 1;
        }
        write(&Written::End { records: 1 + watches + networks + rules })?;
        packed.into_inner().map_err(|error| io::Error::other(error.to_string()))?.flush()?;
        Ok(watches)
    }

    /// Takes what an earlier process had learned, after the summaries of its outcomes ([`Cycle::recover`]). Watches whose rule or settings have changed since are left out later, when
    /// their component is first seen.
    ///
    /// # Errors
    /// What is foreign, damaged, cut off or of another version; then nothing is taken.
    pub fn read_state(&mut self, input: impl Read) -> Result<Timestamp, StateError> {
        let mut packed = snap::read::FrameDecoder::new(input);
        let Record::Header { magic, version, at } = read_record(&mut packed).map_err(|_| StateError::Foreign)? else {
            return Err(StateError::Foreign);
        };
        if magic != MAGIC {
            return Err(StateError::Foreign);
        }
        if version != VERSION {
            return Err(StateError::Version { found: version });
        }
        let (mut watches, mut networks, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            match read_record(&mut packed)? {
                Record::Watch { rule, signal, component, watch } => watches.push(((rule, signal), component, watch)),
                Record::Network { rule, signal, network } => networks.push(((rule, signal), network)),
                Record::Outcomes(untold) => outcomes.push(untold),
                Record::End { records } if records == 1 + (watches.len() + networks.len() + outcomes.len()) as u64 => {
                    break;
                }
                Record::End { .. } => return Err(StateError::Damaged("records are missing".to_owned())),
                Record::Header { .. } => return Err(StateError::Damaged("it begins twice".to_owned())),
            }
        }
        for (key, component, watch) in watches {
            self.watches.restore_watch(key, component, *watch);
        }
        for (key, network) in networks {
            self.watches.restore_network(key, *network);
        }
        for untold in outcomes {
            self.outcomes.resume(*untold, at);
        }
        Ok(at)
    }
}

fn read_record(input: &mut impl Read) -> Result<Record, StateError> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > RECORD_BYTES_MAX {
        return Err(StateError::Damaged(format!("a record of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(|error| StateError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Settings};
    use crate::forecast::Foresight;
    use crate::health::SignalAssessment;
    use crate::model::{Labels, METRIC_NAME, Millis, Sample};
    use crate::plan::{Gates, Ledger};
    use crate::store::Store;

    const INTERVAL: Millis = Millis(60_000);
    const START: Timestamp = Timestamp(1_767_225_600_000);

    fn settings(threshold: &str) -> Settings {
        let rules = format!(
            "groups:\n  - name: g\n    interval: 1m\n    rules:\n      - predict: load\n        component: {{ kind: service, by: [service] }}\n        \
             horizon: 1h\n        signals:\n          - {{ name: load, expr: load, breach: {{ above: {threshold} }} }}\n          \
             - {{ name: net, expr: load, model: lstm, breach: {{ above: {threshold}, for: 2m }} }}\n"
        );
        let files = [("forestall.yml", "rule_files: [rules.yml]\n"), ("rules.yml", rules.as_str())];
        config::load_str(&files).expect("the configuration is right").0
    }

    /// Passes from minute `from` to `to` over three services; what the last one foresees.
    fn run(cycle: &mut Cycle, store: &Store, settings: &Settings, from: i64, to: i64) -> String {
        let mut last = String::new();
        for minute in from..to {
            let now = START + INTERVAL * minute;
            for service in ["a", "b", "c"] {
                let labels = Labels::new([(METRIC_NAME, "load"), ("service", service)]);
                let value =
                    0.3 + 0.1 * (minute as f64 / 9.0).sin() + 0.001 * (minute % 7) as f64 * service.len() as f64;
                store.append(&labels, Sample { at: now, value });
            }
            let report = cycle.run(store, settings, Ledger::default(), Gates::default(), now);
            // What the rule has learned of its evidence is kept in the journal, not here.
            let seen = |signal: &SignalAssessment| {
                let Foresight { path, evidence, channels, outside_interval, .. } = &signal.foresight;
                format!("{path:?} {evidence:?} {channels:?} {outside_interval:?}")
            };
            last = report.assessments.iter().flat_map(|a| &a.signals).map(seen).collect();
        }
        last
    }

    #[test]
    fn a_process_goes_on_where_the_one_before_ended() {
        let settings = settings("0.9");
        let store = Store::new(settings.store.clone());
        let mut first = Cycle::new();
        run(&mut first, &store, &settings, 0, 150);
        let mut bytes = Vec::new();
        let watches = first.write_state(&mut bytes, START).expect("memory does not fail");
        assert_eq!(watches, 6);
        let mut second = Cycle::new();
        assert_eq!(second.read_state(bytes.as_slice()).expect("just written"), START);
        // The second process has none of the samples of the first.
        let other_store = Store::new(settings.store.clone());
        let expected = run(&mut first, &store, &settings, 150, 153);
        assert!(
            run(&mut second, &other_store, &settings, 150, 153) == expected,
            "the second process sees something else"
        );
    }

    #[test]
    fn watches_made_under_other_settings_begin_anew() {
        let before = settings("0.9");
        let mut cycle = Cycle::new();
        run(&mut cycle, &Store::new(before.store.clone()), &before, 0, 100);
        let mut bytes = Vec::new();
        cycle.write_state(&mut bytes, START).expect("memory does not fail");
        let after = config::load_str(&[
            ("forestall.yml", "rule_files: [rules.yml]\n"),
            (
                "rules.yml",
                "groups: [{ name: g, interval: 1m, rules: [{ predict: load, component: { kind: service, by: [service] }, \
                 horizon: 2h, signals: [{ name: load, expr: load, breach: { above: 0.9 } }] }] }]",
            ),
        ])
        .expect("the configuration is right")
        .0;
        let mut resumed = Cycle::new();
        resumed.read_state(bytes.as_slice()).expect("just written");
        let fresh = run(&mut Cycle::new(), &Store::new(after.store.clone()), &after, 100, 103);
        assert!(run(&mut resumed, &Store::new(after.store.clone()), &after, 100, 103) == fresh, "something is left");
    }

    #[test]
    fn what_is_torn_damaged_or_foreign_is_refused_as_a_whole() {
        let settings = settings("0.9");
        let mut cycle = Cycle::new();
        run(&mut cycle, &Store::new(settings.store.clone()), &settings, 0, 60);
        let mut bytes = Vec::new();
        cycle.write_state(&mut bytes, START).expect("memory does not fail");
        for length in (0..bytes.len()).step_by(bytes.len() / 60 + 1) {
            assert!(
                Cycle::new().read_state(&bytes[..length]).is_err(),
                "cut off after {length} of {} bytes",
                bytes.len()
            );
        }
        let unpacked = |bytes: &[u8]| {
            let mut all = Vec::new();
            snap::read::FrameDecoder::new(bytes).read_to_end(&mut all).map(|_| all).ok()
        };
        let whole = unpacked(&bytes);
        for place in (0..bytes.len()).step_by(bytes.len() / 60 + 1) {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x55;
            // Snappy can say the same in two ways; what it says must be the same.
            let is_read = Cycle::new().read_state(damaged.as_slice()).is_ok();
            assert!(!is_read || unpacked(&damaged) == whole, "damage at {place} of {} bytes is read", bytes.len());
        }
        assert!(matches!(Cycle::new().read_state(&b"SQLite format 3\0"[..]), Err(StateError::Foreign)));
    }
}
