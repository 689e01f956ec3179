//! Holds an array, is prepared, and as a child does what its payload says: commands, `;` between them.
//!
//! `suite-told [WORDS]` prepares, `suite-told whole` with all threads; `suite-told plain COMMANDS` does them without a fork;
//! `suite-told fork [HOST]` forks by `mitosis.fork()` and tells how the child ended.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, exit};

use mitosis::client::{self, Forked, ResumeOptions, Seed};
use mitosis::id::Handle;
use mitosis::prepare::{PrepareOptions, Prepared, Resumed, Threads, prepare};
use mitosis::wire::local::{ChildEnd, DropMode};
use mitosis_process_suite::{Chance, PAGE, fail, prepare_and_hold_with, say, wait_for_file, word};

/// 8 MiB.
const WORDS: usize = 1 << 20;
const WORDS_OF_PAGE: usize = PAGE / 8;
/// The kernel asks for 16 KiB where a page is missed at random (the image's `READAHEAD_BYTES`).
const BLOCK_PAGES: usize = 4;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let words = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(WORDS);
    let mut state = State { array: (0..words).map(word).collect(), resumed: None };
    match arguments[..] {
        ["plain", commands] => state.obey(commands),
        ["exec'd", text] => say(&format!("exec'd {text}")),
        ["fork", ..] => fork(&mut state, arguments.get(1).copied()),
        _ => {
            let threads = if arguments == ["whole"] { Threads::All } else { Threads::Caller };
            let resumed =
                prepare_and_hold_with(&PrepareOptions { threads, ..PrepareOptions::default() });
            let commands = String::from_utf8_lossy(&resumed.payload).into_owned();
            state.resumed = Some(resumed);
            state.obey(&commands);
        }
    }
}

/// Ends by a signal that leaves a core in a folder.
fn dump_core(folder: &str) -> ! {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: limits of this process alone.
    unsafe {
        libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
    }
    std::env::set_current_dir(folder).unwrap_or_else(|error| fail(&error));
    std::process::abort()
}

/// The paved path.
fn fork(state: &mut State, host: Option<&str>) {
    match client::fork(host) {
        Ok(Forked::Child(resumed)) => {
            state.resumed = Some(resumed);
            state.obey("who;read 0 all;exit 9");
        }
        Ok(Forked::Parent(child)) => {
            let end = child.wait();
            say(&format!("parent: {end:?} on {}", child.host()));
        }
        Err(error) => fail(&error),
    }
}

/// The working directory and the host's name, as this process has them.
fn say_where() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let cwd = std::env::current_dir().unwrap_or_default();
    say(&format!("{} {}", cwd.display(), host.trim()));
}

fn say_link(path: &str) {
    let to = std::fs::read_link(path).unwrap_or_else(|error| fail(&error));
    say(&to.display().to_string());
}

struct State {
    array: Vec<u64>,
    resumed: Option<Resumed>,
}

impl State {
    fn obey(&mut self, commands: &str) {
        for command in commands.split(';') {
            let words: Vec<&str> = command.split_whitespace().collect();
            self.carry_out(&words);
        }
    }

    fn carry_out(&mut self, words: &[&str]) {
        let number = |text: &str| {
            text.parse::<usize>().unwrap_or_else(|_| fail(&format!("{text} is no number")))
        };
        match *words {
            [] => {}
            ["say", lines] => {
                for line in 0..number(lines) {
                    println!("out {line}");
                    eprintln!("err {line}");
                }
            }
            ["exit", status] => exit(number(status) as i32),
            ["signal", signal] => raise(number(signal) as i32),
            ["flood", bytes] => flood(number(bytes)),
            ["who"] => self.who(),
            ["where"] => say_where(),
            ["cmdline"] => {
                let text = std::fs::read_to_string("/proc/self/cmdline").unwrap_or_default();
                say(&text.replace('\0', "|"));
            }
            ["namespace", kind] => say_link(&format!("/proc/self/ns/{kind}")),
            ["groups"] => say(&std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default()),
            ["env", name] => say(&format!("{name}={:?}", std::env::var(name).ok())),
            ["pid"] => say(&format!("pid {}", std::process::id())),
            ["sleep"] => loop {
                std::thread::sleep(std::time::Duration::from_secs(3600));
            },
            ["await", file] => wait_for_file(file),
            ["read", from, "all"] => self.read(number(from), self.array.len() / WORDS_OF_PAGE),
            ["read", from, pages] => self.read(number(from), number(pages)),
            ["scatter", pages] => self.scatter(number(pages)),
            ["storm", threads, pages, turn] => {
                self.storm(number(threads), number(pages), number(turn));
            }
            ["write", from, pages] => self.write(number(from), number(pages)),
            ["fork"] => self.fork_plainly(),
            ["daemon", go, from, pages] => self.fork_a_daemon(go, number(from), number(pages)),
            ["exec"] => exec(),
            ["spawn"] => spawn(),
            ["again", host, ref commands @ ..] => {
                self.again(host, &commands.join(" ").replace(',', ";"));
            }
            ["core", folder] => dump_core(folder),
            ["leave"] => self.leave(),
            ref other => fail(&format!("{other:?} is no command")),
        }
    }

