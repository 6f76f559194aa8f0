//! Style as a test: who may import whom, how long a file and a function may be, and words that have no place here.

use std::fs;
use std::path::{Path, PathBuf};

/// Which modules of the crate each module may name, from the lowest to the highest. `lib.rs` may name all.
/// Page sizes, page numbers and TXIDs are types of `ltx`, which `wal` shares.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("header", &[]),
    ("lock", &[]),
    ("panic", &["error"]),
    ("pool", &["error", "lock", "thread"]),
    ("thread", &["error"]),
    ("time", &["error"]),
    ("config", &["error", "time"]),
    ("ltx", &["error", "config", "time"]),
    ("btree", &["header", "ltx"]),
    ("wal", &["error", "config", "time", "ltx"]),
    ("store", &["error", "lock", "thread", "config", "time"]),
    ("replica", &["error", "btree", "lock", "panic", "thread", "config", "time", "ltx", "wal", "store"]),
    (
        "writer",
        &["error", "header", "lock", "panic", "pool", "thread", "config", "time", "ltx", "wal", "store", "replica"],
    ),
    (
        "reader",
        &[
            "error", "btree", "header", "lock", "panic", "pool", "thread", "config", "time", "ltx", "wal", "store",
            "replica",
        ],
    ),
    ("sqlite", &["error", "header", "lock", "panic", "thread", "config", "time"]),
    (
        "vfs",
        &[
            "error", "header", "lock", "panic", "pool", "thread", "config", "time", "ltx", "wal", "store", "replica",
            "writer", "reader", "sqlite",
        ],
    ),
    (
        "sql",
        &[
            "error", "lock", "panic", "thread", "config", "time", "ltx", "wal", "store", "replica", "writer", "reader",
            "sqlite", "vfs",
        ],
    ),
];

/// SQLite's door into the crate, through which it asks for what is above.
const DOOR: &str = "src/sqlite/entry.rs";

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Not in src/: a stub, or output on the host's streams.
const BANNED_IN_SRC: &[&str] = &["todo!", "unimplemented!", "dbg!", "print!", "println!", "eprint!", "eprintln!"];

/// A file is named after its concept.
const BANNED_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "misc", "manager", "common"];

/// Paths of one machine. Joined here, so that this file passes its own test.
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

