//! Segments: the journal's live file is closed when it is large or old, and a new one begins; closed ones are never changed
//! and, when they are too old or too many, deleted whole.
//!
//! ```text
//! journal-000001.sqlite  journal-000002.sqlite   closed: one file each, read-only, its SHA-256 in the row below
//! journal.sqlite                                 live: begins with a row `segment`, which names the closed one before it
//! journal.sqlite.next                            only while one is closed
//! ```
//!
//! Row numbers and the chain of hashes go on from file to file. The row `segment` also holds the ledger and what persons
//! said, so that nothing that still matters is lost with a file that is deleted; a row `retired` says which was.
//!
//! The steps of a roll-over are such that a crash after any of them leaves files from which [`Files::settle`] makes a whole
//! journal again: the old one until it has its new name, the new one from then on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::controls::Controls;
use super::journal::{
    COLUMNS, Head, Journal, JournalError, NewRow, Row, RowKind, SCHEMA, State, Witness, begin, insert, read_error,
};
use crate::model::{Millis, Timestamp, hex};
use crate::plan::Ledger;

/// When a segment is closed, and when closed ones are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSettings {
    /// A live file of so many bytes is closed.
    pub segment_bytes: u64,
    /// Rows are kept so long, and up to a quarter longer: a live file that old is closed too.
    pub retention: Millis,
    /// Closed files together are never larger for long, in bytes: the oldest goes first, whatever its age.
    pub closed_bytes_max: u64,
}

impl Default for SegmentSettings {
    fn default() -> SegmentSettings {
        SegmentSettings { segment_bytes: 64 << 20, retention: Millis::DAY * 365, closed_bytes_max: 4 << 30 }
    }
}

/// A segment that was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Closed {
    /// Counting from 1.
    pub(super) number: u64,
    /// Its name, without its folder.
    pub(super) file: String,
    /// The number of its last row.
    pub(super) rows: i64,
    /// The hash of its last row.
    pub(super) head: String,
    /// Of the file.
    pub(super) sha256: String,
}

/// The first row of each segment but the first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SegmentBody {
    /// The one before it.
    pub(super) before: Closed,
    /// What had been done.
    pub(super) ledger: Ledger,
    /// What persons had said.
    pub(super) controls: Controls,
}

/// Which segment the live file is, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) number: u64,
    pub(super) at: Option<Timestamp>,
}

/// The names of a journal's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) live: PathBuf,
}

impl Files {
    fn part(&self, part: Option<&std::ffi::OsStr>) -> String {
        part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// `journal-` and `.sqlite`: what stands around a segment's number.
    fn around(&self) -> (String, String) {
        let extension = self.part(self.live.extension());
        let end = if extension.is_empty() { extension } else { format!(".{extension}") };
        (format!("{}-", self.part(self.live.file_stem())), end)
    }

    fn closed(&self, number: u64) -> PathBuf {
        let (start, end) = self.around();
        self.live.with_file_name(format!("{start}{number:06}{end}"))
    }

    fn next(&self) -> PathBuf {
        self.live.with_file_name(format!("{}.next", self.part(self.live.file_name())))
    }

    fn folder(&self) -> &Path {
        match self.live.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    /// Makes names durable.
    fn sync(&self) -> std::io::Result<()> {
        File::open(self.folder())?.sync_all()
    }

    /// The closed segments that are there, by number.
    pub(super) fn list(&self) -> std::io::Result<BTreeMap<u64, PathBuf>> {
        let (start, end) = self.around();
        let mut found = BTreeMap::new();
        let entries = match std::fs::read_dir(self.folder()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = self.part(path.file_name());
            let number = name.strip_prefix(&start).and_then(|rest| rest.strip_suffix(&end));
            let digits = number.filter(|number| number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit()));
            if let Some(number) = digits.and_then(|digits| digits.parse().ok()).filter(|_| path.is_file()) {
                found.insert(number, path);
            }
        }
        Ok(found)
    }

    /// Ends a roll-over that was cut short. Says what is wrong where there are closed segments and nothing that goes on from
    /// them.
    pub(super) fn settle(&self) -> Result<(), String> {
        let words = |error: std::io::Error| error.to_string();
        let next = self.next();
        if next.exists() {
            if self.live.exists() {
                // The old one has its name still: it goes on.
                std::fs::remove_file(&next).map_err(words)?;
            } else {
                std::fs::rename(&next, &self.live).map_err(words)?;
            }
            self.sync().map_err(words)?;
        }
        self.check_live()
    }

    /// The file that is to be read by somebody who may change nothing.
    pub(super) fn readable(&self) -> Result<PathBuf, String> {
        if !self.live.exists() && self.next().exists() {
            return Ok(self.next());
        }
        self.check_live()?;
        Ok(self.live.clone())
    }

    fn check_live(&self) -> Result<(), String> {
        match self.list().map_err(|error| error.to_string())?.last_key_value() {
            Some((_, last)) if !self.live.exists() => Err(format!(
                "it is gone, and {} is there, which it went on from; bring it back, or move the closed segments away to begin anew",
                last.display()
            )),
            _ => Ok(()),
        }
    }
}

/// The first row of a file, and what it goes on from.
pub(super) fn first_row(connection: &Connection) -> Result<Option<(Row, Option<SegmentBody>)>, JournalError> {
    let sql = format!("SELECT {COLUMNS} FROM journal ORDER BY seq LIMIT 1");
    let first = connection.query_row(&sql, [], Row::read).optional().map_err(read_error)?;
    let Some(first) = first else { return Ok(None) };
    let body = (first.kind == "segment").then(|| first.parse()).transpose()?;
    Ok(Some((first, body)))
}

impl Start {
    /// Of a file with this first row.
    pub(super) fn of(first: Option<&(Row, Option<SegmentBody>)>) -> Start {
        let before = first.and_then(|(_, body)| body.as_ref()).map_or(0, |body| body.before.number);
        Start { number: before + 1, at: first.map(|(row, _)| row.at) }
    }
}

/// What the steps of a roll-over work on.
#[derive(Debug)]
pub(super) struct RollOver {
    files: Files,
    closing: Closed,
    ledger: Ledger,
    controls: Controls,
    now: Timestamp,
}

/// One step of a roll-over.
type Step = fn(&mut RollOver) -> Result<(), JournalError>;

/// The steps, in order; a crash may come after any of them. The live file has been closed before, and all of it is in one
/// file.
pub(super) const STEPS: [Step; 4] = [RollOver::hash, RollOver::write_next, RollOver::close, RollOver::begin];

fn wrong(what: &str) -> impl Fn(std::io::Error) -> JournalError {
    move |error| JournalError::Segment(format!("{what}: {error}"))
}

impl RollOver {
    /// Of the live file as it stands.
    pub(super) fn of(state: &State, files: &Files, controls: Controls, now: Timestamp) -> RollOver {
        let number = state.start.number;
        let file = files.closed(number).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (rows, head) = (state.head.seq, state.head.hash.clone());
        let closing = Closed { number, file, rows, head, sha256: String::new() };
        RollOver { files: files.clone(), closing, ledger: state.ledger.clone(), controls, now }
    }

