//! The chain as a whole: verified, and exported as JSON Lines.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};

use super::journal::{COLUMNS, GENESIS, Journal, JournalError, Row, Verified, Witness, chain_hash, read_error};
use super::segments::{Closed, Part, SegmentBody, sha256_of};
use crate::model::hex;

/// Rows are read in portions of so many, so that writers need not wait for all of them.
const PORTION: i64 = 256;

/// An unpacked input is never larger than this.
const UNPACKED_BYTES_MAX: usize = 512 * 1024 * 1024;

/// The chain as far as it has been followed.
#[derive(Debug, Default)]
struct Chain {
    seq: i64,
    head: String,
    first: Option<i64>,
    /// The segment before the first that is there.
    gone: Option<Closed>,
    /// Segments that rows say were deleted.
    retired: BTreeSet<String>,
    /// The closed segment that has just ended.
    ended: Option<Closed>,
}

fn broken(seq: i64, reason: impl Into<String>) -> JournalError {
    JournalError::Broken { seq, reason: reason.into() }
}

impl Chain {
    /// Comes to the first row of a file.
    fn enter(&mut self, row: &Row) -> Result<(), JournalError> {
        let body = (row.kind == "segment").then(|| row.parse::<SegmentBody>()).transpose()?;
        match (self.first, body) {
            (None, None) => self.head = GENESIS.to_owned(),
            (None, Some(SegmentBody { before, .. })) => {
                (self.seq, self.head) = (before.rows, before.head.clone());
                self.gone = Some(before);
            }
            (Some(_), Some(SegmentBody { before, .. })) if Some(&before) == self.ended.as_ref() => {}
            (Some(_), Some(SegmentBody { before, .. })) => {
                let what =
                    format!("it goes on from {}, which is not as it was when it was closed, or gone", before.file);
                return Err(broken(row.seq, what));
            }
            (Some(_), None) => return Err(broken(row.seq, "it is the first of a segment and does not say from which")),
        }
        self.first.get_or_insert(self.seq + 1);
        Ok(())
    }

    fn check(&mut self, row: &Row, input: Option<&str>) -> Result<(), JournalError> {
        self.seq += 1;
        if row.seq != self.seq {
            return Err(broken(self.seq, "the row is missing"));
        }
        if chain_hash(&self.head, &row.line()) != row.hash {
            return Err(broken(row.seq, "its hash does not fit its content and the rows before it"));
        }
        let input_sha256 = input.map(|input| hex(&Sha256::digest(input)));
        if input_sha256.is_some() && input_sha256 != row.input_sha256 {
            return Err(broken(row.seq, "its input is not the one that was written"));
        }
        if row.kind == "retired" {
            self.retired.insert(row.id.clone());
        }
        self.head.clone_from(&row.hash);
        Ok(())
    }

    /// Comes to the end of a closed file.
    fn leave(&mut self, number: u64, path: &Path) -> Result<(), JournalError> {
        let wrong = |error: std::io::Error| JournalError::Read(format!("{}: {error}", path.display()));
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let sha256 = sha256_of(path).map_err(wrong)?;
        self.ended = Some(Closed { number, file, rows: self.seq, head: self.head.clone(), sha256 });
        Ok(())
    }
}

impl Journal {
    /// Checks every row's hash, its number, the inputs that are still kept, and that the files belong together. Where the
    /// first segments are gone, a row must say that they were deleted.
    ///
    /// # Errors
    /// [`JournalError::Broken`] names the first row that is wrong.
    pub fn verify(&self) -> Result<Verified, JournalError> {
        self.verify_against(None)
    }

