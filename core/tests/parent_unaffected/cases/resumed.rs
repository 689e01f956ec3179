//! What a seed keeps and how a child goes on: attended by `traced.rs`.

use std::fs::File;
use std::io::Write;

use mitosis::prepare::Resumed;

use super::*;

/// Waits for a line on stdin: whoever attends the case has taken hold of this process.
fn await_go() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    assert_eq!(line, "go\n");
}

pub(crate) fn nothing_is_written_behind_the_frame() {
    // SAFETY: nothing else is there.
    unsafe { map(PRIVATE_AT, 64, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1).fill(3) };
    await_go();
    let seed = seed();
    println!("{}", seed.pid());
    seed.handle().unwrap();
    await_go();
}

static LATE_HANDLER_RAN: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn late_handler() {
    LATE_HANDLER_RAN.fetch_add(1, SeqCst);
}

/// The child's half is told through a file: it is nobody's child and has no descriptors.
pub(crate) fn a_resumed_child_goes_on_from_prepare() {
    // SAFETY: a handler that counts.
    unsafe { libc::pthread_atfork(None, None, Some(late_handler)) };
    handle(libc::SIGSYS, count_signal as *const () as usize);
    block(&[libc::SIGUSR2]);
    let masks = status_line("SigBlk:");
    // SAFETY: one thread.
    unsafe { std::env::set_var("MITOSIS_TEST_GONE", "still here") };
    let path = std::env::var("MITOSIS_AGENT").unwrap() + ".child";
    let words = ["a heap".to_owned(), "that is there".to_owned()];
    match prepare(&PrepareOptions::default()).unwrap() {
        Prepared::Parent(seed) => {
            seed.handle().unwrap();
            println!("{}", seed.pid());
            assert_eq!(LATE_HANDLER_RAN.load(SeqCst), 0);
            await_go();
        }
        Prepared::Child(resumed) if resumed.rehearsal => panic!("prepare ends a rehearsal itself"),
        Prepared::Child(resumed) => {
            let Resumed { index, generation, ref payload, rehearsal, .. } = resumed;
            assert_eq!((index, generation, rehearsal), (5, 3, false));
            assert_eq!(mitosis::prepare::generation(), 3);
            assert_eq!(payload, b"for you");
            assert_eq!((resumed.seed.0, resumed.child.0), (7, 8));
            assert_eq!(std::env::var("MITOSIS_TEST_SET").unwrap(), "x=y");
            assert!(std::env::var("MITOSIS_TEST_GONE").is_err());
            assert_eq!(words.join(" "), "a heap that is there");
            assert_eq!(LATE_HANDLER_RAN.load(SeqCst), 1);
            assert_eq!(status_line("SigBlk:"), masks);
            assert_eq!(action(libc::SIGSYS).0, count_signal as *const () as usize);
            // A child may start threads, fork, and be prepared in turn.
            assert_eq!(thread::spawn(|| 4).join().unwrap(), 4);
            let seed = seed();
            seed.handle().unwrap();
            File::create(path).unwrap().write_all(b"fine").unwrap();
            std::process::exit(0);
        }
    }
}

/// As the case before, with another role in its `ResumeInfo`.
pub(crate) fn a_rehearsal_ends_before_user_code() {
    a_resumed_child_goes_on_from_prepare();
}
