//! The list of cases, and what the descriptor of each one's seed must say.

use std::os::unix::fs::FileExt;

use mitosis::descriptor::{SeedAddr, Source, VmaKind};

use super::agent::{Agent, Manner, Taken};
use super::cases::{self, MEMFD_AT, MEMFD_VIEW_AT, PAGE, PRIVATE_AT, READ_ONLY_FILE_AT, SHARED_AT};
use super::{Case, traced};

pub(crate) fn all() -> Vec<Case> {
    let case =
        |name, run: fn()| Case { name, run, manner: Manner::Works, check: |_| {}, attend: None };
    macro_rules! cases {
        ($($name:ident $({ $($field:ident: $value:expr),* })?),* $(,)?) => {
            vec![$(Case { $($($field: $value,)*)? ..case(stringify!($name), cases::$name) }),*]
        };
    }
    let mut all = cases![
        wait_knows_no_child { check: every_descriptor_is_whole },
        wait_by_the_seeds_pid_knows_no_child,
        wait_still_finds_real_children,
        no_sigchld,
        locks_of_files_without_a_name,
        process_group_and_session,
        open_files { check: the_open_file_is_listed },
        interval_timers { check: the_timer_is_listed },
        posix_timers,
        pending_alarm_still_rings,
        memory_contents { check: the_seed_keeps_the_old_bytes },
        mappings_are_left_as_they_were,
        threads_go_on { check: every_descriptor_is_whole },
        signal_masks_and_dispositions { check: the_callers_actions_are_listed },
        sigsys_handled_ignored_or_blocked { check: sigsys_is_the_callers },
        a_seccomp_trap_in_another_thread_reaches_its_handler,
        a_thread_may_prepare { check: the_worker_is_the_thread },
        prepares_in_a_row_leave_no_zombies { check: every_descriptor_is_whole },
        threads_prepare_in_turn { check: every_descriptor_is_whole },
        a_plain_fork_of_another_thread_is_unharmed,
        a_thread_started_by_a_fork_handler_is_refused_by_name,
        shared_memory_is_copied { check: copies_have_the_old_bytes },
        shared_memory_above_the_limit_is_refused_by_name,
        without_an_agent_nothing_stops { manner: Manner::Absent },
        an_agent_that_hangs_up_is_an_error_at_once { manner: Manner::ClosesAtOnce },
        a_sandbox_without_dispatch_is_refused_unless_a_visible_seed_is_allowed,
        a_process_that_is_not_dumpable_is_refused,
        a_fork_that_fails_leaves_nothing,
        nothing_is_written_behind_the_frame { attend: Some(traced::witness) },
        a_resumed_child_goes_on_from_prepare {
            attend: Some(traced::resume_in_place),
            check: generations_count_up
        },
        a_rehearsal_ends_before_user_code { attend: Some(traced::rehearse_in_place) },
    ];
    if std::env::args().any(|arg| arg == "cost") {
        all = cases![cost];
    }
    all
}

/// What holds for the seed of any process.
fn every_descriptor_is_whole(agent: &Agent) {
    assert!(agent.seed_count() > 0);
    for index in 0..agent.seed_count() {
        agent.with_descriptor(index, |descriptor, taken| {
            assert_eq!(descriptor.threads.len(), 1);
            let thread = &descriptor.threads[0];
            let vma_of = |addr: SeedAddr| {
                let vma = descriptor.vmas.iter().find(|vma| vma.range.contains(addr));
                vma.unwrap_or_else(|| panic!("{addr} is not carried"))
            };
            vma_of(thread.frame);
            vma_of(thread.tid_address);
            vma_of(SeedAddr(thread.fs_base));
            let rseq = thread.rseq.expect("glibc registers rseq");
            assert_eq!(rseq.len % 32, 0);
            vma_of(rseq.addr);
            let info = vma_of(descriptor.resume_area.addr);
            assert_eq!(info.prot, 3);
            assert_eq!(taken.magic, mitosis::prepare::RESUME_MAGIC.to_le_bytes());
            let process = &descriptor.process;
            let code = process.layout.code;
            assert!(code.0 < code.1 && process.layout.brk.0 <= process.layout.brk.1);
            assert!(matches!(vma_of(SeedAddr(process.layout.stack)).kind, VmaKind::Stack));
            assert!(process.auxv.len() >= 16 * 10);
            assert!(process.exe.contains("parent_unaffected"), "{}", process.exe);
            assert_eq!(process.signal_actions.len(), 64);
            assert!(process.limits.iter().any(|limit| limit.0 != 0));
            assert!(process.cwd.starts_with('/'));
            let [ref scratch, ..] = taken.report.not_carried[..] else { panic!("no scratch") };
            let carried =
                |vma: &&mitosis::descriptor::Vma| !vma.range.intersect(*scratch).is_empty();
            assert_eq!(descriptor.vmas.iter().find(carried), None);
        });
    }
}

