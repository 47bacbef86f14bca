//! Where files come from: the disk, or texts that are handed in.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::problem::{Report, Source};
use super::tree::{Node, Place};

/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// The most files that one pattern may name.
const FILES_MAX: usize = 1000;

/// Where files come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Files<'a> {
    /// The disk; relative names start from this directory.
    Disk(&'a Path),
    /// The same, without looking for secret files: for what calls nobody.
    DiskWithoutSecrets(&'a Path),
    /// Names and texts. Secret files are not looked for.
    Given(&'a [(&'a str, &'a str)]),
}

/// Why a file has no text.
struct Unreadable {
    code: &'static str,
    message: String,
    help: &'static str,
}

impl Files<'_> {
    /// Reads a file and adds it to the report's sources; notes at `named_at` what keeps it from being read. Answers its index.
    pub(super) fn read(self, report: &mut Report, name: &str, named_at: Place) -> Option<usize> {
        let shown = match self {
            Files::Disk(base) | Files::DiskWithoutSecrets(base) => base.join(name).display().to_string(),
            Files::Given(_) => name.to_owned(),
        };
        let read = self.text_of(name);
        let is_main = report.sources.is_empty();
        if is_main || read.is_ok() {
            let text = read.as_ref().map(String::clone).unwrap_or_default();
            report.sources.push(Source { name: shown, text });
        }
        match read {
            Ok(_) => Some(report.sources.len() - 1),
            Err(why) => {
                let message = if is_main { why.message } else { format!("{name}: {}", why.message) };
                report.error(named_at, why.code, message, why.help);
                None
            }
        }
    }

    fn text_of(self, name: &str) -> Result<String, Unreadable> {
        let bytes = match self {
            Files::Disk(base) | Files::DiskWithoutSecrets(base) => read_bytes(&base.join(name))?,
            Files::Given(files) => match files.iter().find(|(given, _)| *given == name) {
                Some((_, text)) => text.as_bytes().to_vec(),
                None => return Err(not_found("no such file".to_owned())),
            },
        };
        let text = String::from_utf8(bytes).map_err(|error| Unreadable {
            code: "config/not-utf8",
            message: format!("not UTF-8 from byte {} on", error.utf8_error().valid_up_to()),
            help: "save the file as UTF-8",
        })?;
        Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }

    /// The files that a name or a pattern stands for, sorted; `*` and `?` may stand in the last part of the path.
    pub(super) fn expand(self, report: &mut Report, pattern: &str, at: Place) -> Vec<String> {
        let (folder, last) = pattern.rsplit_once('/').map_or(("", pattern), |(folder, last)| (folder, last));
        if folder.contains(['*', '?']) {
            let message = format!("`{pattern}` has a wildcard in a folder");
            report.error(at, "config/bad-glob", message, "`*` and `?` may stand in the last part only: rules/*.yml");
            return Vec::new();
        }
        if !last.contains(['*', '?']) {
            return vec![pattern.to_owned()];
        }
        let prefix = if pattern.contains('/') { format!("{folder}/") } else { String::new() };
        let mut names: Vec<String> = self
            .names_in(&prefix)
            .into_iter()
            .filter(|name| wildcard_matches(last, name))
            .map(|name| format!("{prefix}{name}"))
            .collect();
        names.sort();
        if names.is_empty() {
            report.error(
                at,
                "config/empty-glob",
                format!("no file matches `{pattern}`"),
                "correct the path or remove it",
            );
        }
        if names.len() > FILES_MAX {
            let message = format!("`{pattern}` matches {} files", names.len());
            report.error(at, "config/too-large", message, format!("at most {FILES_MAX}"));
            names.truncate(FILES_MAX);
        }
        names
    }

    /// The names of the files of one folder; none where it cannot be read.
    fn names_in(self, prefix: &str) -> Vec<String> {
        match self {
            Files::Disk(base) | Files::DiskWithoutSecrets(base) => {
                let Ok(entries) = fs::read_dir(base.join(prefix)) else { return Vec::new() };
                let files = entries.flatten().filter(|entry| entry.path().is_file());
                // Hidden files are editors' leftovers or a ConfigMap's machinery.
                files.filter_map(|e| e.file_name().into_string().ok()).filter(|name| !name.starts_with('.')).collect()
            }
            Files::Given(files) => files
                .iter()
                .filter_map(|(name, _)| name.strip_prefix(prefix))
                .filter(|name| !name.contains('/'))
                .map(str::to_owned)
                .collect(),
        }
    }

    /// A file that holds a secret: it must be there, its text is not read. A relative path starts from the main file's folder.
    pub(super) fn secret(self, report: &mut Report, node: &Node) -> Option<PathBuf> {
        let text = report.text(node, "a path")?;
        let Files::Disk(base) = self else { return Some(PathBuf::from(text)) };
        let path = base.join(&text);
        let wrong = match fs::metadata(&path) {
            Ok(found) if !found.is_file() => "is not a file".to_owned(),
            Ok(found) if found.len() == 0 => "is empty".to_owned(),
            Ok(_) => return Some(path),
            Err(error) => format!("cannot be read: {}", plain(&error)),
        };
        report.error(node.at, "config/secret-missing", format!("{text} {wrong}"), "put the secret into that file");
        None
    }
}

fn not_found(message: String) -> Unreadable {
    Unreadable { code: "config/not-found", message, help: "correct the path, or create the file" }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, Unreadable> {
    let file = fs::File::open(path).map_err(|error| not_found(plain(&error)))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| not_found(plain(&error)))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let message = format!("larger than {} MiB", FILE_BYTES_MAX >> 20);
        return Err(Unreadable { code: "config/too-large", message, help: "split it" });
    }
    Ok(bytes)
}

/// The error without its number.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    }
}

/// Whether a name fits a pattern of letters, `?` (any one) and `*` (any number of any).
fn wildcard_matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on after the last star took one letter more.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == '*' {
            retry = Some((p + 1, n + 1));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((after_star, next)) = retry {
            retry = Some((after_star, next + 1));
            (p, n) = (after_star, next);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_in_a_shell() {
        for (pattern, name, fits) in [
            ("*.yml", "disk.yml", true),
            ("*.yml", "disk.yaml", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "", false),
            ("*", "", true),
            ("d?sk*", "disk", true),
        ] {
            assert_eq!(wildcard_matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
