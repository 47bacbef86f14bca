//! The journal: an append-only, hash-chained table in an embedded SQLite file.
//!
//! Each row is one line of JSON, `{"seq":1,"at":…,"kind":"decision","id":"…","body":{…},"input_sha256":…}`, and its
//! hash is SHA-256 over the hash of the row before it (64 hex digits; zeros before the first) followed by that line.
//! Triggers refuse changes and deletions; whoever gets around them breaks the chain, which [`Journal::verify`] finds.
//! Rows cut off at the end can only be found by someone who kept the [`Journal::head`] or a [`Witness`].
//!
//! Beside the chain stand the inputs of plans (compressed; the oldest are dropped above a limit, the chain keeps
//! their hashes) and an index for queries that can be made anew from the rows. The file is the last of several
//! (`segments.rs`).
//!
//! The file is in WAL mode with `synchronous=FULL`: what was written is there after a power cut. One process writes;
//! others, `sqlite3` too, may read. When it cannot be written every write says so, and nothing is acted on.

use std::path::Path;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::controls::{Controls, PAUSES_MAX};
use super::predictions::{DoneBody, PREDICTIONS_MAX};
use super::segments::{Files, SegmentBody, Start, first_row};
use crate::act::{Attempt, Record, RecordError};
use crate::health::DaySummary;
use crate::model::{Millis, Timestamp, hex};
use crate::plan::{Action, Extension, Ledger, Outcome, Pause, Plan, PlanInput, Verdict};

/// The hash before the first row.
pub(super) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Compressed inputs are kept up to so many bytes; then the oldest are dropped.
const INPUT_BYTES_MAX: i64 = 256 * 1024 * 1024;

/// How long a writer waits for a reader to let go of the file.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// The version of the tables below.
const SCHEMA_VERSION: i64 = 2;

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS journal (
        seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,
        input_sha256 TEXT, hash TEXT NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS journal_by_id ON journal (id, kind);
    CREATE INDEX IF NOT EXISTS journal_by_kind ON journal (kind, at);
    CREATE TRIGGER IF NOT EXISTS journal_no_update BEFORE UPDATE ON journal
        BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
    CREATE TRIGGER IF NOT EXISTS journal_no_delete BEFORE DELETE ON journal
        BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
    CREATE TABLE IF NOT EXISTS inputs (decision INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS entries (
        decision INTEGER NOT NULL, component TEXT NOT NULL, reason TEXT, action_id TEXT, outcome TEXT
    ) STRICT;
    CREATE INDEX IF NOT EXISTS entries_by_decision ON entries (decision);
    CREATE INDEX IF NOT EXISTS entries_by_action ON entries (action_id) WHERE action_id IS NOT NULL;
    PRAGMA user_version = 2;
";

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// A plan and what it was made from.
    Decision,
    /// An action about to be sent.
    Intent,
    /// One attempt at sending it.
    Attempt,
    /// What came of it.
    Outcome,
    /// Whether it helped.
    Verdict,
    /// It is kept for longer.
    Extension,
    /// It is no longer ours to undo.
    Disowned,
    /// Something that happened, in words.
    Note,
    /// A person paused something.
    Pause,
    /// A person lifted a pause.
    Lift,
    /// A person's answer to an offer.
    Approval,
    /// A person released a breaker or a latch.
    Release,
    /// A policy may go further than before, or less far.
    Mode,
    /// Another predictor's verdict.
    Prediction,
    /// Something was done for a prediction: it never acts again.
    PredictionDone,
    /// A segment begins: the one before it, what had been done, what persons had said.
    Segment,
    /// A closed segment is deleted.
    Retired,
    /// What a rule's predictions were worth on one day.
    Quality,
}

/// What came of an action, as a row keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
pub struct Settled {
    /// What.
    pub outcome: Outcome,
    /// In words.
    pub detail: String,
    /// From the decision to the confirmation.
    pub took: Option<Millis>,
}

/// The journal cannot do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// It cannot be opened.
    #[error("the journal {path} cannot be opened: {reason}")]
    Open {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// A row cannot be written: nothing may be acted on.
    #[error("the journal cannot be written: {0}")]
    Write(String),
    /// Rows cannot be read.
    #[error("the journal cannot be read: {0}")]
    Read(String),
    /// The chain is broken: somebody changed the file.
    #[error("the journal is broken at row {seq}: {reason}")]
    Broken {
        /// The first row that is wrong.
        seq: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// The files of the journal are not as they should be.
    #[error("the segments of the journal: {0}")]
    Segment(String),
    /// A segment cannot be closed now.
    #[error("somebody else has the journal open, so its segment cannot be closed; the next pass tries again")]
    InUse,
    /// The row that a witness has seen is not kept any more.
    #[error("row {0} is in a segment that was deleted; take a newer witness")]
    WitnessGone(i64),
    /// Nothing more can be paused.
    #[error("{PAUSES_MAX} pauses hold already, which is the most; lift one, or pause more at once")]
    TooManyPauses,
    /// No more predictions count at once.
    #[error("{PREDICTIONS_MAX} predictions of others count already, which is the most; wait until some expire")]
    TooManyPredictions,
    /// Nothing has this id.
    #[error("there is no decision `{0}`")]
    NoDecision(String),
    /// The decision is there, its input no longer.
    #[error("the input of decision `{0}` is no longer kept: only the newest 256 MiB are")]
    InputGone(String),
}

/// A chain that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The number of the last row: how many there have ever been.
    pub rows: i64,
    /// The hash of the last.
    pub head: String,
    /// The number of the first row that is still kept.
    pub first: i64,
    /// In how many files they are.
    pub segments: usize,
}

/// What an outsider has seen of the journal: enough to prove later that no row up to that one was cut off or changed. The
/// metrics `forestall_journal_rows` and `forestall_journal_head` tell it to Prometheus at each scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// The number of the last row.
    pub rows: i64,
    /// The first 48 bits of its hash: as many as a metric's value holds exactly.
    pub value: u64,
}