    fn who(&self) {
        let Some(resumed) = &self.resumed else { return say("nobody's child") };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let (index, generation) = (resumed.index, resumed.generation);
        say(&format!("index {index} generation {generation} on {}", host.trim()));
    }

    /// Each word of these pages is what was written before the fork.
    fn read(&self, from: usize, pages: usize) {
        for page in from..from + pages {
            self.check(page);
        }
        say(&format!("read {pages} pages"));
    }

    /// The same in an order that no read-ahead guesses.
    fn scatter(&self, pages: usize) {
        let mut chance = Chance(pages as u64);
        for _ in 0..pages {
            self.check(chance.below((self.array.len() / WORDS_OF_PAGE) as u64) as usize);
        }
        say(&format!("scattered {pages} pages"));
    }

    /// So many threads, each touching so many pages that no other touches, nor any turn before this one; tells
    /// how long all of them took.
    fn storm(&self, threads: usize, pages: usize, turn: usize) {
        // One page of each block that comes with a miss: the others of it are there then.
        let all = self.array.len() / WORDS_OF_PAGE / BLOCK_PAGES;
        if (turn + 1) * threads * pages > all || !all.is_power_of_two() {
            fail(&format!("{all} blocks of pages are not enough, or no power of two"));
        }
        // SAFETY: advice on memory that is this array's own; nothing is dropped by it.
        unsafe {
            let array = self.array.as_ptr().cast_mut().cast();
            libc::madvise(array, self.array.len() * 8, libc::MADV_RANDOM);
        }
        let touch = |number: usize| {
            // An odd factor: each number has a page of its own, far from its neighbours'.
            let at = (number.wrapping_mul(0x9e37_79b1) % all) * BLOCK_PAGES * WORDS_OF_PAGE;
            if self.array[at] != word(at) {
                fail(&format!("word {at} is not what it was"));
            }
        };
        let begun = std::time::Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let first = (turn * threads + thread) * pages;
                scope.spawn(move || (first..first + pages).for_each(touch));
            }
        });
        let took = begun.elapsed().as_nanos();
        say(&format!("stormed {} pages in {took} ns", threads * pages));
    }

    fn check(&self, page: usize) {
        for (at, value) in
            self.array.iter().enumerate().skip(page * WORDS_OF_PAGE).take(WORDS_OF_PAGE)
        {
            if *value != word(at) {
                fail(&format!("word {at} is {value:#x} and was {:#x}", word(at)));
            }
        }
    }

    fn write(&mut self, from: usize, pages: usize) {
        let range = from * WORDS_OF_PAGE..(from + pages) * WORDS_OF_PAGE;
        self.array[range].iter_mut().for_each(|word| *word = !*word);
        say(&format!("wrote {pages} pages"));
    }

    /// fork(2) in the child: its own child sees the array, and a write there stays there.
    fn fork_plainly(&mut self) {
        // SAFETY: this program has one thread.
        match unsafe { libc::fork() } {
            0 => {
                self.read(0, self.array.len() / WORDS_OF_PAGE);
                self.write(0, 16);
                exit(0)
            }
            -1 => fail(&std::io::Error::last_os_error()),
            pid => {
                let mut status = 0;
                // SAFETY: our own child.
                unsafe { libc::waitpid(pid, &raw mut status, 0) };
                self.read(0, 32);
                say(&format!("forked {status}"));
            }
        }
    }

    /// A process of its own session that outlives this one, and says what it says in the file `go`.said: once
    /// the file `go` is there it reads pages that nobody has touched, and makes the file `go`.done.
    fn fork_a_daemon(&self, go: &str, from: usize, pages: usize) {
        // SAFETY: this program has one thread.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: takes nothing.
                unsafe { libc::setsid() };
                if let Err(error) = speak_to(&format!("{go}.said")) {
                    fail(&error);
                }
                wait_for_file(go);
                self.read(from, pages);
                if let Err(error) = std::fs::write(format!("{go}.done"), "") {
                    fail(&error);
                }
                exit(0)
            }
            -1 => fail(&std::io::Error::last_os_error()),
            pid => say(&format!("daemon {pid}")),
        }
    }

    /// A child is prepared, and resumed: `HOST COMMANDS`, with `,` between them; `-` is its own host.
    fn again(&mut self, host: &str, commands: &str) {
        let generation = self.resumed.as_ref().map_or(0, |resumed| resumed.generation);
        let Some((seed, handle)) = self.prepare_again(commands) else { return };
        let host = (host != "-").then(|| host.to_owned());
        match client::resume(seed.agent(), ResumeOptions { host, ..ResumeOptions::new(handle) }) {
            Ok(children) => {
                let ends: Vec<ChildEnd> = children.iter().map(client::Child::wait).collect();
                say(&format!("after generation {generation}: {ends:?}"));
            }
            Err(error) => say(&format!("refused: {error}")),
        }
        if let Err(error) = seed.drop_seed(DropMode::AfterChildren) {
            say(&format!("not dropped: {error}"));
        }
    }

    /// A child is prepared and leaves its seed behind; what a child of that seed does is in its payload.
    fn leave(&mut self) {
        if let Some((_, handle)) = self.prepare_again("") {
            say(&handle.reveal());
        }
    }

    fn prepare_again(&mut self, commands: &str) -> Option<(Seed, Handle)> {
        let prepared = match prepare(&PrepareOptions::default()) {
            Ok(Prepared::Child(resumed)) => {
                let payload = String::from_utf8_lossy(&resumed.payload).into_owned();
                self.resumed = Some(resumed);
                self.obey(&format!("{commands};{payload}"));
                exit(0)
            }
            Ok(Prepared::Parent(seed)) => seed.handle().map(|handle| (seed, handle)),
            Err(error) => fail(&error),
        };
        prepared.inspect_err(|error| say(&format!("refused: {error}"))).ok()
    }
}

