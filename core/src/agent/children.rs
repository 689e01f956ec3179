//! The children of this host: who they are, how they end, who wants to know.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use super::PAGE;
use super::failure::fail;
use super::hosted::Hosted;
use super::limits::Whose;
use super::seeds::Hold;
use crate::halt;
use crate::id::{ChildId, SeedId};
use crate::resume::Entering;
use crate::resume::{NewProcess, Template};
use crate::sys::event::Bell;
use crate::sys::pidfd::PidFd;
use crate::sys::poll;
use crate::tally::{Counted, Tally};
use crate::wire::local::{ChildEnd, ChildLine, Failure, FailureKind};

/// Children alive at once on one host, whatever is set: below the kernel's usual pid_max.
pub const MAX_CHILDREN: usize = 20_000;
/// Exit status of a child whose restore did not end: its first instruction never ran.
const TAIL_FAILED: i32 = 127;
/// How long the status of an unknown process is kept: a child that ends before it is entered is entered
/// within this time; templates end unasked for.
const EARLY_AGE: Duration = Duration::from_secs(2);

/// A child's end, for the one who started it.
#[derive(Debug)]
pub struct ChildEvent {
    /// Which.
    pub child: ChildId,
    /// How.
    pub end: ChildEnd,
}

/// Where the ends of one resume's children are told.
#[derive(Clone, Debug)]
pub struct Teller {
    events: Sender<ChildEvent>,
    /// Rung behind each, for who waits for other things, too.
    bell: Option<Arc<Bell>>,
}

impl Teller {
    /// By `events`, and by `bell`.
    pub fn new(events: Sender<ChildEvent>, bell: Option<Arc<Bell>>) -> Self {
        Teller { events, bell }
    }

    fn tell(&self, event: ChildEvent) {
        let is_heard = self.events.send(event).is_ok();
        if let Some(bell) = self.bell.as_ref().filter(|_| is_heard) {
            bell.ring();
        }
    }
}

/// What a child needs. A template of its own batch goes first.
#[derive(Debug)]
struct LivesOn {
    template: Option<Arc<Template>>,
    hosted: Arc<Hosted>,
    _hold: Option<Arc<Hold>>,
}

impl LivesOn {
    fn why_failed(&self, child: ChildId, entering: Entering) -> Option<String> {
        match &self.template {
            Some(template) => template.why_failed(child, entering),
            None => self.hosted.why_failed(child, entering),
        }
    }
}

#[derive(Debug)]
struct Entry {
    child: ChildId,
    seed: SeedId,
    /// `None`: it had ended before it could be opened; the keeper's word of its end is on its way.
    process: Option<PidFd>,
    started: Instant,
    lost: Option<String>,
    teller: Teller,
    stderr: Arc<File>,
    /// For what it failed at, if it never ran.
    entering: Entering,
    /// Keeps image, template and lease alive, and the seed if it is this host's.
    lives_on: Option<LivesOn>,
    /// Who has started it.
    user: u32,
    /// What it counts for.
    places: Vec<Counted<Whose>>,
}

impl Entry {
    /// What it needed is dropped before.
    fn tell_its_end(mut self, status: i32) {
        let end = decode(status, self.lost.take());
        if end == ChildEnd::Exited(TAIL_FAILED) {
            self.say_why_it_never_ran();
        }
        self.lives_on = None;
        // Whoever hears of its end may start another one.
        self.places.clear();
        self.teller.tell(ChildEvent { child: self.child, end });
    }