impl Witness {
    pub(super) fn of(head: &Head) -> Witness {
        Witness { rows: head.seq, value: Witness::value_of(&head.hash) }
    }

    /// The first 48 bits of a hash.
    pub(super) fn value_of(hash: &str) -> u64 {
        hash.get(..12).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
    }
}

/// The journal. Its calls wait for the disk and may not be made on the async runtime's threads, but for those that say that
/// they do not wait.
#[derive(Debug)]
pub struct Journal {
    pub(super) state: Mutex<State>,
    /// The last row, to be read without waiting for the disk.
    pub(super) witness: Mutex<Witness>,
    /// What persons said, folded from the rows.
    pub(super) controls: RwLock<Controls>,
    /// Pauses that hold and could not be written yet.
    pub(super) unwritten: Mutex<Vec<Pause>>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) connection: Connection,
    pub(super) head: Head,
    /// What has been done, folded from the rows as they are written.
    pub(super) ledger: Ledger,
    /// Where it is; nowhere for one in memory.
    pub(super) files: Option<Files>,
    pub(super) start: Start,
}

/// The last row.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) seq: i64,
    pub(super) hash: String,
}

/// A file that was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) head: Head,
    pub(super) start: Start,
    before: Option<SegmentBody>,
}

/// Opens the live file for writing; makes it where there is none, and ends a roll-over that was cut short.
pub(super) fn begin(files: &Files) -> Result<Opened, JournalError> {
    let wrong = |reason: String| JournalError::Open { path: files.live.display().to_string(), reason };
    files.settle().map_err(wrong)?;
    let connection = Connection::open(&files.live).map_err(|error| wrong(error.to_string()))?;
    prepare(&connection).map_err(wrong)?;
    let opened = Opened::of(connection)?;
    let closed = files.list().map_err(|error| wrong(error.to_string()))?;
    match closed.last_key_value() {
        Some((number, last)) if *number + 1 != opened.start.number => Err(wrong(format!(
            "it is segment {} and does not go on from {}; bring back what belongs together, or move the closed segments away",
            opened.start.number,
            last.display()
        ))),
        _ => Ok(opened),
    }
}