/// Standard output and error go to a file.
fn speak_to(path: &str) -> std::io::Result<()> {
    let file = std::fs::File::options().create(true).append(true).open(path)?;
    for number in [1, 2] {
        // SAFETY: numbers of descriptors.
        unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&file), number) };
    }
    Ok(())
}

fn raise(signal: i32) {
    // SAFETY: takes a number.
    unsafe { libc::raise(signal) };
}

/// Bytes that a reader can check: the alphabet, over and over.
fn flood(bytes: usize) {
    let line: Vec<u8> = (b'a'..=b'z').cycle().take(26 * 1024).collect();
    let mut left = bytes;
    let mut out = std::io::stdout().lock();
    while left > 0 {
        let some = left.min(line.len());
        if out.write_all(&line[..some]).is_err() {
            exit(5);
        }
        left -= some;
    }
    if out.flush().is_err() {
        exit(5);
    }
}

fn own_path() -> String {
    std::env::args().next().unwrap_or_default()
}

/// The child becomes another program: itself, from the beginning.
fn exec() {
    use std::os::unix::process::CommandExt;
    let error = Command::new(own_path()).args(["exec'd", "in place"]).exec();
    fail(&error);
}

fn spawn() {
    let status = Command::new(own_path()).args(["exec'd", "beside"]).status();
    match status {
        Ok(status) => say(&format!("spawned {:?} {:?}", status.code(), status.signal())),
        Err(error) => fail(&error),
    }
}
