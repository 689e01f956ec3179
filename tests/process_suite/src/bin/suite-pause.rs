//! How long a process stands still that is prepared with all of its threads: one line of JSON a round, in ns.
//!
//! `suite-pause THREADS ROUNDS`: the threads sleep in waits of every kind (`c/waits.c`). Each seed is published
//! and dropped before the next round.

use mitosis::prepare::{PrepareOptions, Prepared, Threads, prepare};
use mitosis::wire::local::DropMode;
use mitosis_process_suite::{fail, say};

unsafe extern "C" {
    fn waits_stand(count: i32) -> i32;
    fn waits_end() -> i32;
}

fn main() {
    let numbers: Vec<i32> = std::env::args().skip(1).flat_map(|text| text.parse()).collect();
    let [threads, rounds] = numbers[..] else { fail(&"THREADS ROUNDS") };
    // SAFETY: takes a number.
    if unsafe { waits_stand(threads) } != 0 {
        fail(&"the threads do not stand");
    }
    for _ in 0..rounds {
        round();
    }
    // SAFETY: takes nothing.
    if unsafe { waits_end() } != threads {
        fail(&"a thread did not find what it waited for");
    }
}

fn round() {
    let options = PrepareOptions { threads: Threads::All, ..PrepareOptions::default() };
    let seed = match prepare(&options) {
        Ok(Prepared::Parent(seed)) => seed,
        Ok(Prepared::Child(_)) => std::process::exit(0),
        Err(error) => fail(&error),
    };
    let pause = seed.pause().unwrap_or_else(|| fail(&"nobody stood still"));
    say(&format!(
        "{{\"threads\": {}, \"parking\": {}, \"clone\": {}, \"whole\": {}}}",
        pause.threads,
        pause.parking.as_nanos(),
        pause.clone.as_nanos(),
        pause.whole.as_nanos()
    ));
    if let Err(error) = seed.handle() {
        fail(&error);
    }
    if let Err(error) = seed.drop_seed(DropMode::AfterChildren) {
        fail(&error);
    }
}