impl Opened {
    fn of(connection: Connection) -> Result<Opened, JournalError> {
        let last = "SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1";
        let head = connection
            .query_row(last, [], |row| Ok(Head { seq: row.get(0)?, hash: row.get(1)? }))
            .optional()
            .map_err(read_error)?
            .unwrap_or(Head { seq: 0, hash: GENESIS.to_owned() });
        let first = first_row(&connection)?;
        let start = Start::of(first.as_ref());
        Ok(Opened { connection, head, start, before: first.and_then(|(_, body)| body) })
    }
}

/// One row as it is read back.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) at: Timestamp,
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) body: String,
    pub(super) input_sha256: Option<String>,
    pub(super) hash: String,
}

/// The columns of [`Row::read`], in its order.
pub(super) const COLUMNS: &str = "seq, at, kind, id, body, input_sha256, hash";

impl Row {
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
        Ok(Row {
            seq: row.get(0)?,
            at: Timestamp(row.get(1)?),
            kind: row.get(2)?,
            id: row.get(3)?,
            body: row.get(4)?,
            input_sha256: row.get(5)?,
            hash: row.get(6)?,
        })
    }

    /// The body as a type.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, JournalError> {
        serde_json::from_str(&self.body).map_err(|error| JournalError::Broken {
            seq: self.seq,
            reason: format!("the {} cannot be read: {error}", self.kind),
        })
    }

    /// The line that is hashed and exported.
    pub(super) fn line(&self) -> String {
        line_of(self.seq, self.at, &self.kind, &self.id, &self.body, self.input_sha256.as_deref())
    }
}

impl Journal {
    /// Opens a journal for writing; makes it where there is none.
    ///
    /// # Errors
    /// Where the file cannot be opened, is no journal, or was made by a newer forestall.
    pub fn open(path: &Path) -> Result<Journal, JournalError> {
        let files = Files { live: path.to_owned() };
        let opened = begin(&files)?;
        Journal::with(opened, Some(files))
    }

