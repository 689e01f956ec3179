//! Processes that go on as processes of the other machine.

use crate::world::{ARRAY_PAGES, HOST_A, HOST_B, TWO_KERNELS, python, shared, until};

/// CPython with numpy forks onto a machine that has no Python.
pub(crate) fn python_forks(fabric: &'static str) {
    let world = shared(fabric);
    let python = python();
    let python = python.to_str().unwrap();
    let there = world.run_script(HOST_B, &format!("! [ -e {python} ] && ! which python3"));
    assert_eq!(there.status, 0, "host-b has no Python: {there:?}");
    let said = world.run(HOST_A, &[python, "/host/files/story.py", "10.77.0.2"]).ok().unwrap();
    let lines: Vec<Vec<&str>> =
        said.lines().map(|line| line.split_whitespace().collect()).collect();
    let [child, parent] = &lines[..] else { panic!("two lines, and not {said}") };
    assert_eq!(child[..3], ["child", "host-b", "549755289600"]);
    assert_eq!(parent[..3], ["parent", "host-a", "549755289600"]);
    assert_eq!(child[3], parent[3], "what was drawn before the fork");
}

/// A child on host-b is forked back to host-a: what it has written is read from host-b, by the card where there is
/// one, and the rest from the seed that both come from.
pub(crate) fn a_child_is_forked(fabric: &'static str) {
    const WORDS: usize = 1 << 17;
    const PAGES: usize = WORDS / 512;
    let world = shared(fabric);
    let seed = world.seed_of(WORDS);
    // Written twice it is what it was.
    let written = PAGES - 32;
    let commands = format!(
        "write 0 {written};write 0 {written};again host-a who,read 0 {PAGES},exit 7;exit 9"
    );
    let argv = ["mitosis", "resume", &seed.handle, "--on", "host-b", "--payload", &commands];
    until("the grandchild's pages come by the fabric", || {
        let before = ["pages_pulled", "pages_rdma"].map(|name| world.count(HOST_A, name));
        let ended = world.run(HOST_A, &argv);
        assert_eq!((ended.status, ended.err.as_str()), (9, ""), "{ended:?}");
        let said = format!(
            "wrote {written} pages\nwrote {written} pages\nindex 0 generation 2 on host-a\nread {PAGES} pages\n"
        );
        assert!(ended.out.starts_with(&said), "{ended:?}");
        let last = ended.out.lines().last().unwrap();
        assert!(last.starts_with("after generation 1: [") && last.contains('7'), "{ended:?}");
        let pulled = world.count(HOST_A, "pages_pulled") - before[0];
        assert!(pulled >= written, "{pulled} of {written} pages were pulled");
        // By a card not all: the first come before its peer is known.
        let by_card = world.count(HOST_A, "pages_rdma") - before[1];
        by_card > 0 || fabric == TWO_KERNELS
    });
}

/// Each word of each page arrives; what is not read is not moved.
pub(crate) fn every_page_arrives(fabric: &'static str) {
    let world = shared(fabric);
    let seed = world.seed();
    let resume = |payload: &str| {
        let argv = ["mitosis", "resume", &seed.handle, "--on", "host-b", "--payload", payload];
        world.run(HOST_A, &argv)
    };
    let count = |name: &str| world.count(HOST_B, name);
    let pulled = || count("pages_pulled");
    let before = pulled();
    let ended = resume("who;read 8 8;exit 7");
    assert_eq!(ended.status, 7, "{ended:?}");
    assert_eq!(ended.out, "index 0 generation 1 on host-b\nread 8 pages\n");
    let few = pulled() - before;
    assert!(few < ARRAY_PAGES / 4, "{few} pages were pulled for 8");
    let ended = resume("read 0 all;exit 9");
    assert_eq!(ended.status, 9, "{ended:?}");
    assert_eq!(ended.out, format!("read {ARRAY_PAGES} pages\n"));
    let all = pulled() - before;
    assert!((ARRAY_PAGES..ARRAY_PAGES + 4000).contains(&all), "{all} pages were pulled");
    // Over rc the first pages come by tcp, while the arena is filled and the connection is made.
    let by_card = count("pages_rdma");
    match fabric {
        "tcp" | TWO_KERNELS => assert_eq!(by_card, 0),
        _ => assert!(by_card > ARRAY_PAGES / 2, "{by_card} of {all} pages came by the card"),
    }
}
