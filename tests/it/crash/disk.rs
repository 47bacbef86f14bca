//! What is on a disk after a kill or a loss of power: everything that was synced, and of the rest what chance leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use forestall::model::Timestamp;
use forestall::plan::Action;

use super::chance::Chance;
use super::world::Weather;

/// A file of a tape, whatever its name is.
pub(super) type FileId = usize;

/// Disks write this much at once or not at all.
const SECTOR_BYTES: usize = 512;

/// One thing that happened. A kill comes between two of them.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Create {
        name: String,
        file: FileId,
    },
    Write {
        file: FileId,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: FileId,
        length: usize,
    },
    Delete {
        name: String,
    },
    /// What was written to the file so far is durable.
    Sync {
        file: FileId,
    },
    /// The names in the folder, as they are now, are durable.
    SyncFolder,
    Mark(Mark),
}

/// What happened besides the files.
#[derive(Debug, Clone)]
pub(super) enum Mark {
    /// A pass begins.
    Pass(Timestamp),
    /// The journal said that it has written everything up to the row with this hash.
    Written(String),
    /// A request has reached its target, or was lost on the way there.
    Send { action: Arc<Action>, at: Timestamp, arrived: bool },
    /// The answer has come back.
    Reply,
    /// Somebody else sets a workload's replicas.
    Person { component: String, replicas: u32 },
    /// Loads and targets behave otherwise from now on.
    Weather(Weather),
}

/// What survives of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Survival {
    /// Nothing.
    None,
    /// Everything: the process was killed, the machine goes on.
    All,
    /// Some sectors of some writes, in any order.
    Some,
    /// Everything but the end of the last write.
    Torn,
}

pub(super) const SURVIVALS: [Survival; 4] = [Survival::None, Survival::All, Survival::Some, Survival::Torn];

/// A disk at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk<'a> {
    files: BTreeMap<FileId, File<'a>>,
    /// The durable names.
    names: BTreeMap<&'a str, FileId>,
    /// Changes of names that are not durable, in order.
    renames: Vec<&'a Event>,
}

#[derive(Debug, Clone, Default)]
struct File<'a> {
    durable: Vec<u8>,
    pending: Vec<&'a Event>,
}

/// Files by name.
pub(super) type Image = BTreeMap<String, Vec<u8>>;

impl<'a> Disk<'a> {
    /// A disk with files that are durable; their ids are their places in the order of names, as on a new tape.
    pub(super) fn with(image: &'a Image) -> Disk<'a> {
        let mut disk = Disk::default();
        for (id, (name, bytes)) in image.iter().enumerate() {
            disk.names.insert(name, id);
            disk.files.insert(id, File { durable: bytes.clone(), pending: Vec::new() });
        }
        disk
    }

    /// The disk after one more event.
    pub(super) fn advance(&mut self, event: &'a Event) {
        match event {
            Event::Create { file, .. } => {
                self.files.insert(*file, File::default());
                self.renames.push(event);
            }
            Event::Delete { .. } => self.renames.push(event),
            Event::Write { file, .. } | Event::Truncate { file, .. } => self.file(*file).pending.push(event),
            Event::Sync { file } => {
                let file = self.file(*file);
                for write in file.pending.drain(..) {
                    apply(&mut file.durable, write);
                }
            }
            Event::SyncFolder => {
                for change in std::mem::take(&mut self.renames) {
                    rename(&mut self.names, change);
                }
            }
            Event::Mark(_) => {}
        }
    }

    fn file(&mut self, file: FileId) -> &mut File<'a> {
        self.files.get_mut(&file).expect("a file is created before it is written")
    }

    /// What is found on the disk if all stops now.
    pub(super) fn image(&self, survival: Survival, chance: &mut Chance) -> Image {
        let mut names = self.names.clone();
        let kept = match survival {
            Survival::None => 0,
            Survival::All | Survival::Torn => self.renames.len(),
            // File systems keep the order of names.
            Survival::Some => chance.below(self.renames.len() + 1),
        };
        self.renames[..kept].iter().for_each(|change| rename(&mut names, change));
        let image = names.into_iter().map(|(name, id)| (name.to_owned(), self.files[&id].found(survival, chance)));
        image.collect()
    }
}

