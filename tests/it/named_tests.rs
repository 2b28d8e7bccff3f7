//! The documents about tests name tests that exist: a test that is renamed must not leave its old name behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const DOCUMENTS: [&str; 4] =
    ["tests/README.md", "tests/delivery/README.md", "tests/etcd/README.md", "tests/targets/README.md"];

#[test]
fn every_test_that_a_document_names_exists() {
    let mut functions = BTreeSet::new();
    for folder in ["src", "tests", "examples"] {
        collect_functions(Path::new(folder), &mut functions);
    }
    let mut count = 0;
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        for name in test_names(&fs::read_to_string(document).unwrap()) {
            count += 1;
            if !functions.contains(&name) {
                missing.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(count > 100, "found only {count} names of tests");
    assert!(missing.is_empty(), "these tests do not exist:\n{}", missing.join("\n"));
}

/// The names in backquotes that are sentences: at least five words.
fn test_names(text: &str) -> Vec<String> {
    let code = text.split('`').skip(1).step_by(2);
    let names = code.filter_map(|code| code.rsplit("::").next());
    let is_sentence = |name: &&str| {
        name.matches('_').count() >= 4 && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    names.filter(is_sentence).map(str::to_owned).collect()
}

fn collect_functions(folder: &Path, functions: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_functions(&path, functions);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let names = source.split("fn ").skip(1);
            functions.extend(names.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
}
