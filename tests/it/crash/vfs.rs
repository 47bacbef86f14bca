//! A layer between SQLite and the machine's files that writes down what SQLite does: creations, writes, truncations,
//! deletions and syncs, in order, on the tape of the folder that the file is in.
//!
//! It is registered as SQLite's default, so that the journal is opened exactly as the product opens it. Files of folders
//! without a tape go straight to the machine. For those with one, syncs are written down and not carried out: what would
//! survive a loss of power is worked out from the tape (`disk.rs`), and the machine's disk is spared.

#![expect(unsafe_code, reason = "SQLite calls its file layer through C function pointers")]

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::ffi;

use super::disk::{Event, FileId, Mark};

/// The tapes, by the folder they are for.
static TAPES: Mutex<BTreeMap<PathBuf, Arc<Tape>>> = Mutex::new(BTreeMap::new());

/// What happened to the files of one folder, and what was marked in between.
#[derive(Debug, Default)]
pub(super) struct Tape {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    events: Vec<Event>,
    /// The files that there are now, by name.
    names: BTreeMap<String, FileId>,
    next: FileId,
    /// Whether syncs are left out, as if SQLite had not asked for any.
    syncs_nothing: bool,
    /// Whether what happens to files is left out: then only marks are kept.
    marks_only: bool,
}

/// A folder of its own whose files are written down; the folder and its tape go with it.
#[derive(Debug)]
pub(super) struct Folder {
    folder: tempfile::TempDir,
    path: PathBuf,
    pub(super) tape: Arc<Tape>,
}

impl Folder {
    /// A folder with these files, whose content is durable.
    pub(super) fn with(files: &BTreeMap<String, Vec<u8>>) -> Folder {
        register();
        let folder = tempfile::tempdir().expect("a folder can be made");
        // SQLite resolves links in paths.
        let path = folder.path().canonicalize().expect("it was just made");
        let tape = Arc::new(Tape::default());
        {
            let mut inner = tape.inner();
            for (name, bytes) in files {
                std::fs::write(path.join(name), bytes).expect("a file can be written");
                let id = inner.next;
                inner.names.insert(name.clone(), id);
                inner.next += 1;
            }
        }
        lock(&TAPES).insert(path.clone(), Arc::clone(&tape));
        Folder { folder, path, tape }
    }

    /// Where the journal is.
    pub(super) fn journal(&self) -> PathBuf {
        self.path.join("journal.sqlite")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        lock(&TAPES).remove(&self.path);
        debug_assert!(self.folder.path().exists(), "nobody else removes it");
    }
}

impl Tape {
    /// Leaves out syncs from now on: what a journal would do that does not ask for any.
    pub(super) fn sync_nothing(&self) {
        self.inner().syncs_nothing = true;
    }

    /// Keeps marks only from now on: for a life that is not killed again.
    pub(super) fn keep_marks_only(&self) {
        self.inner().marks_only = true;
    }

    pub(super) fn mark(&self, mark: Mark) {
        self.inner().events.push(Event::Mark(mark));
    }

    /// What happened so far; the tape is empty after that.
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.inner().events)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// The file of this name, which was just opened; a new one where it was not there before.
    fn opened(&self, name: &str, is_new: bool) -> FileId {
        let mut inner = self.inner();
        if let Some(id) = inner.names.get(name).filter(|_| !is_new) {
            return *id;
        }
        let id = inner.next;
        inner.next += 1;
        inner.names.insert(name.to_owned(), id);
        inner.push(Event::Create { name: name.to_owned(), file: id });
        id
    }

    fn deleted(&self, name: &str, folder_synced: bool) {
        let mut inner = self.inner();
        inner.names.remove(name);
        inner.push(Event::Delete { name: name.to_owned() });
        if folder_synced && !inner.syncs_nothing {
            inner.push(Event::SyncFolder);
        }
    }

    fn synced(&self, file: FileId, folder_too: bool) {
        let mut inner = self.inner();
        if inner.syncs_nothing {
            return;
        }
        inner.push(Event::Sync { file });
        if folder_too {
            inner.push(Event::SyncFolder);
        }
    }
}

