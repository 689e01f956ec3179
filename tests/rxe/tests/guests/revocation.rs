//! `drop --revoke`, over each fabric of a card: what is READ after its reply fails, and nothing is left of it.

use std::time::Instant;

use crate::world::{HOST_A, HOST_B, LOST, PATIENCE, shared, until};

/// 1 MiB: lies in the arena at once.
const WORDS: usize = 1 << 17;
/// In the line of a page that was refused, and not of one that nobody had by its deadline.
const REFUSED: &str = "the owner refuses the READ";

/// The order of events tells it: the card is at rest when the drop is asked for; its reply is there when the child
/// touches the next page; then the card has had a READ that brought nothing.
pub(crate) fn what_is_read_after_the_drop_fails(fabric: &'static str) {
    let world = shared(fabric);
    world.await_the_card();
    let held = world.held_at_rest();
    let seed = world.seed_of(WORDS);
    let go = format!("/tmp/go-{fabric}");
    let commands = format!("pid;read 0 32;await {go};read 128 1;exit 7");
    let argv = ["mitosis", "resume", &seed.handle, "--on", "host-b", "--payload", &commands];
    let mut child = world.guests.node(HOST_A).run(&argv).unwrap();
    let pid = child.line(PATIENCE).unwrap();
    assert_eq!([0, 1].map(|_| child.line(PATIENCE).unwrap()), ["read 32 pages", "waiting"]);
    let count = || world.counts(HOST_B, ["rdma_reads", "pages_rdma"]);
    let mut before = count();
    until("the card is at rest", || {
        let last = std::mem::replace(&mut before, count());
        last == before
    });
    world.run(HOST_A, &["mitosis", "drop", "--revoke", &seed.handle]).ok().unwrap();
    let replied = Instant::now();
    world.run(HOST_B, &["touch", &go]).ok().unwrap();
    let ended = child.end(PATIENCE).unwrap();
    println!("{fabric}: lost {:?} after the drop's reply", replied.elapsed());
    assert_eq!(ended.status, LOST, "{ended:?}");
    let is_told =
        |line: &str| ["page lost: seed", "host-a", REFUSED].iter().all(|word| line.contains(word));
    assert!(ended.err.lines().any(is_told), "not told why: {ended:?}");
    let after = count();
    assert!(after[0] > before[0], "the card had a READ: {before:?}, {after:?}");
    assert_eq!(after[1], before[1], "and it brought nothing");
    world.assert_gone(pid.strip_prefix("pid ").expect("the child's pid"));
    let again = world.run(HOST_B, &argv);
    assert!(again.status != 7 && again.out.is_empty(), "it is resumed all the same: {again:?}");
    world.run(HOST_B, &["rm", &go]).ok().unwrap();
    world.await_the_card();
    world.hold_no_more(&held);
}
