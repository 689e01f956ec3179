//! `mitosis trace`: what is recorded of a child on the host that asks, and its picture.

use serde_json::Value;

use crate::process::Ended;
use crate::world::World;

/// The events of the one line that tells them.
fn events(ended: &Ended) -> Vec<Value> {
    let values = ended.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut traces = values.filter(|value| value["trace"].is_object());
    let trace = traces.next().unwrap_or_else(|| panic!("{ended:?}"));
    assert!(traces.next().is_none());
    assert_eq!(trace["trace"]["left_out"], 0);
    trace["trace"]["events"].as_array().unwrap().clone()
}

fn pages(events: &[Value], ways: &[&str]) -> u64 {
    let own = events.iter().filter(|event| ways.iter().any(|way| event["way"] == *way));
    own.map(|event| event["pages"].as_u64().unwrap()).sum()
}

#[test]
fn what_a_first_child_waits_for_is_recorded_from_the_first_page_on() {
    let world = World::new();
    let seed = world.seed();
    let commands = "read 0 all;exit 3";
    let ended = world.on_b(&["--json", "trace", &seed.handle, "--payload", commands, "-o", "-"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.out.contains("read 2048 pages\n"), "{ended:?}");
    let all = events(&ended);
    assert!(pages(&all, &["push"]) > 0, "what is pushed is recorded: {ended:?}");
    let array = pages(&all, &["read", "ahead", "hit", "push"]);
    assert!(array >= 2048, "the whole array came: {array} pages");
    for event in &all {
        let is_miss = event["way"] != "push" && event["way"] != "ahead";
        assert_eq!(event["pid"].as_u64().unwrap() > 0, is_miss, "{event}");
        assert!(event["address"].as_str().unwrap().starts_with("0x"), "{event}");
        assert_ne!(event["vma"], "", "{event}");
    }
    let svg = &ended.out[ended.out.find("<svg ").unwrap()..];
    assert!(svg.ends_with("</svg>\n"), "{svg}");
    assert!(svg.contains("class=\"push\"") && svg.contains("class=\"read\""), "{svg}");
    // Whoever comes second finds most of it there: the array is not read again.
    let again = world.on_b(&["--json", "trace", &seed.handle, "--payload", "read 0 all"]);
    let rest = events(&again);
    assert!(pages(&rest, &["read", "ahead"]) < 1024, "{again:?}");
    let nowhere = world.on_b(&["trace", &seed.handle, "-o", "/nowhere/x.svg"]);
    assert!(nowhere.err.contains("/nowhere/x.svg: No such file"), "{nowhere:?}");
    assert_eq!(world.children_started_on_b(), 2, "nobody is started for a picture that cannot be");
    world.finish();
}

#[test]
fn a_child_that_runs_is_recorded_for_as_long_as_is_asked() {
    let world = World::new();
    let seed = world.seed();
    let mut child =
        world.mitosis(&world.b, &["--json", "resume", &seed.handle, "--payload", "sleep"]);
    let started: Value = serde_json::from_str(&child.line()).unwrap();
    let id = started["child"].as_str().unwrap();
    let ended = world.on_b(&["--json", "trace", id, "--for", "0.2"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    events(&ended);
    world.on_b(&["kill", id, "--signal", "KILL"]).ok();
    assert_eq!(child.end().code, Some(137));
    let gone = world.on_b(&["trace", id]);
    assert!(gone.err.contains(&format!("there is no child {id} here")), "{gone:?}");
    world.finish();
}

#[test]
fn a_trace_needs_the_key() {
    let world = World::new();
    let seed = world.seed();
    let refused = world.on_a(&["trace", &seed.with_wrong_key()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("key"), "{refused:?}");
    world.finish();
}