impl File<'_> {
    fn found(&self, survival: Survival, chance: &mut Chance) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        match survival {
            Survival::None => {}
            Survival::All => self.pending.iter().for_each(|event| apply(&mut bytes, event)),
            Survival::Some => self.pending.iter().for_each(|event| apply_some(&mut bytes, event, chance)),
            Survival::Torn => {
                let Some((last, before)) = self.pending.split_last() else { return bytes };
                before.iter().for_each(|event| apply(&mut bytes, event));
                if let Event::Write { offset, bytes: written, .. } = last {
                    write(&mut bytes, *offset, &written[..chance.below(written.len())]);
                }
            }
        }
        bytes
    }
}

fn apply(bytes: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write { offset, bytes: written, .. } => write(bytes, *offset, written),
        Event::Truncate { length, .. } => bytes.resize(*length, 0),
        _ => {}
    }
}

/// Each sector of a write is as likely to survive as not.
fn apply_some(bytes: &mut Vec<u8>, event: &Event, chance: &mut Chance) {
    match event {
        Event::Write { offset, bytes: written, .. } => {
            let mut at = 0;
            while at < written.len() {
                let end = written.len().min((offset + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - offset);
                if chance.below(2) == 1 {
                    write(bytes, offset + at, &written[at..end]);
                }
                at = end;
            }
        }
        _ if chance.below(2) == 1 => apply(bytes, event),
        _ => {}
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if written.is_empty() {
        return;
    }
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

fn rename<'a>(names: &mut BTreeMap<&'a str, FileId>, change: &'a Event) {
    match change {
        Event::Create { name, file } => _ = names.insert(name, *file),
        Event::Delete { name } => _ = names.remove(name.as_str()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file holds after `events` and a loss of power.
    fn check(events: &[Event], survival: Survival, expected: Option<&[u8]>) {
        let mut disk = Disk::default();
        events.iter().for_each(|event| disk.advance(event));
        let image = disk.image(survival, &mut Chance::new(1));
        assert_eq!(image.get("f").map(Vec::as_slice), expected, "{survival:?} of {events:?}");
    }

    fn create() -> Event {
        Event::Create { name: "f".to_owned(), file: 0 }
    }

    fn write_at(offset: usize, bytes: &[u8]) -> Event {
        Event::Write { file: 0, offset, bytes: bytes.to_vec() }
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_is_as_chance_has_it() {
        let synced = [create(), write_at(0, b"one"), Event::Sync { file: 0 }, Event::SyncFolder];
        let then = |event: Event| [&synced[..], &[event]].concat();
        check(&synced, Survival::None, Some(b"one"));
        check(&then(write_at(2, b"two")), Survival::None, Some(b"one"));
        check(&then(write_at(2, b"two")), Survival::All, Some(b"ontwo"));
        check(&then(write_at(4, b"x")), Survival::All, Some(b"one\0x"));
        check(&then(Event::Truncate { file: 0, length: 1 }), Survival::None, Some(b"one"));
        check(&then(Event::Truncate { file: 0, length: 1 }), Survival::All, Some(b"o"));
        check(&then(Event::Truncate { file: 0, length: 1 }), Survival::Torn, Some(b"one"));
        check(&then(Event::Delete { name: "f".to_owned() }), Survival::None, Some(b"one"));
        check(&then(Event::Delete { name: "f".to_owned() }), Survival::All, None);
        check(&then(write_at(0, b"X")), Survival::Torn, Some(b"one"));
    }

    #[test]
    fn a_name_is_durable_only_with_its_folder() {
        let named = [create(), write_at(0, b"one"), Event::Sync { file: 0 }];
        check(&named, Survival::None, None);
        check(&named, Survival::All, Some(b"one"));
        check(&[&named[..], &[Event::SyncFolder]].concat(), Survival::None, Some(b"one"));
    }

    #[test]
    fn a_write_survives_sector_by_sector() {
        let mut found = std::collections::BTreeSet::new();
        let events = [create(), Event::SyncFolder, write_at(500, &[7; 600])];
        for seed in 0..64 {
            let mut disk = Disk::default();
            events.iter().for_each(|event| disk.advance(event));
            let bytes = disk.image(Survival::Some, &mut Chance::new(seed)).remove("f").expect("its name is durable");
            let has = |at: usize| bytes.get(at) == Some(&7);
            for inside in [(500, 511), (512, 1023), (1024, 1099)] {
                assert_eq!(has(inside.0), has(inside.1), "a sector is whole or not there");
            }
            found.insert((has(500), has(512), has(1024)));
        }
        assert_eq!(found.len(), 8, "any of three sectors may be lost: {found:?}");
    }
}