fn bytes(taken: &Taken, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    taken.mem.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

fn the_open_file_is_listed(agent: &Agent) {
    agent.with_descriptor(0, |descriptor, _| {
        let file = descriptor.open_files.iter().find(|file| file.fd == 200).unwrap();
        assert_eq!(file.position, 5);
        assert_ne!(file.flags & libc::O_CLOEXEC.cast_unsigned(), 0);
        assert!(file.link.contains("(deleted)"), "{}", file.link);
        let sockets = descriptor.open_files.iter().filter(|file| file.link.contains("socket:"));
        assert_eq!(sockets.count(), 0, "the connection to the agent is not the caller's");
        assert!(descriptor.open_files.iter().all(|file| !file.link.starts_with("/proc/")));
    });
}

fn the_timer_is_listed(agent: &Agent) {
    agent.with_descriptor(0, |descriptor, _| {
        let [interval, _, left, _] = descriptor.process.timers[0];
        assert_eq!(interval, 7);
        assert!((98..=100).contains(&left));
    });
}

fn the_seed_keeps_the_old_bytes(agent: &Agent) {
    agent.with_descriptor(0, |descriptor, taken| {
        let run = descriptor.page_table.lookup(SeedAddr(PRIVATE_AT)).unwrap();
        assert!(matches!(run.source, Source::Owner { .. }), "{run:?}");
        for (i, byte) in bytes(taken, PRIVATE_AT, 64 * PAGE).iter().enumerate() {
            assert_eq!(usize::from(*byte), i % 251);
        }
    });
}

fn the_callers_actions_are_listed(agent: &Agent) {
    agent.with_descriptor(0, |descriptor, taken| {
        let actions = &descriptor.process.signal_actions;
        let handler = |signal: i32| actions[usize::try_from(signal - 1).unwrap()].handler;
        assert!(handler(libc::SIGUSR1) > 1);
        assert_eq!(handler(60), handler(libc::SIGUSR1), "the freeze signal's is the caller's");
        assert_eq!(handler(libc::SIGPIPE), 1);
        assert_eq!(handler(libc::SIGTERM), 0);
        // The frame itself: everything but the freeze signal is blocked until the handler returns.
        let mask = taken.frame_mask;
        assert_eq!(mask | 1 << 59 | 1 << 8 | 1 << 18, u64::MAX, "{mask:x}");
    });
}

fn sigsys_is_the_callers(agent: &Agent) {
    let mut handlers = Vec::new();
    for index in 0..4 {
        agent.with_descriptor(index, |descriptor, _| {
            handlers.push(descriptor.process.signal_actions[30].handler);
        });
    }
    assert!(handlers[0] > 1);
    assert_eq!(handlers[1..], [1, 0, 0]);
}

fn the_worker_is_the_thread(agent: &Agent) {
    every_descriptor_is_whole(agent);
    agent.with_descriptor(0, |descriptor, _| {
        assert_eq!(descriptor.threads[0].name, b"worker");
        assert_ne!(descriptor.threads[0].tid, descriptor.process.parent_pid);
    });
}

fn copies_have_the_old_bytes(agent: &Agent) {
    agent.with_descriptor(0, |descriptor, taken| {
        let byte_at = |addr: u64| {
            let run = descriptor.page_table.lookup(SeedAddr(addr)).unwrap();
            let Source::Owner { addr: owned, .. } = run.source else { panic!("{run:?}") };
            let at = owned.0 + (addr - run.range.start.0);
            (bytes(taken, at, 1)[0], at != addr)
        };
        let page = PAGE as u64;
        assert_eq!(byte_at(SHARED_AT + 500 * page), (1, true));
        assert_eq!(byte_at(SHARED_AT + 501 * page), (0, true));
        assert_eq!(byte_at(MEMFD_AT + 3 * page), (2, true));
        assert_eq!(byte_at(MEMFD_VIEW_AT + 3 * page), (2, true));
        assert_eq!(byte_at(READ_ONLY_FILE_AT), (4, false));
        for (shared, copy) in &taken.report.shared_copies {
            let carried = descriptor.vmas.iter().any(|vma| vma.range.contains(*copy));
            assert!(!carried, "the copy of {shared} is carried as memory of its own");
        }
        assert_eq!(taken.report.shared_copies.len(), 3);
    });
}

fn generations_count_up(agent: &Agent) {
    agent.with_descriptor(0, |descriptor, _| assert_eq!(descriptor.generation, 1));
    agent.with_descriptor(1, |descriptor, _| assert_eq!(descriptor.generation, 4));
}
