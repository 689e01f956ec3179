//! Children whose pid namespace the kernel refuses half-way, where all that it takes is open: at setns(2). And those whose
//! time namespace it refuses.

use std::process::Command;
use std::time::Duration;

use mitosis::descriptor::Clocks;

use super::world::{self, World};

/// What the kernel answers in place of setns(2) into a pid namespace, and of unshare(2) of the clocks.
const REFUSAL: u32 = libc::EPERM.cast_unsigned();

/// This program with the filter, for one lasts as long as its process.
pub(crate) fn spawn() {
    let program = std::env::current_exe().expect("this program has a path");
    let status = Command::new(program).arg("refused").status().expect("it starts");
    assert!(status.success(), "{status}");
}

/// Children come with new ids and their own standard descriptors, cloned ahead or not.
pub(crate) fn run() {
    refuse_namespaces();
    let mut world = World::whole();
    world.is_refused = true;
    let template = world.template();
    for is_ahead in [false, true, true] {
        if is_ahead {
            template.clone_ahead(1).expect("a clone");
            std::thread::sleep(Duration::from_millis(50));
        }
        let child = world.child(&template, 0, b"clock");
        let line = child.read_line();
        assert!(line.starts_with("clock "), "ahead {is_ahead}: '{line}'");
        assert_eq!(child.init, None);
        assert_eq!(world.end_of(child.pid), 0);
    }
    a_child_is_told_by_how_much_its_clock_jumps(&mut world);
}

/// It has this host's clock, two hours behind the one that it was to have.
fn a_child_is_told_by_how_much_its_clock_jumps(world: &mut World) {
    const AHEAD_NS: i64 = 7_200_000_000_000;
    let offset = Clocks { monotonic_ns: AHEAD_NS, boottime_ns: AHEAD_NS };
    let template = world.template_with(offset, |_| {}).expect("a template");
    assert!(template.clock_refused().is_some_and(|why| why.contains("not permitted")));
    let before = world::monotonic();
    let child = world.child(&template, 0, b"delta");
    let line = child.read_line();
    assert_eq!(world.end_of(child.pid), 0);
    let words: Vec<i64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [clock, delta] = words[..] else { panic!("{line}") };
    assert_eq!(delta, -AHEAD_NS, "{line}");
    let clock = Duration::from_nanos(clock.unsigned_abs());
    assert!(clock >= before && clock <= world::monotonic(), "{line}");
    assert!(world.template().clock_refused().is_none(), "it was to have this host's clock");
}

/// Of this process and those that it starts.
fn refuse_namespaces() {
    let load = |offset: usize| libc::sock_filter {
        code: narrow(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS),
        jt: 0,
        jf: 0,
        k: u32::try_from(offset).expect("small"),
    };
    let unless = |value: i64, skip: u8| libc::sock_filter {
        code: narrow(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K),
        jt: 0,
        jf: skip,
        k: u32::try_from(value).expect("a number of 32 bits"),
    };
    let answer =
        |k: u32| libc::sock_filter { code: narrow(libc::BPF_RET | libc::BPF_K), jt: 0, jf: 0, k };
    let first = std::mem::offset_of!(libc::seccomp_data, args);
    let second = first + size_of::<u64>();
    let mut filter = [
        load(std::mem::offset_of!(libc::seccomp_data, nr)),
        unless(libc::SYS_setns, 3),
        load(second),
        unless(libc::CLONE_NEWPID.into(), 5),
        answer(libc::SECCOMP_RET_ERRNO | REFUSAL),
        unless(libc::SYS_unshare, 3),
        load(first),
        unless(libc::CLONE_NEWTIME.into(), 1),
        answer(libc::SECCOMP_RET_ERRNO | REFUSAL),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let len = u16::try_from(filter.len()).expect("short");
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its steps live through the call, which copies them.
    let answer = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0)
    };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}

fn narrow(code: u32) -> u16 {
    u16::try_from(code).expect("codes have 16 bits")
}
