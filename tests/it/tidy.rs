//! The rules of the house that no other tool knows: the order of the modules, a synchronous core, what every file begins
//! with, and what must not be left lying about.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;

/// The modules that take `now` as an argument and wait for nothing.
const SYNCHRONOUS: &[&str] = &["ingest", "store", "query", "forecast", "health", "plan"];
/// Folders that are not ours: built, fetched, or git's own.
const FOREIGN: &[&str] = &["target", ".git", "node_modules"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// All files under a folder, sorted; of ours only.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder can be listed").path();
            let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
            if FOREIGN.contains(&name.as_str()) || path.is_symlink() {
                continue;
            }
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    files(&root().join(folder)).into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs")).collect()
}

/// The modules of the library, in the order of `src/lib.rs`.
fn modules() -> Vec<String> {
    let declaration = Regex::new(r"(?m)^pub mod ([a-z_]+);").expect("a valid pattern");
    declaration.captures_iter(&read(&root().join("src/lib.rs"))).map(|found| found[1].to_owned()).collect()
}

/// The module of the library that a file of `src` belongs to.
fn module_of(file: &Path) -> Option<String> {
    let inside = file.strip_prefix(root().join("src")).expect("a file of src");
    let first = inside.components().next().expect("a file has a path").as_os_str().to_string_lossy();
    let name = first.trim_end_matches(".rs");
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

/// The code without its line comments: docs may point anywhere.
fn without_comments(source: &str) -> String {
    let code = source.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    code.collect::<Vec<_>>().join("\n")
}

/// The modules of the library that some code names: `crate::a::B` and `crate::{a, b::{C, D}}`.
fn named_modules(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (_, after) in code.match_indices("crate::").map(|(at, found)| (at, &code[at + found.len()..])) {
        let Some(group) = after.strip_prefix('{') else {
            named.insert(first_word(after));
            continue;
        };
        let mut depth = 1;
        let mut item = String::new();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && c == ',') {
                named.insert(first_word(&item));
                item.clear();
            } else {
                item.push(c);
            }
            if depth == 0 {
                break;
            }
        }
    }
    named.remove("");
    named
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// What is wrong with the imports of a module, given the modules in their order.
fn import_problems(module: &str, code: &str, order: &[String]) -> Vec<String> {
    let place = |name: &str| order.iter().position(|m| m == name);
    let own = place(module).unwrap_or_else(|| panic!("{module} is not declared in src/lib.rs"));
    let mut problems = Vec::new();
    for named in named_modules(code) {
        match place(&named) {
            Some(other) if other <= own => {}
            Some(_) => problems.push(format!("{module} imports {named}, which is declared below it")),
            None => problems.push(format!("{module} imports {named}, which is no module of src/lib.rs")),
        }
    }
    problems
}

