//! The chain as a whole: verified, and exported as JSON Lines.

use std::io::Write;

use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};

use super::journal::{COLUMNS, GENESIS, Journal, JournalError, Row, Verified, chain_hash, hex, read_error};

/// Rows are read in portions of so many, so that writers need not wait for all of them.
const PORTION: i64 = 256;

/// An unpacked input is never larger than this.
const UNPACKED_BYTES_MAX: usize = 512 * 1024 * 1024;

impl Journal {
    /// Checks every row's hash, its number, and the inputs that are still kept.
    ///
    /// # Errors
    /// [`JournalError::Broken`] names the first row that is wrong.
    pub fn verify(&self) -> Result<Verified, JournalError> {
        let mut head = GENESIS.to_owned();
        let mut rows = 0;
        self.for_each_row(|row, input| {
            let broken = |reason: &str| JournalError::Broken { seq: row.seq, reason: reason.to_owned() };
            rows += 1;
            if row.seq != rows {
                return Err(JournalError::Broken { seq: rows, reason: "the row is missing".to_owned() });
            }
            if chain_hash(&head, &row.line()) != row.hash {
                return Err(broken("its hash does not fit its content and the rows before it"));
            }
            let input_sha256 = input.map(|input| hex(&Sha256::digest(input)));
            if input_sha256.is_some() && input_sha256 != row.input_sha256 {
                return Err(broken("its input is not the one that was written"));
            }
            head.clone_from(&row.hash);
            Ok(())
        })?;
        Ok(Verified { rows, head })
    }

    /// Writes all rows as JSON Lines: the hashed line, then its hash, then the input where it is still kept. Two
    /// journals of the same decisions give the same bytes.
    ///
    /// # Errors
    /// Where rows cannot be read or the lines not be written.
    pub fn export(&self, to: &mut impl Write) -> Result<(), JournalError> {
        self.for_each_row(|row, input| {
            let line = row.line();
            let open = line.strip_suffix('}').expect("a line is an object");
            let written = match input {
                Some(input) => writeln!(to, r#"{open},"hash":"{}","input":{input}}}"#, row.hash),
                None => writeln!(to, r#"{open},"hash":"{}"}}"#, row.hash),
            };
            written.map_err(|error| JournalError::Read(format!("the export cannot be written: {error}")))
        })
    }

    fn for_each_row(
        &self,
        mut visit: impl FnMut(&Row, Option<&str>) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let mut after = 0;
        loop {
            let portion = self.read(|connection| {
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