impl Inner {
    fn push(&mut self, event: Event) {
        if !self.marks_only {
            self.events.push(event);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tape for a file, and the file's name in its folder.
fn tape_of(path: &Path) -> Option<(Arc<Tape>, String)> {
    let tape = lock(&TAPES).get(path.parent()?).cloned()?;
    Some((tape, path.file_name()?.to_string_lossy().into_owned()))
}

/// An open file of ours: SQLite's part first, as it wants it; the machine's own file lies behind it.
#[repr(C)]
struct Shim {
    base: ffi::sqlite3_file,
    ours: *mut Ours,
}

struct Ours {
    tape: Arc<Tape>,
    file: FileId,
    /// The machine's layer syncs the folder with the first sync of a new journal file, so that its name is durable.
    syncs_folder: bool,
}

/// The machine's own layer, and the one in front of it. They live as long as the process.
struct Layers {
    machine: *mut ffi::sqlite3_vfs,
}

// SAFETY: the pointer is set once, to what SQLite keeps for the life of the process and itself uses from all threads.
unsafe impl Send for Layers {}
// SAFETY: as above; nothing is written through it.
unsafe impl Sync for Layers {}

static LAYERS: OnceLock<Layers> = OnceLock::new();

fn machine() -> *mut ffi::sqlite3_vfs {
    LAYERS.get().expect("files are opened after the layer was registered").machine
}

/// Puts the layer in front of the machine's; once.
fn register() {
    LAYERS.get_or_init(|| {
        // SAFETY: SQLite is initialised first; the machine's layer is there, and the copy of its description, leaked,
        // stays valid. The functions that are not replaced do not look at which description they are called through.
        unsafe {
            assert_eq!(ffi::sqlite3_initialize(), ffi::SQLITE_OK);
            let machine = ffi::sqlite3_vfs_find(std::ptr::null());
            assert!(!machine.is_null(), "SQLite has a layer for this machine");
            let mut front = *machine;
            front.zName = c"written-down".as_ptr();
            front.pNext = std::ptr::null_mut();
            front.szOsFile += c_int::try_from(size_of::<Shim>()).expect("a few bytes");
            front.xOpen = Some(open);
            front.xDelete = Some(delete);
            let front = Box::leak(Box::new(front));
            assert_eq!(ffi::sqlite3_vfs_register(front, 1), ffi::SQLITE_OK);
            Layers { machine }
        }
    });
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Without memory-mapped reads (version 3): all writes pass here.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(raise_lock),
    xUnlock: Some(lower_lock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// # Safety
/// `text` is null or a C string that outlives the path.
unsafe fn path_of<'a>(text: *const c_char) -> Option<&'a Path> {
    // SAFETY: as the caller says.
    (!text.is_null()).then(|| Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes())))
}

/// The machine's file behind one of ours, and its methods.
///
/// # Safety
/// `file` was opened by `open`, for a folder with a tape, and not closed since.
unsafe fn behind(file: *mut ffi::sqlite3_file) -> (*mut ffi::sqlite3_file, &'static ffi::sqlite3_io_methods) {
    // SAFETY: SQLite gave as many bytes as the layer asked for: ours, then the machine's.
    unsafe {
        let real = file.cast::<Shim>().add(1).cast::<ffi::sqlite3_file>();
        (real, &*(*real).pMethods)
    }
}

/// # Safety
/// As for `behind`.
unsafe fn ours<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Ours {
    // SAFETY: `open` put a box there, `close` takes it away; SQLite uses a file from one thread at a time.
    unsafe { &mut *(*file.cast::<Shim>()).ours }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let machine = machine();
    // SAFETY: SQLite gives a name that is null or a C string, and memory of the size that was asked for; the machine's
    // layer gets its own description and the part of the memory that is its own.
    unsafe {
        let machine_opens = (*machine).xOpen.expect("a layer opens files");
        let path = path_of(name);
        let Some((tape, short)) = path.and_then(tape_of) else {
            return machine_opens(machine, name, file, flags, flags_out);
        };
        let is_new = !path.is_some_and(Path::exists);
        let shim = file.cast::<Shim>();
        (*shim).base.pMethods = std::ptr::null();
        let answer = machine_opens(machine, name, shim.add(1).cast(), flags, flags_out);
        if answer != ffi::SQLITE_OK {
            return answer;
        }
        let journals = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
        let syncs_folder = flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & journals != 0;
        let file = tape.opened(&short, is_new);
        (*shim).ours = Box::into_raw(Box::new(Ours { tape, file, syncs_folder }));
        (*shim).base.pMethods = &raw const METHODS;
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    let machine = machine();
    // SAFETY: SQLite gives a C string.
    unsafe {
        let machine_deletes = (*machine).xDelete.expect("a layer deletes files");
        let Some((tape, short)) = path_of(name).and_then(tape_of) else {
            return machine_deletes(machine, name, sync_folder);
        };
        let answer = machine_deletes(machine, name, 0);
        if answer == ffi::SQLITE_OK {
            tape.deleted(&short, sync_folder & 1 != 0);
        }
        answer
    }
}

/// A method of the machine's files, called for the file behind one of ours.
macro_rules! pass_on {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty = $method:ident;)*) => {$(
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $argument: $kind)*) -> $answer {
            // SAFETY: SQLite calls this for files that `open` opened, with arguments that are good for the machine's.
            unsafe {
                let (real, methods) = behind(file);
                methods.$method.expect("the machine's layer has every method")(real $(, $argument)*)
            }
        }
    )*};
}