    fn hash(&mut self) -> Result<(), JournalError> {
        self.closing.sha256 = sha256_of(&self.files.live).map_err(wrong("the live file cannot be read"))?;
        Ok(())
    }

    fn write_next(&mut self) -> Result<(), JournalError> {
        let next = self.files.next();
        let failed = |error: rusqlite::Error| JournalError::Segment(format!("{}: {error}", next.display()));
        match std::fs::remove_file(&next) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(wrong("an old file is in the way")(error));
            }
            _ => {}
        }
        let body =
            SegmentBody { before: self.closing.clone(), ledger: self.ledger.clone(), controls: self.controls.clone() };
        let row = NewRow::new(RowKind::Segment, self.now, &(self.closing.number + 1).to_string(), &body)?;
        let mut connection = Connection::open(&next).map_err(failed)?;
        connection.execute_batch(&format!("PRAGMA synchronous = FULL; BEGIN; {SCHEMA} COMMIT;")).map_err(failed)?;
        let tx = connection.transaction().map_err(failed)?;
        insert(&tx, &Head { seq: self.closing.rows, hash: self.closing.head.clone() }, &row).map_err(failed)?;
        tx.commit().map_err(failed)?;
        connection.close().map_err(|(_, error)| failed(error))?;
        self.files.sync().map_err(wrong("the folder cannot be written"))
    }

    fn close(&mut self) -> Result<(), JournalError> {
        let closed = self.files.closed(self.closing.number);
        std::fs::rename(&self.files.live, &closed).map_err(wrong("the live file cannot be renamed"))?;
        self.files.sync().map_err(wrong("the folder cannot be written"))
    }

    fn begin(&mut self) -> Result<(), JournalError> {
        std::fs::rename(self.files.next(), &self.files.live).map_err(wrong("the new file cannot be renamed"))?;
        self.files.sync().map_err(wrong("the folder cannot be written"))?;
        let closed = self.files.closed(self.closing.number);
        let protect = || {
            let mut permissions = std::fs::metadata(&closed)?.permissions();
            permissions.set_readonly(true);
            std::fs::set_permissions(&closed, permissions)
        };
        protect().map_err(wrong("the closed file cannot be made read-only"))
    }
}

/// The SHA-256 of a file, in hexadecimal digits.
pub(super) fn sha256_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            length => hash.update(&buffer[..length]),
        }
    }
}

/// Brings all of a journal into its one file, where nobody else has it open. Otherwise it stays as it is.
pub(super) fn leave_wal(connection: &Connection) -> Result<(), JournalError> {
    connection.flush_prepared_statement_cache();
    let leave = || -> rusqlite::Result<String> {
        connection.busy_timeout(std::time::Duration::ZERO)?;
        connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))
    };
    match leave() {
        Ok(mode) if mode == "delete" => Ok(()),
        Ok(_) => Err(JournalError::InUse),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Err(JournalError::InUse),
        Err(error) => Err(JournalError::Segment(format!("the live file cannot be closed: {error}"))),
    }
}