    /// A program may end with that status, too; then there is nothing to say.
    fn say_why_it_never_ran(&self) {
        let Some(lives_on) = &self.lives_on else { return };
        if let Some(why) = lives_on.why_failed(self.child, self.entering) {
            let text = format!("mitosis: child {} never ran: {why}", self.child);
            tracing::error!("{text}");
            say(&self.stderr, text);
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    by_pid: HashMap<u32, Entry>,
    /// Inits of children's pid namespaces; each ends after its child.
    inits: HashSet<u32>,
    early: HashMap<u32, (Instant, i32)>,
    /// Pages that processes have lost that nobody has entered yet: they run before they are entered.
    early_losses: HashMap<u32, (Instant, String)>,
}

/// Of who is about to be entered something may be told before; what is older was another process's.
fn is_young(since: Instant) -> bool {
    since.elapsed() < EARLY_AGE
}

impl Table {
    /// The first one counts.
    fn note_early_loss(&mut self, pid: u32, text: &str) {
        self.early_losses.retain(|_, (since, _)| is_young(*since));
        self.early_losses.entry(pid).or_insert_with(|| (Instant::now(), text.to_owned()));
    }

    fn take_early_loss(&mut self, pid: u32) -> Option<String> {
        self.early_losses.remove(&pid).filter(|(since, _)| is_young(*since)).map(|(_, text)| text)
    }

    /// How a process has ended that is being entered, and not one that had its number before.
    fn take_early(&mut self, pid: u32) -> Option<i32> {
        self.early.remove(&pid).filter(|(since, _)| is_young(*since)).map(|(_, status)| status)
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Children {
    table: Mutex<Table>,
    /// Those that are there, and those that are about to be. Locked after `table`.
    tally: Arc<Tally<Whose>>,
}

/// What is known of a child when it is entered.
#[derive(Debug)]
pub struct NewChild {
    /// Its name.
    pub child: ChildId,
    /// Its seed.
    pub seed: SeedId,
    /// Its process.
    pub process: NewProcess,
    /// Where its end is told.
    pub teller: Teller,
    /// What it lives on.
    pub hosted: Arc<Hosted>,
    /// Who cloned it, if that is a template of its own batch.
    pub template: Option<Arc<Template>>,
    /// Its seed, if that is this host's.
    pub hold: Option<Arc<Hold>>,
    /// Its standard error, for what the agent has to say of it.
    pub stderr: Arc<File>,
    /// Who has started it.
    pub user: u32,
}

/// Places for children that are about to be started; those that are not taken go back.
#[derive(Debug)]
pub struct Places {
    children: Arc<Children>,
    left: Vec<Counted<Whose>>,
}

impl Children {
    /// Places for `count` more, which count for each of these parties.
    ///
    /// # Errors
    /// A limit is reached: nothing is counted.
    pub(super) fn admit(
        self: &Arc<Self>,
        count: u32,
        parties: &[(Whose, usize)],
    ) -> Result<Places, Failure> {
        let place = |(whose, most): &(Whose, usize)| {
            let counted = self.tally.enter(*whose, count as usize, *most);
            counted.ok_or_else(|| whose.refuse(count, *most))
        };
        let left = parties.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Places { children: self.clone(), left })
    }

    /// A process of the keeper's has ended with this wait(2) status.
    pub fn ended(&self, pid: u32, status: i32) {
        let entry = {
            let mut table = self.table.lock();
            let entry = table.by_pid.remove(&pid);
            if entry.is_none() && !table.inits.remove(&pid) {
                table.early.retain(|_, (since, _)| is_young(*since));
                table.early.insert(pid, (Instant::now(), status));
            }
            entry
        };
        // Told, and then dropped, outside of the lock: the last one to let go of an image tears it down.
        if let Some(entry) = entry {
            halt::at(halt::Step::Exit);
            entry.tell_its_end(status);
        }
    }

    /// A page of this thread could not be had: its process's SIGBUS has a cause, and its standard error a
    /// line.
    pub fn page_lost(&self, tid: u32, text: &str) {
        let pid = process_of(tid).unwrap_or(tid);
        let mut table = self.table.lock();
        let Some(entry) = table.by_pid.get_mut(&pid) else {
            // Or a process that a child has forked itself: the log has it.
            table.note_early_loss(pid, text);
            return;
        };
        if entry.lost.is_some() {
            return;
        }
        entry.lost = Some(text.to_owned());
        say(&entry.stderr, text.to_owned());
    }

    /// Who has started a child.
    pub(super) fn user_of(&self, child: ChildId) -> Option<u32> {
        let table = self.table.lock();
        table.by_pid.values().find(|entry| entry.child == child).map(|entry| entry.user)
    }

    /// What a child lives on.
    ///
    /// # Errors
    /// No such child.
    pub(super) fn hosted(&self, child: ChildId) -> Result<Arc<Hosted>, Failure> {
        let table = self.table.lock();
        let entry = table.by_pid.values().find(|entry| entry.child == child);
        let lives_on = entry.and_then(|entry| entry.lives_on.as_ref());
        lives_on.map(|on| on.hosted.clone()).ok_or_else(|| child_gone(child))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// No such child, or a number that is no signal.
    pub fn kill(&self, child: ChildId, signal: i32) -> Result<(), Failure> {
        let gone = || child_gone(child);
        let table = self.table.lock();
        let entry = table.by_pid.values().find(|entry| entry.child == child).ok_or_else(gone)?;
        let Some(process) = &entry.process else { return Ok(()) };
        process.signal(signal).map_err(|error| match error.raw_os_error() {
            // Reaped, and the word of it is on its way.
            Some(libc::ESRCH) => gone(),
            _ => fail(
                FailureKind::Argument,
                format!("signal {signal} cannot be sent to child {child}: {error}"),
            ),
        })
    }

    /// Kills every child.
    pub fn kill_all(&self) {
        for process in self.table.lock().by_pid.values().filter_map(|entry| entry.process.as_ref())
        {
            let _ = process.signal(libc::SIGKILL);
        }
    }

    /// How many there are, and the bytes of memory that they have to themselves: pages that they have written to, and
    /// those that were copied for them ahead.
    pub fn count_with_private_bytes(&self) -> (u64, u64) {
        let pids: Vec<u32> = self.table.lock().by_pid.keys().copied().collect();
        (pids.len() as u64, pids.iter().filter_map(|pid| private_pages(*pid)).sum::<u64>() * PAGE)
    }

    /// A line for each that somebody has started of whom `is_seen` holds.
    pub fn lines(&self, is_seen: impl Fn(u32) -> bool) -> Vec<ChildLine> {
        let table = self.table.lock();
        let line = |(pid, entry): (&u32, &Entry)| ChildLine {
            child: entry.child,
            pid: *pid,
            seed: entry.seed,
            age_s: entry.started.elapsed().as_secs(),
        };
        let mut lines: Vec<ChildLine> =
            table.by_pid.iter().filter(|(_, entry)| is_seen(entry.user)).map(line).collect();
        lines.sort_by_key(|line| line.pid);
        lines
    }
}

impl Places {
    /// Enters a child at one of them. One that has ended meanwhile is told of at once.
    pub fn take(&mut self, new: NewChild) {
        let NewProcess { pid, init, entering, .. } = new.process;
        let process = PidFd::open(pid).ok();
        let places = self.left.iter_mut().filter_map(Counted::take_one).collect();
        let mut table = self.children.table.lock();
        if let Some(init) = init.filter(|init| table.take_early(*init).is_none()) {
            table.inits.insert(init);
        }
        let early = table.take_early(pid);
        let lost = table.take_early_loss(pid);
        if let Some(text) = &lost {
            say(&new.stderr, text.clone());
        }
        let entry = Entry {
            child: new.child,
            seed: new.seed,
            process,
            started: Instant::now(),
            lost,
            teller: new.teller,
            stderr: new.stderr,
            entering,
            lives_on: Some(LivesOn { template: new.template, hosted: new.hosted, _hold: new.hold }),
            user: new.user,
            places,
        };
        match early {
            Some(status) => {
                drop(table);
                entry.tell_its_end(status);
            }
            None => drop(table.by_pid.insert(pid, entry)),
        }
    }
}

/// Of one that has ended, or that is not told of.
pub(super) fn child_gone(child: ChildId) -> Failure {
    fail(FailureKind::ChildGone, format!("there is no child {child} here: it has ended"))
}

/// The process that a thread belongs to.
fn process_of(tid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Resident pages of no file and of no shared memory; none of a process that has ended.
fn private_pages(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = statm.split_ascii_whitespace().skip(1).map_while(|word| word.parse().ok());
    let (resident, shared): (u64, u64) = (pages.next()?, pages.next()?);
    Some(resident.saturating_sub(shared))
}

/// Writes a line to a child's standard error.
fn say(stderr: &Arc<File>, text: String) {
    let line = format!("{text}\n");
    if poll::is_writable(stderr.as_raw_fd()).unwrap_or(false) {
        // A pipe that poll(2) calls writable takes a line whole: it is there before the end is told.
        let _ = (&**stderr).write_all(line.as_bytes());
        return;
    }
    // Whoever reads that pipe is slow or stopped: nobody waits for it here.
    let stderr = stderr.clone();
    let write = move || drop((&*stderr).write_all(line.as_bytes()));
    if let Err(error) = std::thread::Builder::new().name("last-words".to_owned()).spawn(write) {
        tracing::error!(%error, text, "a child's stderr could not be told");
    }
}

/// A wait(2) status in words.
fn decode(status: i32, lost: Option<String>) -> ChildEnd {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        return match lost {
            Some(text) if signal == libc::SIGBUS => ChildEnd::PageLost(text),
            _ => ChildEnd::Signalled(signal),
        };
    }
    ChildEnd::Exited(libc::WEXITSTATUS(status))
}

#[cfg(test)]
mod tests {
    use super::super::limits::Limits;
    use super::*;
    use crate::export::stand_in::StandIn;

    #[test]
    fn what_a_process_writes_is_its_own_and_files_are_not() {
        let pages = |stand_in: &StandIn| private_pages(stand_in.pid()).unwrap();
        let (small, large) = (StandIn::start(4096), StandIn::start(64 << 20));
        let (small, large) = (pages(&small), pages(&large));
        assert!(large >= small + (60 << 20) / PAGE, "{small} {large}");
        assert_eq!(private_pages(u32::MAX), None);
    }

    #[test]
    fn a_child_that_is_reaped_is_gone_before_its_end_is_told() {
        let mut sleep = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (children, child) = (Children::default(), ChildId(7));
        let entry = Entry {
            child,
            seed: SeedId(1),
            process: Some(PidFd::open(sleep.id()).unwrap()),
            started: Instant::now(),
            lost: None,
            teller: Teller::new(crossbeam_channel::unbounded().0, None),
            stderr: Arc::new(File::open("/dev/null").unwrap()),
            entering: Entering::default(),
            lives_on: None,
            user: 0,
            places: Vec::new(),
        };
        children.table.lock().by_pid.insert(sleep.id(), entry);
        assert_eq!(children.kill(child, 999).unwrap_err().kind, FailureKind::Argument);
        children.kill(child, libc::SIGKILL).unwrap();
        sleep.wait().unwrap();
        assert_eq!(children.kill(child, libc::SIGKILL).unwrap_err().kind, FailureKind::ChildGone);
    }

    #[test]
    fn a_page_that_is_lost_before_its_child_is_entered_is_remembered_for_it() {
        let children = Children::default();
        children.page_lost(u32::MAX, "the first page");
        children.page_lost(u32::MAX, "the second page");
        let mut table = children.table.lock();
        let first = table.take_early_loss(u32::MAX);
        assert_eq!(first.as_deref(), Some("the first page"));
        assert_eq!(table.take_early_loss(u32::MAX), None, "for that one alone");
        // Numbers of processes come again.
        let long_ago = Instant::now().checked_sub(2 * EARLY_AGE).expect("this host is older");
        table.early_losses.insert(7, (long_ago, "another's".to_owned()));
        table.early.insert(7, (long_ago, 9));
        assert_eq!((table.take_early_loss(7), table.take_early(7)), (None, None));
    }

    #[test]
    fn places_are_given_away_once() {
        let children = Arc::new(Children::default());
        let most = u32::try_from(MAX_CHILDREN).unwrap();
        let all = [(Whose::All, MAX_CHILDREN)];
        let first = children.admit(most - 1, &all).unwrap();
        let last = children.admit(1, &all).unwrap();
        assert_eq!(children.admit(1, &all).unwrap_err().kind, FailureKind::Limit);
        drop(last);
        assert!(children.admit(2, &all).is_err());
        drop(first);
        assert!(children.admit(most + 1, &all).is_err());
        assert!(children.admit(most, &all).is_ok());
    }

    #[test]
    fn a_seed_and_a_peer_have_limits_of_their_own_and_a_refusal_names_the_setting() {
        let children = Arc::new(Children::default());
        let limits =
            Limits { children: 9, children_of_seed: 4, children_of_peer: 5, ..Limits::default() };
        let peer = |last| Some([10, 0, 0, last].into());
        let admit = |seed, peer, count| {
            let admitted = children.admit(count, &limits.of_resume(SeedId(seed), peer));
            admitted.map_err(|failure| failure.message)
        };
        let _first = admit(1, peer(1), 3).unwrap();
        let of_seed = admit(1, peer(2), 2).unwrap_err();
        assert!(
            of_seed.contains("of seed 0000000000000001 would") && of_seed.contains("limit of 4")
        );
        assert!(of_seed.contains("(max_children_of_seed)"), "{of_seed}");
        let of_peer = admit(2, peer(1), 3).unwrap_err();
        assert!(of_peer.contains("for 10.0.0.1 would") && of_peer.contains("limit of 5"));
        assert!(of_peer.contains("(max_children_of_peer)"), "{of_peer}");
        // What was refused counts for nobody; a caller of this host is no peer.
        let _second = admit(2, peer(2), 3).unwrap();
        let all = admit(3, None, 4).unwrap_err();
        assert!(all.contains("limit of 9 (max_children)"), "{all}");
        assert!(admit(3, None, 3).is_ok());
    }
}