pass_on! {
    fn read(to: *mut c_void, length: c_int, offset: i64) -> c_int = xRead;
    fn file_size(to: *mut i64) -> c_int = xFileSize;
    fn raise_lock(level: c_int) -> c_int = xLock;
    fn lower_lock(level: c_int) -> c_int = xUnlock;
    fn check_reserved_lock(to: *mut c_int) -> c_int = xCheckReservedLock;
    fn file_control(what: c_int, argument: *mut c_void) -> c_int = xFileControl;
    fn sector_size() -> c_int = xSectorSize;
    fn device_characteristics() -> c_int = xDeviceCharacteristics;
    fn shm_map(region: c_int, size: c_int, extend: c_int, to: *mut *mut c_void) -> c_int = xShmMap;
    fn shm_lock(offset: c_int, count: c_int, flags: c_int) -> c_int = xShmLock;
    fn shm_barrier() -> () = xShmBarrier;
    fn shm_unmap(delete: c_int) -> c_int = xShmUnmap;
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: the file is open; SQLite does not use it after this.
    unsafe {
        let (real, methods) = behind(file);
        let answer = methods.xClose.expect("the machine's layer has every method")(real);
        drop(Box::from_raw((*file.cast::<Shim>()).ours));
        answer
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, length: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite gives `length` bytes at `from`.
    unsafe {
        let (real, methods) = behind(file);
        let answer = methods.xWrite.expect("the machine's layer has every method")(real, from, length, offset);
        if answer == ffi::SQLITE_OK {
            let length = usize::try_from(length).expect("a length is not negative");
            let bytes = std::slice::from_raw_parts(from.cast::<u8>(), length).to_vec();
            let offset = usize::try_from(offset).expect("an offset is not negative");
            let ours = ours(file);
            ours.tape.inner().push(Event::Write { file: ours.file, offset, bytes });
        }
        answer
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    // SAFETY: the file is open.
    unsafe {
        let (real, methods) = behind(file);
        let answer = methods.xTruncate.expect("the machine's layer has every method")(real, length);
        if answer == ffi::SQLITE_OK {
            let ours = ours(file);
            let length = usize::try_from(length).expect("a length is not negative");
            ours.tape.inner().push(Event::Truncate { file: ours.file, length });
        }
        answer
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: the file is open.
    let ours = unsafe { ours(file) };
    ours.tape.synced(ours.file, std::mem::take(&mut ours.syncs_folder));
    ffi::SQLITE_OK
}
