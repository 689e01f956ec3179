//! Each call of mitosis.h has a comment in the shape of a manual page: its arguments by name, what it returns, and each error.

use std::collections::BTreeSet;

const HEADER: &str = include_str!("../../include/mitosis.h");

/// Said once for all calls, where these numbers are defined.
const OF_ANY_CALL: [&str; 2] = ["MITOSIS_ERR_PANIC", "MITOSIS_ERR_INTERNAL"];

/// A function: its comment, its declaration on one line.
fn calls() -> Vec<(&'static str, String)> {
    let (_, calls) = HEADER.split_once("extern \"C\" {").unwrap();
    let (calls, _) = calls.split_once("#ifdef __cplusplus\n}").unwrap();
    let mut all = Vec::new();
    for part in calls.split("/**").skip(1) {
        let (comment, declaration) = part.split_once("*/").unwrap();
        all.push((comment, declaration.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    all
}

/// The words of a text that begin as error numbers do.
fn numbers(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("MITOSIS_ERR_")).collect()
}

/// Names of a declaration's arguments.
fn arguments(declaration: &str) -> Vec<&str> {
    let inside = &declaration[declaration.find('(').unwrap() + 1..declaration.rfind(')').unwrap()];
    let named = inside.split(',').filter(|argument| argument.trim() != "void");
    named.map(|argument| argument.rsplit([' ', '*']).next().unwrap()).collect()
}

#[test]
fn each_call_tells_its_arguments_its_value_and_its_errors() {
    let calls = calls();
    assert!(calls.len() > 25, "{}", calls.len());
    for (comment, declaration) in &calls {
        let is_void = declaration.starts_with("void ");
        assert_eq!(comment.contains("RETURN VALUE:"), !is_void, "{declaration}");
        // An int that can be no error is none of theirs: texts and counts have no codes.
        let can_fail = declaration.starts_with("int ");
        let (text, errors) = comment.split_once("ERRORS:").unwrap_or((comment, ""));
        assert_eq!(!numbers(errors).is_empty(), can_fail, "{declaration}");
        let named = text.replace([',', ':'], " ");
        let words: BTreeSet<&str> = named.split_whitespace().collect();
        for argument in arguments(declaration) {
            assert!(words.contains(argument), "{argument} of {declaration}");
        }
        let takes_pointers = declaration.contains('*') || declaration.contains("mitosis_hook");
        if can_fail && takes_pointers {
            assert!(errors.contains("MITOSIS_ERR_NULL"), "{declaration}");
        }
    }
}

#[test]
fn each_error_is_one_of_some_call() {
    let (_, of_enum) = HEADER.split_once("typedef enum mitosis_err {").unwrap();
    let (of_enum, _) = of_enum.split_once("} mitosis_err;").unwrap();
    let defined = of_enum.lines().filter_map(|line| line.trim().split_once(" = "));
    let defined: BTreeSet<&str> = defined.map(|(name, _)| name).collect();
    assert!(defined.len() > 30, "{defined:?}");
    let calls = calls();
    let errors = calls.iter().filter_map(|(comment, _)| comment.split_once("ERRORS:"));
    let mut told: BTreeSet<&str> = errors.flat_map(|(_, errors)| numbers(errors)).collect();
    told.extend(OF_ANY_CALL);
    assert_eq!(told, defined);
}