/// One file of a journal.
#[derive(Debug)]
pub(super) enum Part {
    /// A closed one.
    Closed {
        /// Counting from 1.
        number: u64,
        /// Where it is.
        path: PathBuf,
        /// To read it.
        connection: Connection,
    },
    /// The live one.
    Live,
}

/// A row that says that a segment was deleted.
#[derive(Debug, Serialize, Deserialize)]
struct RetiredBody {
    segment: Closed,
    /// Why, in words.
    why: String,
}

impl Journal {
    /// The files, the oldest first; the live one last.
    pub(super) fn parts(&self) -> Result<Vec<Part>, JournalError> {
        let files = self.state.lock().files.clone();
        let mut parts = Vec::new();
        for (number, path) in files.map(|files| files.list()).transpose().map_err(read_files)?.unwrap_or_default() {
            parts.push(Part::Closed { number, connection: open_closed(&path)?, path });
        }
        parts.push(Part::Live);
        Ok(parts)
    }

    /// Runs a query on one file.
    pub(super) fn read_part<T>(
        &self,
        part: &Part,
        query: impl FnOnce(&Connection) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        match part {
            Part::Closed { connection, .. } => query(connection),
            Part::Live => self.read(query),
        }
    }

    /// Closes the live file where it is large or old enough, and deletes closed ones that are too old or too many.
    ///
    /// # Errors
    /// Where files cannot be written, or somebody else has the live one open: then it goes on as it is, and the next call
    /// tries again.
    pub fn tend(&self, settings: &SegmentSettings, now: Timestamp) -> Result<(), JournalError> {
        let controls = self.controls();
        let state = &mut *self.state.lock();
        let Some(files) = state.files.clone() else { return Ok(()) };
        let rolled_over =
            if state.is_due(&files, settings, now) { state.roll_over(&files, controls, now) } else { Ok(()) };
        let tended = rolled_over.and_then(|()| state.retire(&files, settings, now));
        *self.witness.lock() = Witness::of(&state.head);
        tended
    }
}

fn read_files(error: std::io::Error) -> JournalError {
    JournalError::Read(format!("the closed segments cannot be listed: {error}"))
}

fn open_closed(path: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .map_err(|error| JournalError::Read(format!("the closed segment {}: {error}", path.display())))
}

impl State {
    fn is_due(&self, files: &Files, settings: &SegmentSettings, now: Timestamp) -> bool {
        let Some(since) = self.start.at else { return false };
        let bytes = std::fs::metadata(&files.live).map_or(0, |metadata| metadata.len());
        let old = now - since > Millis(settings.retention.0 / 4);
        bytes >= settings.segment_bytes || old
    }

    fn roll_over(&mut self, files: &Files, controls: Controls, now: Timestamp) -> Result<(), JournalError> {
        let closed = files.closed(self.start.number);
        if closed.exists() {
            return Err(JournalError::Segment(format!("{} is in the way: move it elsewhere", closed.display())));
        }
        let done = leave_wal(&self.connection).and_then(|()| {
            let mut roll_over = RollOver::of(self, files, controls, now);
            // Whoever holds the file while it gets another name writes into the wrong one.
            self.connection = nowhere();
            STEPS.iter().try_for_each(|step| step(&mut roll_over))
        });
        // Whatever came of it, the file that bears the live name now is the one to go on with. Where there is none, nothing
        // can be written, and nothing is acted on.
        let opened = begin(files)?;
        (self.connection, self.head, self.start) = (opened.connection, opened.head, opened.start);
        done
    }

    fn retire(&mut self, files: &Files, settings: &SegmentSettings, now: Timestamp) -> Result<(), JournalError> {
        let closed = files.list().map_err(read_files)?;
        let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let mut bytes: u64 = closed.values().map(size).sum();
        for (number, path) in &closed {
            let (rows, head, at) = last_row(&open_closed(path)?)?;
            let why = if now - at > settings.retention {
                format!("its newest row is of {at}")
            } else if bytes > settings.closed_bytes_max {
                format!("all closed segments have {bytes} bytes, and at most {} are kept", settings.closed_bytes_max)
            } else {
                return Ok(());
            };
            bytes -= size(path);
            let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let sha256 = sha256_of(path).map_err(read_files)?;
            let segment = Closed { number: *number, file, rows, head, sha256 };
            // The row comes first: what is deleted has been said to be.
            let row = NewRow::new(RowKind::Retired, now, &number.to_string(), &RetiredBody { segment, why })?;
            self.append(&[row], |_, _| Ok(()))?;
            let removed = std::fs::remove_file(path).and_then(|()| files.sync());
            removed.map_err(wrong("a segment that is too old cannot be deleted"))?;
        }
        Ok(())
    }
}

fn last_row(connection: &Connection) -> Result<(i64, String, Timestamp), JournalError> {
    let sql = "SELECT seq, hash, at FROM journal ORDER BY seq DESC LIMIT 1";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, Timestamp(row.get(2)?)))).map_err(read_error)
}

/// A connection to a database that is nowhere and has no tables: whatever is written fails.
fn nowhere() -> Connection {
    Connection::open_in_memory().expect("memory needs no file")
}