    /// The same, and that the row which a witness has seen is there as it was.
    ///
    /// # Errors
    /// Those of [`Journal::verify`]; [`JournalError::WitnessGone`] where the row was deleted with its segment.
    pub fn verify_against(&self, witness: Option<Witness>) -> Result<Verified, JournalError> {
        let mut chain = Chain::default();
        let parts = self.parts()?;
        for part in &parts {
            let mut entered = false;
            self.for_each_row_of(part, |row, input| {
                if !entered {
                    chain.enter(row)?;
                    entered = true;
                }
                chain.check(row, input)?;
                match witness.filter(|witness| witness.rows == row.seq) {
                    Some(witness) if witness.value != Witness::value_of(&row.hash) => {
                        Err(broken(row.seq, "it is not the row that the witness has seen"))
                    }
                    _ => Ok(()),
                }
            })?;
            match part {
                Part::Closed { number, path, .. } => chain.leave(*number, path)?,
                Part::Live if !entered && parts.len() > 1 => {
                    return Err(broken(chain.seq + 1, "the live file is empty, and closed segments are there"));
                }
                Part::Live => {}
            }
        }
        if let Some(gone) = chain.gone.filter(|gone| !chain.retired.contains(&gone.number.to_string())) {
            return Err(broken(gone.rows, format!("{} is gone, and no row says that it was deleted", gone.file)));
        }
        let first = chain.first.unwrap_or(1);
        match witness {
            Some(witness) if witness.rows > chain.seq => {
                let what = format!("rows were cut off: the witness has seen {}", witness.rows);
                Err(broken(chain.seq + 1, what))
            }
            Some(witness) if 0 < witness.rows && witness.rows < first => Err(JournalError::WitnessGone(witness.rows)),
            _ => Ok(Verified { rows: chain.seq, head: chain.head, first, segments: parts.len() }),
        }
    }

    /// Writes all rows as JSON Lines: the hashed line, then its hash, then the input where it is still kept. Two
    /// journals of the same decisions give the same bytes.
    ///
    /// # Errors
    /// Where rows cannot be read or the lines not be written.
    pub fn export(&self, to: &mut impl Write) -> Result<(), JournalError> {
        for part in &self.parts()? {
            self.for_each_row_of(part, |row, input| {
                let line = row.line();
                let open = line.strip_suffix('}').expect("a line is an object");
                let written = match input {
                    Some(input) => writeln!(to, r#"{open},"hash":"{}","input":{input}}}"#, row.hash),
                    None => writeln!(to, r#"{open},"hash":"{}"}}"#, row.hash),
                };
                written.map_err(|error| JournalError::Read(format!("the export cannot be written: {error}")))
            })?;
        }
        Ok(())
    }

    fn for_each_row_of(
        &self,
        part: &Part,
        mut visit: impl FnMut(&Row, Option<&str>) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let mut after = 0;
        loop {
            let portion = self.read_part(part, |connection| {
                let rows = read_rows(connection, after)?;
                rows.into_iter().map(|row| Ok((read_input(connection, row.seq)?, row))).collect::<Result<Vec<_>, _>>()
            })?;
            let Some((_, last)) = portion.last() else { return Ok(()) };
            after = last.seq;
            for (input, row) in &portion {
                visit(row, input.as_deref())?;
            }
        }
    }
}

fn read_rows(connection: &Connection, after: i64) -> Result<Vec<Row>, JournalError> {
    let sql = format!("SELECT {COLUMNS} FROM journal WHERE seq > ? ORDER BY seq LIMIT ?");
    let mut statement = connection.prepare_cached(&sql).map_err(read_error)?;
    let rows = statement.query_map([after, PORTION], Row::read).map_err(read_error)?;
    rows.collect::<Result<Vec<_>, _>>().map_err(read_error)
}

/// The input of a decision, where it is still kept.
pub(super) fn read_input(connection: &Connection, decision: i64) -> Result<Option<String>, JournalError> {
    let sql = "SELECT body FROM inputs WHERE decision = ?";
    let mut statement = connection.prepare_cached(sql).map_err(read_error)?;
    let packed: Option<Vec<u8>> = statement.query_row([decision], |row| row.get(0)).optional().map_err(read_error)?;
    let Some(packed) = packed else { return Ok(None) };
    let broken = |reason: String| JournalError::Broken { seq: decision, reason };
    let length = snap::raw::decompress_len(&packed).map_err(|error| broken(format!("its input: {error}")))?;
    if length > UNPACKED_BYTES_MAX {
        return Err(broken(format!("its input has {length} bytes; at most {UNPACKED_BYTES_MAX} are read")));
    }
    let bytes =
        snap::raw::Decoder::new().decompress_vec(&packed).map_err(|error| broken(format!("its input: {error}")))?;
    String::from_utf8(bytes).map(Some).map_err(|_| broken("its input is not text".to_owned()))
}
