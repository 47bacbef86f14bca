//! The file that holds what was learned, so that a restart does not begin anew: written beside the last one, then put in
//! its place. A file that cannot be read gives way to the one before it.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use crate::cycle::Cycle;
use crate::model::Timestamp;

const FILE: &str = "learned.state";
const FILE_BEFORE: &str = "learned.state.before";
const FILE_NEW: &str = "learned.state.new";

/// Writes and reads the file.
#[derive(Debug, Clone)]
pub(super) struct Keeper {
    folder: PathBuf,
}

impl Keeper {
    /// For files in `folder`, which is there.
    pub(super) fn new(folder: &Path) -> Keeper {
        Keeper { folder: folder.to_owned() }
    }

    /// Writes what `cycle` has learned up to `at`; returns how many watches that were.
    pub(super) fn keep(&self, cycle: &Cycle, at: Timestamp) -> io::Result<u64> {
        let new = self.folder.join(FILE_NEW);
        let mut out = BufWriter::new(File::create(&new)?);
        let watches = cycle.write_state(&mut out, at)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        let current = self.folder.join(FILE);
        match std::fs::rename(&current, self.folder.join(FILE_BEFORE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::rename(&new, &current)?;
        // The new names are durable with their folder.
        File::open(&self.folder)?.sync_all()?;
        Ok(watches)
    }

    /// Reads what an earlier process had learned into `cycle`: the newest file that can be read. Without one, it begins anew.
    pub(super) fn restore(&self, cycle: &mut Cycle) {
        for name in [FILE, FILE_BEFORE] {
            let path = self.folder.join(name);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "what was learned cannot be opened");
                    continue;
                }
            };
            match cycle.read_state(BufReader::new(file)) {
                Ok(at) => {
                    tracing::info!(file = %path.display(), %at, "goes on with what was learned");
                    return;
                }
                Err(error) => tracing::warn!(file = %path.display(), %error, "what was learned is not used"),
            }
        }
    }
}