    /// Opens a journal that another process may be writing, to read only. Writes fail.
    ///
    /// # Errors
    /// Where there is none, or it cannot be read.
    pub fn open_read_only(path: &Path) -> Result<Journal, JournalError> {
        let wrong = |reason: String| JournalError::Open { path: path.display().to_string(), reason };
        let files = Files { live: path.to_owned() };
        let file = files.readable().map_err(wrong)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags).map_err(|error| wrong(error.to_string()))?;
        connection.busy_timeout(BUSY_WAIT).map_err(|error| wrong(error.to_string()))?;
        check_version(&connection).map_err(wrong)?;
        Journal::with(Opened::of(connection)?, Some(files))
    }

    /// A journal that is gone with the process: for tests and trials.
    pub fn in_memory() -> Journal {
        let connection = Connection::open_in_memory().expect("memory needs no file");
        prepare(&connection).expect("an empty database takes the tables");
        let opened = Opened::of(connection).expect("an empty journal can be read");
        Journal::with(opened, None).expect("an empty journal can be read")
    }

    fn with(opened: Opened, files: Option<Files>) -> Result<Journal, JournalError> {
        let Opened { connection, head, start, before } = opened;
        let (ledger, controls) = before.map(|before| (before.ledger, before.controls)).unwrap_or_default();
        let ledger = rebuild_ledger(&connection, ledger)?;
        let controls = RwLock::new(controls.rebuild(&connection)?);
        let witness = Mutex::new(Witness::of(&head));
        let state = Mutex::new(State { connection, head, ledger, files, start });
        Ok(Journal { state, witness, controls, unwritten: Mutex::default() })
    }

    /// Runs a query under the lock.
    pub(super) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        query(&self.state.lock().connection)
    }

    /// The hash of the last row. Kept elsewhere, it proves later that nothing was cut off.
    pub fn head(&self) -> String {
        self.state.lock().head.hash.clone()
    }

    /// What an outsider should keep. Does not wait for the disk.
    pub fn witness(&self) -> Witness {
        *self.witness.lock()
    }

    /// Adds rows and what stands beside the first of them, or nothing at all.
    pub(super) fn append_beside(
        &self,
        state: &mut State,
        rows: &[NewRow],
        beside: impl FnOnce(&Transaction<'_>, i64) -> rusqlite::Result<()>,
    ) -> Result<(), JournalError> {
        state.append(rows, beside)?;
        *self.witness.lock() = Witness::of(&state.head);
        Ok(())
    }

    /// What a plan made at `now` must know of what was done.
    pub fn ledger(&self, now: Timestamp) -> Ledger {
        let mut ledger = self.state.lock().ledger.clone();
        ledger.prune(now);
        ledger
    }

    /// Keeps a decision with what it was made from (without the fans of the forecasts, which no plan looks at), and
    /// gives its id. What the plan found out about earlier actions counts in the ledger from then on.
    ///
    /// # Errors
    /// Where it could not be written.
    pub fn record_decision(&self, input: &PlanInput, plan: &Plan) -> Result<String, JournalError> {
        let input = to_json(&without_fans(input))?;
        let packed = snap::raw::Encoder::new()
            .compress_vec(input.as_bytes())
            .map_err(|error| JournalError::Write(format!("the input cannot be compressed: {error}")))?;
        let mut rows = vec![decision_row(plan, &input)?];
        let id = rows[0].id.clone();
        for verdict in &plan.verdicts {
            rows.push(NewRow::new(RowKind::Verdict, plan.at, &verdict.action_id, verdict)?);
        }
        for extension in &plan.extended {
            rows.push(NewRow::new(RowKind::Extension, plan.at, &extension.action_id, extension)?);
        }
        for action_id in &plan.disowned {
            rows.push(NewRow::new(RowKind::Disowned, plan.at, action_id, &serde_json::json!({}))?);
        }
        let state = &mut *self.state.lock();
        self.append_beside(state, &rows, |tx, seq| {
            tx.prepare_cached("INSERT INTO inputs (decision, body) VALUES (?, ?)")?.execute(params![seq, packed])?;
            write_entries(tx, seq, plan)?;
            drop_old_inputs(tx)
        })?;
        state.ledger.note(plan);
        self.controls.write().note_plan(plan);
        Ok(id)
    }

    /// Keeps something that happened: `what` in one word, `text` in a sentence.
    ///
    /// # Errors
    /// Where it could not be written.
    pub fn note(&self, what: &str, text: &str, now: Timestamp) -> Result<(), JournalError> {
        self.append_one(RowKind::Note, now, what, &serde_json::json!({ "text": text }))
    }

    /// Adds one row of which nothing but controls follows.
    pub(super) fn append_one(
        &self,
        kind: RowKind,
        at: Timestamp,
        id: &str,
        body: &impl Serialize,
    ) -> Result<(), JournalError> {
        self.append(&[NewRow::new(kind, at, id, body)?])
    }

    /// The same for several rows, all or none.
    pub(super) fn append(&self, rows: &[NewRow]) -> Result<(), JournalError> {
        self.append_beside(&mut self.state.lock(), rows, |_, _| Ok(()))
    }
}

/// A summary with its figures beside the sums they follow from, so that whoever reads the file need not compute them.
#[derive(Serialize)]
struct QualityBody<'a> {
    date: String,
    precision: Option<f64>,
    recall: Option<f64>,
    brier_score: Option<f64>,
    calibration_error: Option<f64>,
    coverage: Option<f64>,
    lead_seconds: Option<f64>,
    #[serde(flatten)]
    summary: &'a DaySummary,
}