/// Folders without text of ours.
const SKIPPED: &[&str] =
    &["target", "dist", ".git", ".cache", "vectors", "corpus", "artifacts", "__pycache__", "proptest-regressions"];

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for path in files("src", &["rs"]) {
        let module = module_of(&path);
        if module == "lib" || path == Path::new(DOOR) {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: the module {module} has no place in LAYERS", path.display()));
            continue;
        };
        for (line, name) in crate_paths(&code_of(&path)) {
            let known = LAYERS.iter().any(|(layer, _)| *layer == name);
            if known && name != module && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{}:{line}: {module} may not know {name}", path.display()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn unsafe_stands_in_the_sqlite_layer_only() {
    let mut wrong = Vec::new();
    for path in files("src", &["rs"]).into_iter().filter(|path| !path.starts_with("src/sqlite")) {
        for (number, line) in numbered(&code_of(&path)) {
            if words(line).any(|word| word == "unsafe") {
                wrong.push(format!("{}:{number}: unsafe outside src/sqlite", path.display()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn files_and_functions_are_short() {
    let mut wrong = Vec::new();
    for path in files(".", &["rs", "py", "sh", "run"]) {
        let lines = read(&path).lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines, more than {FILE_LINES_MAX}", path.display()));
        }
    }
    for path in files(".", &["rs"]) {
        for (name, first, last) in functions(&code_of(&path)) {
            let lines = last - first + 1;
            if lines > FUNCTION_LINES_MAX {
                wrong.push(format!(
                    "{}:{first}: fn {name} has {lines} lines, more than {FUNCTION_LINES_MAX}",
                    path.display()
                ));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn banned_words_and_names_are_absent() {
    let mut wrong = Vec::new();
    for path in files("src", &["rs"]) {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if BANNED_NAMES.contains(&stem) {
            wrong.push(format!("{}: name it after what it holds", path.display()));
        }
        for (number, line) in numbered(&code_of(&path)) {
            for banned in BANNED_IN_SRC {
                let name = banned.trim_end_matches('!');
                let mut found = line.match_indices(banned).map(|(at, _)| at);
                if words(line).any(|word| word == name) && found.any(|at| !ends_in_word(&line[..at])) {
                    wrong.push(format!("{}:{number}: {banned}", path.display()));
                }
            }
        }
    }
    assert_none(&wrong);
}

/// A lock in a static is inherited by a forked child as it is, perhaps held by a thread that the child does not have.
#[test]
fn locks_in_statics_are_per_process() {
    let mut wrong = Vec::new();
    for path in files("src", &["rs"]) {
        for (number, line) in numbered(&code_of(&path)) {
            let is_static = line.trim_start().trim_start_matches("pub ").starts_with("static ");
            let has_lock = words(line).any(|word| ["Mutex", "RwLock", "LazyLock"].contains(&word));
            if is_static && has_lock && !words(line).any(|word| word == "PerProcess") {
                wrong.push(format!("{}:{number}: make it a lock::PerProcess", path.display()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn text_is_clean() {
    let mut wrong = Vec::new();
    for path in files(".", &["rs", "py", "sh", "run", "toml", "md", "sql", "h", "c", "Makefile"]) {
        let tabs_allowed = path.ends_with("Makefile");
        for (number, line) in numbered(&read(&path)) {
            if line.ends_with(' ') || (line.contains('\t') && !tabs_allowed) || line.ends_with('\t') {
                wrong.push(format!("{}:{number}: a tab, or blanks at the end", path.display()));
            }
            if let Some(found) = MACHINE_PATHS.iter().find(|found| line.contains(*found)) {
                wrong.push(format!("{}:{number}: {found} is a path of one machine", path.display()));
            }
        }
    }
    assert_none(&wrong);
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} found:\n{}", wrong.len(), wrong.join("\n"));
}

/// The files below `dir` whose extension, or whose name if they have none, is listed; sorted.
fn files(dir: &str, kinds: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::from(dir)];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let path = entry.path().strip_prefix(".").map_or_else(|_| entry.path(), Path::to_path_buf);
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = path.extension().map_or(name.as_str(), |kind| kind.to_str().unwrap_or_default());
            if entry.file_type().unwrap().is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    pending.push(path);
                }
            } else if kinds.contains(&kind) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The first component below src/, without its extension.
fn module_of(path: &Path) -> String {
    let first = path.strip_prefix("src").unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

fn ends_in_word(text: &str) -> bool {
    text.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// The names right after `crate::`, those of a group too, each with its line.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.extend(words(rest).next().map(|name| (line, name.to_owned())));
            continue;
        };
        let (mut depth, mut at_start) = (0, true);
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => at_start = true,
                c if at_start && !c.is_whitespace() => {
                    at_start = false;
                    found.extend(words(&group[index..]).next().map(|name| (line, name.to_owned())));
                }
                _ => {}
            }
        }
    }
    found
}

/// Each function with a body: its name, first and last line.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    let mut open: Vec<(String, usize, usize)> = Vec::new(); // name, first line, depth of its body
    let mut declared: Option<(String, usize)> = None; // seen `fn name`, not yet its body
    let mut depth = 0;
    for (number, line) in numbered(code) {
        let names = words(line).zip(words(line).skip(1)).filter(|(word, _)| *word == "fn");
        if let Some((_, name)) = names.last() {
            declared = Some((name.to_owned(), number));
        }
        for c in line.chars() {
            match c {
                '{' => {
                    depth += 1;
                    if let Some((name, first)) = declared.take() {
                        open.push((name, first, depth));
                    }
                }
                '}' => {
                    if open.last().is_some_and(|(_, _, body)| *body == depth) {
                        found.extend(open.pop().map(|(name, first, _)| (name, first, number)));
                    }
                    depth -= 1;
                }
                ';' if line.trim_end().ends_with(';') => declared = None,
                _ => {}
            }
        }
    }
    found
}

/// The file with comments, strings and character literals blanked; lines stay where they are.
fn code_of(path: &Path) -> String {
    blank(&read(path))
}

fn blank(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let literal = literal_len(rest, code.chars().next_back());
        let taken = literal.unwrap_or(c.len_utf8());
        match literal {
            Some(_) => code.extend(rest[..taken].chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => code.push(c),
        }
        rest = &rest[taken..];
    }
    code
}

/// The length of the comment, string or character literal that `rest` starts with.
fn literal_len(rest: &str, before: Option<char>) -> Option<usize> {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let until = |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(until(2, "*/"));
    }
    if !in_word
        && (rest.starts_with("r\"") || rest.starts_with("r#") || rest.starts_with("br\"") || rest.starts_with("br#"))
    {
        let start = rest.find('r')? + 1;
        let hashes = rest[start..].chars().take_while(|c| *c == '#').count();
        if rest[start + hashes..].starts_with('"') {
            return Some(until(start + hashes + 1, &format!("\"{}", "#".repeat(hashes))));
        }
    }
    if rest.starts_with('"') {
        return Some(closed_by('"', rest));
    }
    if let Some(quoted) = rest.strip_prefix('\'') {
        // 'a' or '\n', and not the lifetime 'a.
        let escaped = quoted.starts_with('\\');
        let second = rest.chars().nth(2) == Some('\'');
        return (escaped || second).then(|| closed_by('\'', rest));
    }
    None
}

/// The length up to the closing quote, escapes respected.
fn closed_by(quote: char, rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

#[test]
fn the_tidy_test_sees_what_it_should() {
    let source = "fn a() {\n  let s = \"unsafe { // \\\" }\"; // }\n}\nuse crate::{ltx, store::{x, y}, time::Clock};\n\
                  fn b<'a>(c: char) -> bool { c == '{' || c == '\\'' }\ntrait T {\n fn c();\n fn d() {\n} }\nlet r = r#\"}\"#;";
    let code = blank(source);
    assert!(!code.contains("unsafe"));
    assert_eq!(code.lines().count(), source.lines().count());
    let found: Vec<_> =
        functions(&code).into_iter().map(|(name, first, last)| format!("{name} {first} {last}")).collect();
    assert_eq!(found, ["a 1 3", "b 5 5", "d 8 9"]);
    let names: Vec<_> = crate_paths(&code).into_iter().map(|(line, name)| format!("{line} {name}")).collect();
    assert_eq!(names, ["4 ltx", "4 store", "4 time"]);
}
