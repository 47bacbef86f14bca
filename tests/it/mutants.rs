//! The deliberate faults of `tests/mutants` are faults in the code as it is: each patch applies, changes one line of planning,
//! acting or the journal, and names a test that there is. `make mutants` shows that each is caught.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Fewer than this would not be the list that it is meant to be.
const MUTANTS_MIN: usize = 20;
/// What the faults are in.
const FOLDERS: [&str; 3] = ["src/plan/", "src/act/", "src/audit/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// The patches, by file name.
fn patches() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(root().join("tests/mutants")).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder can be listed").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "patch"));
    files.sort();
    let name = |file: &Path| file.file_stem().expect("a file has a name").to_string_lossy().into_owned();
    files.iter().map(|file| (name(file), read(&file.to_string_lossy()))).collect()
}

/// What a patch says before its difference: what it breaks, and the test that is to catch it.
fn check_words(name: &str, words: &str) {
    let lines: Vec<&str> = words.lines().filter(|line| !line.is_empty()).collect();
    let [sentence, test] = lines[..] else { panic!("{name}: a sentence and a test are wanted, not {lines:?}") };
    assert!(sentence.ends_with('.') && sentence.starts_with(char::is_uppercase), "{name}: `{sentence}` is no sentence");
    let test = test.strip_prefix("test: ").unwrap_or_else(|| panic!("{name}: `{test}` does not begin with `test: `"));
    match test.split_once(' ') {
        Some(("lib", filter)) => {
            let module = filter.split("::").next().expect("a split has a first part");
            assert!(root().join("src").join(module).is_dir(), "{name}: src has no module {module}");
        }
        Some(("it", filter)) => {
            let module = filter.split("::").next().expect("a split has a first part");
            assert!(read("tests/it/main.rs").contains(&format!("\nmod {module};\n")), "{name}: no module {module}");
        }
        _ => panic!("{name}: `{test}` is neither `lib FILTER` nor `it FILTER`"),
    }
}

/// One line is another one, at one place of one file.
fn check_difference(name: &str, difference: &str) {
    let lines: Vec<&str> = difference.lines().collect();
    let [from, to, place, hunk @ ..] = &lines[..] else { panic!("{name}: no difference") };
    let file = from.strip_prefix("--- a/").unwrap_or_else(|| panic!("{name}: `{from}` names no file"));
    assert_eq!(Some(file), to.strip_prefix("+++ b/"), "{name}: one file is changed");
    assert!(FOLDERS.iter().any(|folder| file.starts_with(folder)), "{name}: {file} is in none of {FOLDERS:?}");
    assert!(place.starts_with("@@ -"), "{name}: `{place}` names no place");
    let of = |sign: char| -> Vec<&str> { hunk.iter().filter_map(|line| line.strip_prefix(sign)).collect() };
    let (removed, added) = (of('-'), of('+'));
    assert_eq!((removed.len(), added.len()), (1, 1), "{name}: one line takes the place of one");
    assert_ne!(removed[0].trim(), added[0].trim(), "{name}: nothing is changed");
    assert_eq!(hunk.len(), of(' ').len() + 2, "{name}: there is more in it than one change and what is around it");
    let before: Vec<&str> = hunk.iter().filter(|line| !line.starts_with('+')).map(|line| &line[1..]).collect();
    let source = read(file);
    let source: Vec<&str> = source.lines().collect();
    let places = source.windows(before.len()).filter(|window| *window == before).count();
    assert_eq!(places, 1, "{name}: {file} has its lines at {places} places; make the patch anew");
}

#[test]
fn each_mutant_changes_one_line_of_the_code_as_it_is_and_names_its_test() {
    let patches = patches();
    assert!(patches.len() >= MUTANTS_MIN, "{} of at least {MUTANTS_MIN} mutants", patches.len());
    let mut differences = BTreeSet::new();
    for (index, (name, text)) in patches.iter().enumerate() {
        assert!(name.starts_with(&format!("{:02}-", index + 1)), "{name}: mutants are numbered from 01 without gaps");
        let start = text.find("\n--- a/").unwrap_or_else(|| panic!("{name}: no difference"));
        check_words(name, &text[..start]);
        check_difference(name, &text[start + 1..]);
        assert!(differences.insert(&text[start + 1..]), "{name}: another one changes the same");
    }
}