/// What predictions were worth.
impl Journal {
    /// Keeps summaries of rules and days, all or none. What a day adds after its summary is kept in another one.
    ///
    /// # Errors
    /// Where they could not be written.
    pub fn record_quality(&self, summaries: &[DaySummary], now: Timestamp) -> Result<(), JournalError> {
        let row = |summary: &DaySummary| {
            let tally = &summary.tally;
            let body = QualityBody {
                date: summary.date(),
                precision: tally.precision(),
                recall: tally.recall(),
                brier_score: tally.brier(),
                calibration_error: tally.calibration_error(),
                coverage: tally.coverage(),
                lead_seconds: tally.lead(),
                summary,
            };
            NewRow::new(RowKind::Quality, now, &format!("{}/{}", summary.rule, summary.date()), &body)
        };
        let rows = summaries.iter().map(row).collect::<Result<Vec<NewRow>, JournalError>>()?;
        if rows.is_empty() {
            return Ok(());
        }
        self.append(&rows)
    }

    /// The summaries that were kept, the oldest first.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn quality(&self) -> Result<Vec<DaySummary>, JournalError> {
        let sql = format!("SELECT {COLUMNS} FROM journal WHERE kind = 'quality' ORDER BY seq");
        let mut summaries = Vec::new();
        for part in self.parts()? {
            self.read_part(&part, |connection| {
                let mut statement = connection.prepare(&sql).map_err(read_error)?;
                for row in statement.query_map([], Row::read).map_err(read_error)? {
                    summaries.push(row.map_err(read_error)?.parse()?);
                }
                Ok(())
            })?;
        }
        Ok(summaries)
    }
}

impl Record for Journal {
    fn intent(&self, action: &Action, now: Timestamp) -> Result<(), RecordError> {
        let row = NewRow::new(RowKind::Intent, now, &action.id, action)?;
        let state = &mut *self.state.lock();
        self.append_beside(state, &[row], |_, _| Ok(()))?;
        state.ledger.record_intent(action);
        state.ledger.prune(now);
        Ok(())
    }

    fn attempt(&self, action_id: &str, attempt: &Attempt) -> Result<(), RecordError> {
        let row = NewRow::new(RowKind::Attempt, attempt.at, action_id, attempt)?;
        Ok(self.append(&[row])?)
    }

    fn outcome(
        &self,
        action_id: &str,
        outcome: Outcome,
        detail: &str,
        took: Option<Millis>,
        now: Timestamp,
    ) -> Result<(), RecordError> {
        let settled = Settled { outcome, detail: detail.to_owned(), took };
        let mut rows = vec![NewRow::new(RowKind::Outcome, now, action_id, &settled)?];
        let state = &mut *self.state.lock();
        let done = self.controls.read().done_by(&state.ledger, action_id, outcome);
        for key in &done {
            rows.push(NewRow::new(RowKind::PredictionDone, now, key, &DoneBody { action: action_id.to_owned() })?);
        }
        self.append_beside(state, &rows, |tx, _| {
            let update = "UPDATE entries SET outcome = ? WHERE action_id = ?";
            tx.prepare_cached(update)?.execute(params![word(&outcome), action_id]).map(|_| ())
        })?;
        state.ledger.record_outcome(action_id, outcome, took, now);
        self.controls.write().note_done(&done, action_id);
        Ok(())
    }

    fn attempts(&self, action_id: &str) -> Result<Vec<Attempt>, RecordError> {
        let mut attempts = Vec::new();
        // From the newest file back to the one that has the intent.
        for part in self.parts()?.iter().rev() {
            let rows = self.rows_of(std::slice::from_ref(part), action_id, "attempt")?;
            let found = rows.iter().map(Row::parse).collect::<Result<Vec<Attempt>, _>>()?;
            attempts.splice(..0, found);
            if !self.rows_of(std::slice::from_ref(part), action_id, "intent")?.is_empty() {
                break;
            }
        }
        Ok(attempts)
    }