#[test]
fn a_module_imports_only_modules_declared_above_it() {
    let order = modules();
    assert!(order.len() >= 10, "src/lib.rs declares the modules: {order:?}");
    let mut problems = Vec::new();
    for file in rust_files("src") {
        let Some(module) = module_of(&file) else { continue };
        let found = import_problems(&module, &without_comments(&read(&file)), &order);
        problems.extend(found.into_iter().map(|problem| format!("{}: {problem}", file.display())));
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn imports_from_below_are_found_however_they_are_written() {
    let order = ["model", "store", "plan"].map(str::to_owned);
    let check = |code: &str, expected: &[&str]| {
        let found = import_problems("store", &without_comments(code), &order);
        assert_eq!(found.len(), expected.len(), "{code}: {found:?}");
        for (problem, part) in found.iter().zip(expected) {
            assert!(problem.contains(part), "{code}: {problem}");
        }
    };
    check("use crate::model::{Labels, Sample};\nuse crate::store::Settings;", &[]);
    check("/// See [`crate::plan`].\n// crate::plan", &[]);
    check("use crate::plan::Plan;", &["plan, which is declared below"]);
    check("fn f() -> crate::plan::Plan", &["plan, which is declared below"]);
    check("use crate::{\n    model::{self, Labels},\n    plan::{Plan, self},\n};", &["plan, which is declared below"]);
    check("use crate::{model, plan};", &["plan, which is declared below"]);
    check("use crate::nowhere::X;", &["nowhere, which is no module"]);
}

#[test]
fn the_core_is_synchronous() {
    let waiting = Regex::new(r"\b(async|await|tokio|Clock)\b").expect("a valid pattern");
    for file in rust_files("src") {
        let Some(module) = module_of(&file) else { continue };
        if !SYNCHRONOUS.contains(&module.as_str()) {
            continue;
        }
        let code = without_comments(&read(&file));
        let found = waiting.find(&code).map(|found| found.as_str());
        assert_eq!(found, None, "{}: the core waits for nothing and is told the time", file.display());
    }
}

#[test]
fn every_module_begins_with_what_it_is_for() {
    let files: Vec<PathBuf> = ["src", "tests", "benches"].into_iter().flat_map(rust_files).collect();
    assert!(files.len() >= 10, "{files:?}");
    for file in files {
        let text = read(&file);
        let generated = text.starts_with("// This file is @generated");
        assert!(generated || text.starts_with("//!"), "{}: begin with //!", file.display());
    }
}

#[test]
fn every_shipped_configuration_file_is_read_by_a_main_file_without_problems() {
    let mut read_by_some: BTreeSet<PathBuf> = BTreeSet::new();
    // The demo fills in its main file's placeholders; here it is enough that they are no URL's or file's business.
    let mains = ["rules/forestall.yml", "deploy/examples/forestall.yml", "deploy/forestall/forestall.yml"];
    for main in mains {
        let folder = root().join(main).parent().expect("a file has a folder").to_owned();
        let texts: Vec<(String, String)> = files(&folder)
            .into_iter()
            .filter(|file| file.extension().is_some_and(|extension| extension == "yml"))
            .map(|file| (file.strip_prefix(&folder).expect("found in it").display().to_string(), read(&file)))
            .collect();
        let mut given: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        given.sort_by_key(|(name, _)| (*name != "forestall.yml", *name));
        match forestall::config::load_str(&given) {
            Ok((settings, warnings)) => {
                assert!(warnings.is_empty(), "{main}: {warnings:?}");
                read_by_some.extend(settings.files.iter().map(|file| folder.join(file)));
            }
            Err(problems) => panic!("{main}:\n{problems}"),
        }
    }
    let shipped: BTreeSet<PathBuf> = ["rules", "deploy/examples", "deploy/forestall"]
        .iter()
        .flat_map(|dir| files(&root().join(dir)))
        .filter(|file| file.extension().is_some_and(|extension| extension == "yml"))
        .filter(|file| !file.starts_with(root().join("rules/demo")))
        .collect();
    let unread: Vec<&PathBuf> = shipped.difference(&read_by_some).collect();
    assert!(unread.is_empty(), "no main file names these: {unread:?}");
}

/// Files that the code includes, as paths from the root.
fn included_files() -> Vec<PathBuf> {
    let include = Regex::new(r#"include_(?:str|bytes)!\("([^"]+)"\)"#).expect("a valid pattern");
    let mut included = Vec::new();
    for file in rust_files("src") {
        let folder = file.parent().expect("a file is in a folder");
        for found in include.captures_iter(&read(&file)) {
            let path = folder.join(&found[1]);
            let path = path.canonicalize().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let root = root().canonicalize().expect("the root is there");
            included.push(path.strip_prefix(root).expect("a file of ours").to_owned());
        }
    }
    included
}

#[test]
fn the_image_is_built_from_every_file_that_the_code_includes() {
    let dockerfile = read(&root().join("Dockerfile"));
    let copied = Regex::new(r"(?m)^COPY (\w+) \./").expect("a valid pattern");
    let copied: BTreeSet<&str> =
        copied.captures_iter(&dockerfile).map(|found| found.get(1).map_or("", |m| m.as_str())).collect();
    let ignore = read(&root().join(".dockerignore"));
    let included = included_files();
    assert!(included.len() >= 5, "{included:?}");
    for file in included {
        let folder = file.components().next().expect("a path has a part").as_os_str().to_string_lossy().into_owned();
        assert!(copied.contains(folder.as_str()), "Dockerfile does not copy {}", file.display());
        assert!(ignore.lines().any(|line| line == format!("!{folder}")), ".dockerignore hides {}", file.display());
    }
}

#[test]
fn nothing_is_left_lying_about() {
    // Put together here, so that this file does not hold what it looks for.
    let needles =
        [["/wo", "rk/"], ["TO", "DO"], ["FIX", "ME"], ["to", "do!"], ["unimple", "mented!"]].map(|n| n.concat());
    let mut problems = Vec::new();
    for file in files(root()) {
        // What is not text cannot say it either.
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        if file.ends_with("Cargo.lock") {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            for needle in needles.iter().filter(|needle| line.contains(needle.as_str())) {
                problems.push(format!("{}:{number}: {needle}", file.display()));
            }
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
