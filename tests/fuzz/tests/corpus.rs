//! What is kept of the fuzzer's finds, once more: each input through its target.

use std::fs;
use std::path::Path;

use mitosis_fuzz::TARGETS;

#[test]
fn what_is_kept_holds_and_some_of_it_is_taken() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in &TARGETS {
        let folder = corpus.join(target.name);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        let mut inputs: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        inputs.sort();
        let mut taken = 0;
        for input in &inputs {
            let bytes = fs::read(input).unwrap();
            let run = std::panic::catch_unwind(|| (target.run)(&bytes));
            taken += usize::from(run.unwrap_or_else(|_| panic!("{target:?} fails on {input:?}")));
        }
        // A corpus that nothing gets through says nothing of what lies behind the first check.
        assert!(taken >= 2, "{target:?} takes {taken} of {} inputs", inputs.len());
    }
}

/// `corpus/` has a folder for each target and none else.
#[test]
fn no_corpus_is_left_over() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut folders: Vec<String> = fs::read_dir(corpus)
        .unwrap()
        .map(|folder| folder.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(folders, names);
}