    fn forbids(&self, action: &Action, now: Timestamp) -> Option<String> {
        self.controls.read().forbids(action, now)
    }
}

impl From<JournalError> for RecordError {
    fn from(error: JournalError) -> RecordError {
        match error {
            JournalError::Write(reason) => RecordError(reason),
            other => RecordError(other.to_string()),
        }
    }
}

/// A row that is not written yet.
#[derive(Debug)]
pub(super) struct NewRow {
    kind: RowKind,
    at: Timestamp,
    id: String,
    body: String,
    input_sha256: Option<String>,
}

impl NewRow {
    pub(super) fn new(kind: RowKind, at: Timestamp, id: &str, body: &impl Serialize) -> Result<NewRow, JournalError> {
        Ok(NewRow { kind, at, id: id.to_owned(), body: to_json(body)?, input_sha256: None })
    }
}

impl State {
    /// Adds rows and what stands beside the first of them, or nothing at all.
    pub(super) fn append(
        &mut self,
        rows: &[NewRow],
        beside: impl FnOnce(&Transaction<'_>, i64) -> rusqlite::Result<()>,
    ) -> Result<(), JournalError> {
        let mut head = self.head.clone();
        let write = |connection: &mut Connection| -> rusqlite::Result<()> {
            let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            beside(&tx, head.seq + 1)?;
            for row in rows {
                head = insert(&tx, &head, row)?;
            }
            tx.commit()
        };
        write(&mut self.connection).map_err(|error| JournalError::Write(error.to_string()))?;
        self.head = head;
        if self.start.at.is_none() {
            self.start.at = rows.first().map(|row| row.at);
        }
        Ok(())
    }
}

/// Adds a row after the last one.
pub(super) fn insert(tx: &Transaction<'_>, last: &Head, row: &NewRow) -> rusqlite::Result<Head> {
    let (seq, kind) = (last.seq + 1, word(&row.kind));
    let line = line_of(seq, row.at, &kind, &row.id, &row.body, row.input_sha256.as_deref());
    let hash = chain_hash(&last.hash, &line);
    // Its number is taken where another process writes too: then this fails, and the chain stays whole.
    let insert = format!("INSERT INTO journal ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)");
    tx.prepare_cached(&insert)?.execute(params![seq, row.at.0, kind, row.id, row.body, row.input_sha256, hash])?;
    Ok(Head { seq, hash })
}

fn decision_row(plan: &Plan, input: &str) -> Result<NewRow, JournalError> {
    #[derive(Serialize)]
    struct Body<'a> {
        plan: &'a Plan,
    }
    let mut row = NewRow::new(RowKind::Decision, plan.at, "", &Body { plan })?;
    row.id = format!("d{}-{}", plan.at.0, &hex(&Sha256::digest(row.body.as_bytes()))[..8]);
    row.input_sha256 = Some(hex(&Sha256::digest(input.as_bytes())));
    Ok(row)
}

/// What has been done: what had been done before this file began, and all its rows that say so.
fn rebuild_ledger(connection: &Connection, mut ledger: Ledger) -> Result<Ledger, JournalError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM journal WHERE kind IN ('intent', 'outcome', 'verdict', 'extension', 'disowned')
         ORDER BY seq"
    );
    let mut statement = connection.prepare(&sql).map_err(read_error)?;
    for row in statement.query_map([], Row::read).map_err(read_error)? {
        let row = row.map_err(read_error)?;
        let mut found_out = Plan::default();
        match row.kind.as_str() {
            "intent" => {
                ledger.record_intent(&row.parse()?);
                ledger.prune(row.at);
            }
            "outcome" => {
                let settled: Settled = row.parse()?;
                ledger.record_outcome(&row.id, settled.outcome, settled.took, row.at);
            }
            "verdict" => found_out.verdicts.push(row.parse::<Verdict>()?),
            "extension" => found_out.extended.push(row.parse::<Extension>()?),
            _ => found_out.disowned.push(row.id),
        }
        ledger.note(&found_out);
    }
    Ok(ledger)
}

