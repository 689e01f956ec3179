//! Sets a state of threads up, is prepared with all of its threads, and looks in the parent and in each child
//! whether every thread goes on as if nothing had been.
//!
//! `suite-threads CASE [plain|forked] [FILE]`: `plain` goes on without a fork, `forked` after a fork(2), which
//! no case stands; `suite-threads list` names the cases. Parent and child check the same. Says `ok CASE`, a child with its generation and host; what differs is
//! said on standard error, with exit status 3. `suite-threads stuck` has a thread that no signal stops for a
//! while: says `refused: WHY`, and is prepared when that is over.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod computing;
mod crossing;
mod files;
mod identity;
mod lives;
mod locks;
mod signals;
mod stacks;
mod waits;
mod worker;

use crossing::{Crossing, Way};
use mitosis_process_suite::{fail, say};

/// A state of threads, and the looks at it.
type Case = fn(&mut Crossing);

const CASES: [(&str, Case); 43] = [
    ("tls", identity::tls),
    ("keys", identity::keys),
    ("segments", identity::segments),
    ("names", identity::names),
    ("scheduling", identity::scheduling),
    ("affinity", identity::affinity),
    ("ids", identity::ids),
    ("rseq", identity::rseq),
    ("masks", signals::masks),
    ("pending", signals::pending),
    ("sigwait", signals::sigwait),
    ("kill", signals::kill),
    ("setxid", signals::setxid),
    ("setxid_twice", signals::setxid_twice),
    ("altstacks", stacks::altstacks),
    ("on_altstack", stacks::on_altstack),
    ("deep_stacks", stacks::deep_stacks),
    ("mutexes", locks::mutexes),
    ("robust", locks::robust),
    ("pi", locks::pi),
    ("conditions", locks::conditions),
    ("semaphores", locks::semaphores),
    ("barriers", locks::barriers),
    ("rwlocks", locks::rwlocks),
    ("futexes", locks::futexes),
    ("futex_times", locks::futex_times),
    ("sleeps", waits::sleeps),
    ("timers", waits::timers),
    ("polls", files::polls),
    ("epolls", files::epolls),
    ("reads", files::reads),
    ("writes", files::writes),
    ("file_locks", files::file_locks),
    ("messages", waits::messages),
    ("joins", lives::joins),
    ("detached", lives::detached),
    ("creation", lives::creation),
    ("cancellation", lives::cancellation),
    ("many", lives::many),
    ("registers", computing::registers),
    ("spinning", computing::spinning),
    ("made_code", computing::made_code),
    ("heap", computing::heap),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, way, file) = match arguments[..] {
        ["list"] => return CASES.iter().for_each(|(name, _)| say(name)),
        ["stuck"] => return lives::stuck(),
        [name, "plain"] => (name, Way::Plain, None),
        [name, "plain", file] => (name, Way::Plain, Some(file)),
        [name, "forked", file] => (name, Way::Forked, Some(file)),
        [name] => (name, Way::Whole, None),
        [name, file] => (name, Way::Whole, Some(file)),
        _ => fail(&"CASE [plain|forked] [FILE], or list"),
    };
    let case = CASES.iter().find(|(known, _)| *known == name);
    let (_, case) = case.unwrap_or_else(|| fail(&format!("{name} is no case")));
    let mut crossing = Crossing::new(way, file);
    case(&mut crossing);
    crossing.end(name)
}