fn prepare(connection: &Connection) -> Result<(), String> {
    let prepare = || -> rusqlite::Result<()> {
        connection.busy_timeout(BUSY_WAIT)?;
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
    };
    prepare().map_err(|error| error.to_string())?;
    let version = check_version(connection)?;
    let has_tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'journal_no_delete'";
    let tables: i64 = connection.query_row(has_tables, [], |row| row.get(0)).map_err(|error| error.to_string())?;
    // A journal on a full or read-only disk can still be opened: forecasting goes on without acting.
    if tables == 0 {
        connection.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;")).map_err(|error| error.to_string())?;
    }
    if version < SCHEMA_VERSION && tables > 0 {
        // An older forestall, which does not know of pauses, must not go on from here.
        connection.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn check_version(connection: &Connection) -> Result<i64, String> {
    let version: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|error| error.to_string())?;
    if version > SCHEMA_VERSION {
        return Err(format!("it has version {version}, this forestall knows {SCHEMA_VERSION}; use a newer one"));
    }
    Ok(version)
}

fn write_entries(tx: &Transaction<'_>, decision: i64, plan: &Plan) -> rusqlite::Result<()> {
    let mut insert =
        tx.prepare_cached("INSERT INTO entries (decision, component, reason, action_id) VALUES (?, ?, ?, ?)")?;
    for action in &plan.actions {
        insert.execute(params![decision, action.target.component.to_string(), None::<String>, action.id])?;
    }
    for declined in &plan.declined {
        insert.execute(params![decision, declined.component.to_string(), word(&declined.reason), None::<String>])?;
    }
    Ok(())
}

/// Drops the oldest inputs above the limit; at least the newest stays.
fn drop_old_inputs(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let total = "SELECT coalesce(sum(length(body)), 0) FROM inputs";
    let total: i64 = tx.prepare_cached(total)?.query_row([], |row| row.get(0))?;
    if total > INPUT_BYTES_MAX {
        let oldest_tenth = "DELETE FROM inputs WHERE decision IN
            (SELECT decision FROM inputs ORDER BY decision LIMIT 1 + (SELECT count(*) FROM inputs) / 10)
            AND decision < (SELECT max(decision) FROM inputs)";
        tx.execute(oldest_tenth, [])?;
    }
    Ok(())
}

/// The forecasts' fans are most of an input's bytes, and planning looks at their summary (`peak_q90`) only.
fn without_fans(input: &PlanInput) -> PlanInput {
    let mut input = input.clone();
    for signal in input.assessments.iter_mut().flat_map(|assessment| &mut assessment.signals) {
        signal.foresight.path = None;
    }
    input
}

/// The canonical line: fixed order of fields, the body as it was written.
fn line_of(seq: i64, at: Timestamp, kind: &str, id: &str, body: &str, input_sha256: Option<&str>) -> String {
    let (at, id) = (at.0, serde_json::Value::from(id));
    let input = input_sha256.map(|hash| format!(r#","input_sha256":"{hash}""#)).unwrap_or_default();
    format!(r#"{{"seq":{seq},"at":{at},"kind":"{kind}","id":{id},"body":{body}{input}}}"#)
}

pub(super) fn chain_hash(before: &str, line: &str) -> String {
    hex(&Sha256::new().chain_update(before).chain_update(line).finalize())
}

/// How a unit variant is written in JSON, without its quotes: its word in metrics, answers and the journal alike.
pub fn word(variant: &impl Serialize) -> String {
    let text = serde_json::to_string(variant).expect("a unit variant is always JSON");
    text.trim_matches('"').to_owned()
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String, JournalError> {
    serde_json::to_string(value).map_err(|error| JournalError::Write(format!("a row is not JSON: {error}")))
}

pub(super) fn read_error(error: rusqlite::Error) -> JournalError {
    JournalError::Read(error.to_string())
}
