//! Programs of small descriptors, line by line.

use super::*;
use crate::descriptor::{
    CallSite, Groups, HostNeeds, Losses, MAX_THREADS, Marks, OpenFile, OwnCredentials, OwnerIndex,
    PageTable, Process, ResumeArea, Rseq, Run, Sched, SharedPart, SiteKind, State, Thread,
    ThreadState, Treatment, Vma, WarmSet, Whole,
};
use crate::id::SeedId;
use crate::resume::child::Own;
use crate::resume::{SharedHere, TailFacts, TailPlace, Vdso};

const PAGE: u64 = 4096;
const MAPS: u64 = 0x10_0000_0000;
const PLACE: TailPlace = TailPlace {
    keeper: 77,
    base: 0x6000_0000_0000,
    stdio: 4,
    is_ahead: false,
    runs_timers: true,
    passed_ns: 0,
    clock_delta_ns: 0,
};

/// A seed of one thread without memory.
pub(crate) fn descriptor() -> Descriptor {
    let thread = Thread {
        tid: 7,
        frame: SeedAddr(0x7000_0010),
        tid_address: SeedAddr(0x7000_0020),
        fs_base: 0x7000_0030,
        name: b"seed".to_vec(),
        ..Thread::default()
    };
    Descriptor {
        seed: SeedId(1),
        generation: 1,
        needs: HostNeeds::default(),
        page_shift: 12,
        owners: Vec::new(),
        vmas: Vec::new(),
        page_table: PageTable::default(),
        files: Vec::new(),
        threads: vec![thread],
        process: Process { cwd: "/".into(), umask: 0o22, ..Process::default() },
        state: State::default(),
        pending: Vec::new(),
        credentials: OwnCredentials::default(),
        root: None,
        open_files: Vec::<OpenFile>::new(),
        carried: None,
        losses: Losses::default(),
        shared: Vec::new(),
        shared_files: Vec::new(),
        treatment: Treatment::default(),
        sites: Vec::new(),
        resume_area: ResumeArea { addr: SeedAddr(0x7000_0040) },
        stub_place: None,
        marks: Marks::default(),
        warm: WarmSet::default(),
        whole: None,
    }
}

fn vma(start: u64, pages: u64, prot: u8, kind: VmaKind, flags: u16) -> Vma {
    let range = SeedRange::new(MAPS + start * PAGE, MAPS + (start + pages) * PAGE);
    Vma { range, prot, kind, flags: VmaFlags(flags) }
}

fn run(start: u64, pages: u64, source: Source) -> Run {
    Run { range: SeedRange::new(MAPS + start * PAGE, MAPS + (start + pages) * PAGE), source }
}

fn owned(start: u64) -> Source {
    Source::Owner { owner: OwnerIndex(0), addr: SeedAddr(MAPS + start * PAGE) }
}

fn of_file(file: u16, page: u64) -> Source {
    Source::File { file, offset: page * PAGE, owner: OwnerIndex(0), addr: SeedAddr(page) }
}

fn placement() -> Placement {
    Placement {
        base: 0x6000_0000_0000,
        trampolines: Vec::new(),
        trampoline_pages: Vec::new(),
        beneath: None,
    }
}

/// Offset = address - MAPS.
fn offset_of(addr: SeedAddr) -> Option<ImageOffset> {
    addr.0.checked_sub(MAPS).map(ImageOffset)
}

fn compiled(desc: &Descriptor, fds: &TemplateFds) -> Program {
    compile(desc, &offset_of, &placement(), &[], &Vdso::Moved, &HostFacts::default(), fds).unwrap()
}

/// The steps between "everything is unmapped" and "the parking is unmapped".
fn mappings(vmas: Vec<Vma>, runs: Vec<Run>) -> Vec<String> {
    let mut desc = descriptor();
    (desc.vmas, desc.page_table) = (vmas, PageTable::new(runs, PAGE).unwrap());
    let ops = compiled(&desc, &TemplateFds::number(&[])).ops;
    ops[4..].iter().map(ToString::to_string).take_while(|op| !op.starts_with("munmap")).collect()
}

#[test]
fn the_frame_of_a_program() {
    let program = compiled(&descriptor(), &TemplateFds::number(&[])).to_string();
    let expected = "
   0 rt_sigprocmask(2, <8 bytes>, 0, 8)
   1 sigaltstack(<24 bytes>)
   2 munmap(0, 0x600000000000)
   3 munmap(0x600000ffa000, 0x1fffff005000)
   4 munmap(0x600000fba000, 0x40000)
   5 store 0 bytes at 0x6000000b9000
   6 prctl(35, 14, <104 bytes>, 104, 0)
   7 arch_prctl(0x1002, 0x70000030)
   8 arch_prctl(0x1001, 0)
   9 prctl(15, <5 bytes>, 0, 0, 0)
  10 personality(0)
  11 umask(18) (may fail)
  12 chdir(<2 bytes>)
  13 chdir(<2 bytes>) (may fail)
  14 0 = open(<25 bytes>, 0x80001) (may fail)
  15 write(0, <1 bytes>, 1) (may fail)
  16 dup2(1, 0) = 0x0
  17 close_range(4, 0xffffffff)
";
    assert_eq!(program, expected.trim_start_matches('\n'));
}

#[test]
fn anonymous_memory_is_split_where_it_was_long_untouched() {
    let vmas = vec![vma(0, 100, 3, VmaKind::Anonymous, 0)];
    let runs = vec![run(3, 1, owned(3)), run(34, 2, owned(34)), run(40, 4, Source::Zero)];
    let expected = [
        "mmap(0x1000000000, 0x24000, 3, 0x100002, 4, 0) = 0x1000000000",
        "mmap(0x1000024000, 0x40000, 3, 0x100022, -1, 0) = 0x1000024000",
    ];
    assert_eq!(mappings(vmas, runs), expected);
}

#[test]
fn memory_that_was_never_touched_and_holes_are_fresh() {
    let vmas = vec![
        vma(0, 2, 3, VmaKind::Anonymous, 0),
        vma(4, 2, 0, VmaKind::Anonymous, VmaFlags::NO_RESERVE),
        vma(8, 2, 3, VmaKind::Hole, 0),
    ];
    let expected = [
        "mmap(0x1000000000, 0x2000, 3, 0x100022, -1, 0) = 0x1000000000",
        "mmap(0x1000004000, 0x2000, 0, 0x104022, -1, 0) = 0x1000004000",
        "mmap(0x1000008000, 0x2000, 0, 0x100022, -1, 0) = 0x1000008000",
    ];
    assert_eq!(mappings(vmas, Vec::new()), expected);
}

#[test]
fn memory_without_rights_keeps_its_bytes() {
    let vmas = vec![vma(0, 1, 0, VmaKind::Anonymous, 0)];
    let expected = ["mmap(0x1000000000, 0x1000, 0, 0x100002, 4, 0) = 0x1000000000"];
    assert_eq!(mappings(vmas, vec![run(0, 1, owned(0))]), expected);
}

#[test]
fn a_shared_mapping_becomes_each_childs_own() {
    let vmas = vec![vma(0, 1, 3, VmaKind::Shared, 0)];
    let expected = ["mmap(0x1000000000, 0x1000, 3, 0x100002, 4, 0) = 0x1000000000"];
    assert_eq!(mappings(vmas, vec![run(0, 1, owned(9))]), expected);
}

#[test]
fn a_stack_grows_and_is_filled_with_what_was_there() {
    let vmas = vec![vma(0, 8, 3, VmaKind::Stack, VmaFlags::GROWS_DOWN)];
    let runs = vec![run(4, 1, owned(4)), run(5, 1, owned(9)), run(7, 1, owned(7))];
    let expected = [
        "mmap(0x1000000000, 0x8000, 3, 0x100122, -1, 0) = 0x1000000000",
        "pread64(4, 0x1000004000, 0x2000, 0x4000) = 0x2000",
        "pread64(4, 0x1000007000, 0x1000, 0x7000) = 0x1000",
    ];
    assert_eq!(mappings(vmas, runs), expected);
}

#[test]
fn memory_that_fork_wipes_is_empty_and_wiped_again() {
    let vmas = vec![
        vma(0, 1, 3, VmaKind::Anonymous, VmaFlags::WIPE_ON_FORK),
        vma(2, 1, 3, VmaKind::Anonymous, VmaFlags::DROPPABLE),
    ];
    let expected = [
        "mmap(0x1000000000, 0x1000, 3, 0x100022, -1, 0) = 0x1000000000",
        "madvise(0x1000000000, 0x1000, 18)",
        "mmap(0x1000002000, 0x1000, 3, 0x100022, -1, 0) = 0x1000002000",
        "madvise(0x1000002000, 0x1000, 18)",
        "mmap(0x1000002000, 0x1000, 3, 56, -1, 0) (may fail)",
    ];
    assert_eq!(mappings(vmas, vec![run(0, 1, owned(0)), run(2, 1, owned(2))]), expected);
}

#[test]
fn advice_is_given_again() {
    let flags = VmaFlags::HUGE_PAGE | VmaFlags::DONT_DUMP;
    let vmas = vec![
        vma(0, 1, 3, VmaKind::Anonymous, flags),
        vma(1, 1, 3, VmaKind::Anonymous, VmaFlags::NO_HUGE_PAGE),
    ];
    let expected = [
        "mmap(0x1000000000, 0x1000, 3, 0x100022, -1, 0) = 0x1000000000",
        "madvise(0x1000000000, 0x1000, 16)",
        "madvise(0x1000000000, 0x1000, 14) (may fail)",
        "mmap(0x1000001000, 0x1000, 3, 0x100022, -1, 0) = 0x1000001000",
        "madvise(0x1000001000, 0x1000, 15) (may fail)",
    ];
    assert_eq!(mappings(vmas, Vec::new()), expected);
}

#[test]
fn a_file_is_mapped_only_where_it_is_untouched_and_unpatched() {
    let file = |page| VmaKind::File { file: 2, offset: page * PAGE };
    let mut desc = descriptor();
    desc.vmas = vec![
        vma(0, 2, 1, file(0), 0),
        vma(2, 2, 5, file(2), 0),
        vma(4, 2, 3, file(4), 0),
        vma(6, 2, 1, file(6), 0),
    ];
    let runs = [
        run(0, 2, of_file(2, 0)),
        run(2, 2, of_file(2, 2)),
        run(4, 1, owned(4)),
        run(5, 1, of_file(2, 5)),
        run(6, 2, of_file(2, 6)),
    ];
    desc.page_table = PageTable::new(runs, PAGE).unwrap();
    let addr = SeedAddr(MAPS + 2 * PAGE + 8);
    desc.sites = vec![CallSite { addr, kind: SiteKind::Madvise }];
    let text = compiled(&desc, &TemplateFds::number(&[9, 2])).to_string();
    let expected = [
        "mmap(0x1000000000, 0x2000, 1, 0x100002, 6, 0)",
        "mmap(0x1000002000, 0x2000, 5, 0x100002, 4, 0x2000)",
        "mmap(0x1000004000, 0x2000, 3, 0x100002, 4, 0x4000)",
        "mmap(0x1000006000, 0x2000, 1, 0x100002, 6, 0x6000)",
    ];
    for line in expected {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    // Without the site the first two are one mapping; without the file all come from the image.
    desc.sites.clear();
    let text = compiled(&desc, &TemplateFds::number(&[2])).to_string();
    assert!(text.contains("mmap(0x1000000000, 0x2000, 1, 0x100002, 5, 0)"), "{text}");
    let text = compiled(&desc, &TemplateFds::number(&[])).to_string();
    assert_eq!(text.matches("0x100002, 4,").count(), 4, "{text}");
}

#[test]
fn a_file_of_this_host_that_was_mapped_shared_is_mapped_shared() {
    let mut desc = descriptor();
    desc.vmas = vec![vma(0, 1, 3, VmaKind::Shared, 0), vma(1, 1, 3, VmaKind::Shared, 0)];
    desc.page_table = PageTable::new([run(0, 1, owned(0)), run(1, 1, owned(1))], PAGE).unwrap();
    let range = desc.vmas[1].range;
    let parts = vec![SharedPart { range, object: 0, offset: 0x5000, file: None }];
    let here = SharedHere { file: tempfile::tempfile().unwrap(), parts };
    // Behind the image, a file and what stands in for the program.
    let fds = TemplateFds::number(&[2]).with_stand_in().with_shared(&[here]);
    let text = compiled(&desc, &fds).to_string();
    for line in [
        "mmap(0x1000000000, 0x1000, 3, 0x100002, 4, 0)",
        "mmap(0x1000001000, 0x1000, 3, 0x100001, 7, 0x5000)",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn what_was_asked_of_the_kernel_is_asked_again() {
    let mut desc = descriptor();
    let count = |desc: &Descriptor, what: &str| {
        compiled(desc, &TemplateFds::number(&[])).to_string().matches(what).count()
    };
    let steps = ["prctl(67, 1", "prctl(57, 1", "prctl(53, 0, 8", "prctl(53, 2, 4"];
    let counts = |desc: &Descriptor| steps.map(|step| count(desc, step));
    assert_eq!((counts(&desc), count(&desc, "prctl(53")), ([0; 4], 0));
    desc.treatment = Treatment { merges_memory: true, is_io_flusher: true, speculation: [8, 0, 4] };
    assert_eq!((counts(&desc), count(&desc, "prctl(53")), ([1; 4], 2));
}

#[test]
fn neighbours_that_one_mapping_can_show_are_one() {
    let vmas = vec![vma(0, 1, 3, VmaKind::Anonymous, 0), vma(1, 1, 3, VmaKind::Shared, 0)];
    let runs = vec![run(0, 1, owned(0)), run(1, 1, owned(1))];
    let expected = ["mmap(0x1000000000, 0x2000, 3, 0x100002, 4, 0) = 0x1000000000"];
    assert_eq!(mappings(vmas, runs), expected);
}

#[test]
fn the_vdso_moves_by_way_of_the_parking() {
    let mut desc = descriptor();
    desc.vmas = vec![vma(0, 4, 1, VmaKind::Vvar, 0), vma(4, 2, 5, VmaKind::Vdso, 0)];
    let host = |vdso_pages: u64| HostFacts {
        special: vec![
            (VmaKind::Vvar, SeedRange::new(0x7000, 0xb000)),
            (VmaKind::Vdso, SeedRange::new(0xb000, 0xb000 + vdso_pages * PAGE)),
        ],
        ..HostFacts::default()
    };
    let fds = TemplateFds::number(&[]);
    let compiled =
        |vdso: &Vdso, host| compile(&desc, &offset_of, &placement(), &[], vdso, &host, &fds);
    let text = compiled(&Vdso::Moved, host(2)).unwrap().to_string();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("mremap")).collect();
    let expected = [
        "   2 mremap(0x7000, 0x4000, 0x4000, 3, 0x600000fba000) = 0x600000fba000",
        "   3 mremap(0xb000, 0x2000, 0x2000, 3, 0x600000fbe000) = 0x600000fbe000",
        "   6 mremap(0x600000fba000, 0x4000, 0x4000, 3, 0x1000000000) = 0x1000000000",
        "   7 mremap(0x600000fbe000, 0x2000, 0x2000, 3, 0x1000004000) = 0x1000004000",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn another_kernels_vdso_leads_to_its_hosts() {
    let mut desc = descriptor();
    desc.vmas = vec![vma(0, 4, 1, VmaKind::Vvar, 0), vma(4, 2, 5, VmaKind::Vdso, 0)];
    let special = vec![
        (VmaKind::Vvar, SeedRange::new(0x7000, 0xa000)),
        (VmaKind::Vdso, SeedRange::new(0xb000, 0xc000)),
    ];
    let host = HostFacts { special, ..HostFacts::default() };
    let proxy = Proxy {
        host: SeedAddr(0x50_0000_0000),
        seed: SeedRange::new(MAPS + 4 * PAGE, MAPS + 6 * PAGE),
        entries: vec![(MAPS + 4 * PAGE + 0x700, vec![0xff; 14])],
    };
    let fds = TemplateFds::number(&[]);
    let vdso = Vdso::Proxied(proxy);
    let program = compile(&desc, &offset_of, &placement(), &[], &vdso, &host, &fds).unwrap();
    let text = program.to_string();
    let place = |line: &&str| {
        line.contains("mremap") || line.contains("0x10000047") || line.contains("0x1000004000")
    };
    let lines: Vec<&str> = text.lines().filter(place).collect();
    let expected = [
        "   2 mremap(0x7000, 0x3000, 0x3000, 3, 0x600000fba000) = 0x600000fba000",
        "   3 mremap(0xb000, 0x1000, 0x1000, 3, 0x600000fbd000) = 0x600000fbd000",
        "   6 mmap(0x1000004000, 0x2000, 3, 0x100002, 4, 0x4000) = 0x1000004000",
        "   7 store 14 bytes at 0x1000004700",
        "   8 mprotect(0x1000004000, 0x2000, 5)",
        "   9 mremap(0x600000fba000, 0x3000, 0x3000, 3, 0x5000000000) = 0x5000000000",
        "  10 mremap(0x600000fbd000, 0x1000, 0x1000, 3, 0x5000004000) = 0x5000004000",
    ];
    assert_eq!(lines[..], expected, "{text}");
}

#[test]
fn a_program_that_is_not_here_has_a_stand_in() {
    let mut desc = descriptor();
    desc.process.exe = "/bin/x".to_owned();
    let file =
        |path: &str| MappedFile { path: path.to_owned(), size: 1, mtime_ns: 0, dev_ino: (1, 2) };
    desc.files = vec![file("/lib/y"), file("/bin/x")];
    let exes = |fds: TemplateFds| -> Vec<u32> {
        let exe = |op: &Op| match op {
            Op::Syscall { name: "prctl", args, .. } => match &args[2] {
                crate::resume::program::Arg::Bytes(map) if map.len() == 104 => {
                    map.last_chunk().map(|exe| u32::from_le_bytes(*exe))
                }
                _ => None,
            },
            _ => None,
        };
        compiled(&desc, &fds).ops.iter().filter_map(exe).collect()
    };
    let fds = |files: &[u16]| TemplateFds::number(files);
    assert_eq!(exes(fds(&[])), [u32::MAX]);
    assert_eq!(exes(fds(&[0]).with_stand_in()), [u32::MAX, COMMAND_FD + 3]);
    assert_eq!(exes(fds(&[0, 1])), [u32::MAX, COMMAND_FD + 3]);
}

#[test]
fn a_root_is_changed_behind_all_that_needs_the_hosts() {
    let mut desc = descriptor();
    desc.state.core_filter = Some(1);
    desc.root = Some("/jail".to_owned());
    let text = compiled(&desc, &TemplateFds::default()).to_string();
    let at = |step: &str| text.rfind(step).unwrap_or_else(|| panic!("no {step}: {text}"));
    assert!(at("write(") < at("chroot(") && at("chroot(") < at("chdir("), "{text}");
    assert_eq!(text.matches("chdir(").count(), 2, "{text}");
}

#[test]
fn process_state_is_set_where_it_differs() {
    let mut desc = descriptor();
    desc.process.signal_actions = vec![SignalAction::default(); 64];
    let action = SignalAction { handler: 0x1234, flags: 4, restorer: 5, mask: 6 };
    for signal in [1, 9, 19, 64] {
        desc.process.signal_actions[signal - 1] = action;
    }
    desc.process.limits = vec![(5, 9), (100, 100), (7, 7)];
    let host =
        HostFacts { limits: vec![(5, 10), (20, 50), (u64::MAX, u64::MAX)], ..HostFacts::default() };
    let program = compile(
        &desc,
        &offset_of,
        &placement(),
        &[],
        &Vdso::Moved,
        &host,
        &TemplateFds::number(&[]),
    )
    .unwrap();
    let text = program.to_string();
    let signals: Vec<&str> = text.lines().filter(|line| line.contains("rt_sigaction")).collect();
    assert_eq!(
        signals,
        ["  10 rt_sigaction(1, <32 bytes>, 0, 8)", "  11 rt_sigaction(64, <32 bytes>, 0, 8)"]
    );
    assert_eq!(text.matches("prlimit64").count(), 3, "{text}");
    let clamped = [50u64, 50].map(u64::to_le_bytes).concat();
    let second = program.ops.iter().find(|op| op.to_string().starts_with("prlimit64(0, 1,"));
    let Some(Op::Syscall { args, .. }) = second else { panic!("{text}") };
    assert_eq!(args[2], crate::resume::program::Arg::Bytes(clamped));
}

#[test]
fn what_cannot_be_restored_is_refused() {
    let fds = TemplateFds::number(&[]);
    let compile = |desc: &Descriptor| {
        compile(desc, &offset_of, &placement(), &[], &Vdso::Moved, &HostFacts::default(), &fds)
    };
    let mut desc = descriptor();
    desc.threads.push(Thread::default());
    assert_eq!(compile(&desc), Err(CompileError::Threads(2)));

    let pages = MAX_STACK_COPY / PAGE;
    for (extra, refused) in [(0, false), (1, true)] {
        let mut desc = descriptor();
        desc.vmas = vec![vma(0, pages + extra, 3, VmaKind::Stack, 0)];
        let runs = [run(0, pages + extra, owned(0))];
        desc.page_table = PageTable::new(runs, PAGE).unwrap();
        let error = CompileError::StackTooLarge((pages + extra) * PAGE);
        assert_eq!(compile(&desc).err(), refused.then_some(error));
    }

    let mut desc = descriptor();
    let range = SeedRange::new(PAGE, 2 * PAGE);
    desc.vmas = vec![Vma { range, ..vma(0, 1, 3, VmaKind::Anonymous, 0) }];
    desc.page_table = PageTable::new([Run { range, source: owned(0) }], PAGE).unwrap();
    assert_eq!(compile(&desc), Err(CompileError::NotInImage(SeedAddr(PAGE))));
}

#[test]
fn the_tail_ends_in_the_seeds_own_code() {
    let mut desc = descriptor();
    desc.vmas = vec![vma(0, 1, 3, VmaKind::Anonymous, VmaFlags::DONT_FORK)];
    desc.threads[0].robust_list = (SeedAddr(0x88), 24);
    desc.threads[0].rseq = Some(Rseq { addr: SeedAddr(0x99), len: 32, signature: 5 });
    let facts = TailFacts::of(&desc, &HostFacts::default()).unwrap();
    let tail =
        facts.tail(&PLACE, &[0; crate::resume::child::INFO_LEN], &[], &Own::default()).to_string();
    let expected = "
   0 prctl(1, 9, 0, 0, 0)
   1 getppid() = 0x4d
   2 setsid()
   3 set_robust_list(136, 24)
   4 dup2(4, 0) = 0x0
   5 dup2(5, 1) = 0x1
   6 dup2(6, 2) = 0x2
   7 store 80 bytes at 0x70000040
   8 rseq(153, 32, 0, 5)
   9 store 0 bytes at 0x0
  10 store 0 bytes at 0x0
  11 store 0 bytes at 0x0
  12 store 0 bytes at 0x0
  13 store 0 bytes at 0x0
  14 madvise(0x1000000000, 0x1000, 10)
  15 close_range(3, 0xffffffff)
  16 rt_sigreturn with rsp = 0x70000010
";
    assert_eq!(tail, expected.trim_start_matches('\n'));
}

#[test]
fn an_argv_that_is_given_has_memory_of_its_own_and_as_many_steps() {
    let steps = |argv: &[u8], room| {
        let facts = TailFacts::of(&descriptor(), &HostFacts::default()).unwrap();
        let own = Own { argv, ..Own::default() };
        let info = [0; crate::resume::child::INFO_LEN];
        let tail = facts.with_room_for_argv(room).tail(&PLACE, &info, &[], &own);
        (tail.ops.len(), tail.to_string())
    };
    let (len, none) = steps(b"", Some(SeedAddr(0x5000)));
    let (len_given, given) = steps(b"a\0b\0", Some(SeedAddr(0x5000)));
    assert_eq!(len, len_given);
    for step in
        ["mmap(0x5000, 4, 3, 0x100022", "store 4 bytes at 0x5000", "prctl(35, 14, <104 bytes>, 104"]
    {
        assert!(given.contains(step) && !none.contains(step), "{step}: {given}");
    }
    assert_eq!(steps(b"a\0", None), (len, none), "its mail is refused before");
}

#[test]
fn timers_of_a_whole_process_run_on() {
    let mut desc = descriptor();
    desc.process.timers = vec![[0; 4], [0, 5, 1, 2], [1, 0, 0, 3]];
    let timers = |desc: &Descriptor, place| {
        let info = [0; crate::resume::child::INFO_LEN];
        let tail = TailFacts::of(desc, &HostFacts::default()).unwrap().tail(
            &place,
            &info,
            &[],
            &Own::default(),
        );
        let is_timer = |op: &Op| op.to_string().starts_with("setitimer");
        tail.ops.into_iter().filter(is_timer).collect::<Vec<_>>()
    };
    assert_eq!(timers(&desc, PLACE), []);
    desc.whole = Some(Whole { gate: SeedAddr(0x7000_0050), sched: vec![Sched::default()] });
    let running = timers(&desc, PLACE);
    let set = |which, timer| super::super::calls::setitimer(which, timer);
    assert_eq!(running, [set(1, [0, 5, 1, 2]), set(2, [1, 0, 0, 3])]);
    // As many steps in a rehearsal, which lets none run.
    let rehearsed = timers(&desc, TailPlace { runs_timers: false, ..PLACE });
    assert_eq!(rehearsed, [set(1, [0; 4]), set(2, [0; 4])]);
}

/// What a tail whose seed had these descriptors open does with numbers.
fn last_steps(open: &[u32]) -> Vec<String> {
    let mut desc = descriptor();
    let file = |fd: &u32| OpenFile { fd: *fd, flags: 0, position: 0, link: String::new() };
    desc.open_files = open.iter().map(file).collect();
    let facts = TailFacts::of(&desc, &HostFacts::default()).unwrap();
    let tail = facts.tail(&PLACE, &[0; crate::resume::child::INFO_LEN], &[], &Own::default());
    let steps = tail.ops.iter().map(Op::to_string);
    steps.skip_while(|step| !step.starts_with("close_range") && !step.starts_with("dup3")).collect()
}

#[test]
fn numbers_that_the_seed_had_open_are_taken() {
    let back = "rt_sigreturn with rsp = 0x70000010";
    assert_eq!(last_steps(&[0, 1, 2]), ["close_range(3, 0xffffffff)", back]);
    let [nothing, close] = ["dup3(7, 3, 0x80000) = 0x3", "close_range(4, 0xffffffff)"];
    let take = "dup3(3, 3-5 9, O_CLOEXEC) (may fail)";
    assert_eq!(last_steps(&[9, 0, 4, 3, 5]), [nothing, close, take, back]);
    let take = "dup3(3, 5, O_CLOEXEC) (may fail)";
    assert_eq!(last_steps(&[5]), [nothing, close, take, "close(3)", back]);
}

#[test]
fn ranges_of_numbers_have_a_limit_and_cover_all_the_same() {
    let limit = u32::try_from(crate::resume::child::MAX_NUMBER_RANGES).unwrap();
    for (count, last) in [(limit, format!(" {}", 2 * limit + 2)), (limit + 1, "-".to_owned())] {
        let open: Vec<u32> = (0..count).map(|at| 4 + 2 * at).collect();
        let steps = last_steps(&open);
        let numbers = steps[2].split(", ").nth(1).unwrap();
        assert_eq!(numbers.split(' ').count(), limit as usize);
        assert!(numbers.starts_with("4 6 8 ") && numbers.contains(&last), "{count}");
        assert!(numbers.ends_with(&open[open.len() - 1].to_string()), "{count}");
    }
}

/// A whole process of three threads, the first of which has called prepare.
fn whole() -> Descriptor {
    let mut desc = descriptor();
    desc.process.parent_pid = 7;
    let thread = |tid: u32, frame: u64| Thread {
        tid,
        frame: SeedAddr(frame),
        tid_address: SeedAddr(0x7000_0100),
        fs_base: 0x7000_0200,
        robust_list: (SeedAddr(0x88), 24),
        rseq: Some(Rseq { addr: SeedAddr(0x99), len: 32, signature: 5 }),
        alt_stack: (SeedAddr(0x7000_0300), 0, 8192),
        name: b"worker".to_vec(),
        ..Thread::default()
    };
    desc.threads.extend([thread(8, 0x7000_1000), thread(9, 0x7000_2000)]);
    desc.whole = Some(Whole { gate: SeedAddr(0x7000_0400), sched: vec![Sched::default(); 3] });
    desc
}

fn steps(desc: &Descriptor, is_ahead: bool) -> Vec<String> {
    let place = TailPlace { is_ahead, ..PLACE };
    let info = [0; crate::resume::child::INFO_LEN];
    let tail = TailFacts::of(desc, &HostFacts::default()).unwrap().tail(
        &place,
        &info,
        &[],
        &Own::default(),
    );
    assert_eq!(tail.encode(0).len(), tail.encoded_len());
    tail.ops.iter().map(Op::to_string).collect()
}

#[test]
fn further_threads_are_made_once_and_wait_at_the_gate() {
    let desc = whole();
    let tail = steps(&desc, false);
    assert_eq!(tail[1], "getppid() = 77, or 0 in a pid namespace");
    assert_eq!(tail[3], "clone3 of 2 threads from number 0 on, until each waits");
    assert_eq!(tail.last().unwrap(), "rt_sigreturn with rsp = 0x70000010");
    // A step has one number, wherever the tail runs.
    let ahead = steps(&desc, true);
    assert_eq!(ahead[3], "clone3 of 0 threads from number 0 on");
    assert_eq!((&ahead[..2], &ahead[4..]), (&tail[..2], &tail[4..]));
    let further = TailFacts::of(&desc, &HostFacts::default()).unwrap().further().to_string();
    let expected = "
thread 8 (worker), fs 0x70000200:
   0 prctl(15, <7 bytes>, 0, 0, 0)
   1 arch_prctl(0x1001, 0)
   2 sigaltstack(<24 bytes>)
   3 set_robust_list(136, 24)
   4 rseq(153, 32, 0, 5)
   5 futex wait while 0x70000400 is 0
   6 rt_sigreturn with rsp = 0x70001000
thread 9 (worker), fs 0x70000200:
";
    assert!(further.starts_with(expected.trim_start_matches('\n')), "{further}");
}

#[test]
fn what_can_be_done_before_the_command_comes_is_done_ahead() {
    let mut desc = whole();
    desc.carried = Some(crate::descriptor::CarriedFiles::new(Vec::new()).unwrap());
    desc.vmas = vec![vma(0, 1, 3, VmaKind::Anonymous, VmaFlags::DONT_FORK)];
    let (tail, in_ahead) = (steps(&desc, false), steps(&desc, true));
    // The table of descriptors grows while nobody shares it.
    let making = [
        "dup3(3, 67, 0x80000) = 0x43",
        "close(67)",
        "clone3 of 2 threads from number 0 on, until each waits",
    ];
    assert_eq!(tail[3..6], making);
    let is_mark = |step: &&String| step.starts_with("madvise") && step.contains(", 10)");
    let marks = |steps: &[String]| steps.iter().filter(is_mark).count();
    let ahead: Vec<String> = TailFacts::of(&desc, &HostFacts::default())
        .unwrap()
        .ahead(PLACE.base)
        .iter()
        .map(Op::to_string)
        .collect();
    assert_eq!((marks(&tail), marks(&in_ahead), marks(&ahead)), (1, 0, 1), "{tail:?} {ahead:?}");
    assert_eq!(ahead[2..], making);
    // Who gets a session is put behind others that share its processor.
    let sessions = [&ahead, &tail, &in_ahead]
        .map(|steps| steps.iter().filter(|step| *step == "setsid()").count());
    assert_eq!((ahead[0].as_str(), sessions), ("setsid()", [1, 1, 0]));
    let before = tail.iter().position(|step| is_mark(&step)).unwrap();
    assert_eq!(in_ahead[6..before], tail[6..before]);
}

/// The process's first thread is the child's, whoever has called prepare.
#[test]
fn a_caller_that_is_not_the_first_thread_is_made_last_and_waits_for_nobody() {
    let mut desc = whole();
    desc.threads.swap(0, 2);
    let tail = steps(&desc, false);
    assert_eq!(tail[3], "clone3 of 1 threads from number 0 on, until each waits");
    let last = &tail[tail.len() - 3..];
    assert_eq!(last[0], "clone3 of 1 threads from number 1 on");
    assert_eq!(last[1], "futex wait while 0x70000400 is 0");
    assert_eq!(last[2], "rt_sigreturn with rsp = 0x70000010");
    let further = TailFacts::of(&desc, &HostFacts::default()).unwrap().further().to_string();
    let (other, caller) = further.split_once("thread 9 ").unwrap();
    assert!(other.contains("thread 8 ") && other.contains("futex wait"), "{further}");
    assert!(!caller.contains("futex wait") && caller.contains("0x70002000"), "{further}");
}

#[test]
fn threads_are_scheduled_as_they_were_if_that_is_anything_special() {
    let mut desc = whole();
    desc.whole.as_mut().unwrap().sched[0].nice = -5;
    assert_eq!(steps(&desc, false)[4], "sched_setattr(0, <48 bytes>, 0)");
    let further = TailFacts::of(&desc, &HostFacts::default()).unwrap().further().to_string();
    // The first thread's class is what its clones have, but for this.
    assert_eq!(further.matches("sched_setattr").count(), 2, "{further}");
}

/// From below, the caller could not go back to where it was.
#[test]
fn a_first_thread_that_is_lowered_makes_the_caller_before() {
    let lowered = [Sched { nice: 5, ..Sched::default() }, Sched { policy: 5, ..Sched::default() }];
    let raised = [
        Sched { nice: -5, ..Sched::default() },
        Sched { policy: 1, priority: 1, ..Sched::default() },
    ];
    for (sched, is_late) in lowered.map(|s| (s, true)).into_iter().chain(raised.map(|s| (s, false)))
    {
        let mut desc = whole();
        desc.threads.swap(0, 2);
        desc.whole.as_mut().unwrap().sched[2] = sched;
        let tail = steps(&desc, false);
        let step = tail.iter().position(|step| step.starts_with("sched_setattr")).unwrap();
        let caller = tail.iter().position(|step| step.contains("1 threads from number 1")).unwrap();
        assert_eq!(step == caller + 1, is_late, "{tail:?}");
        assert_eq!(tail[step].ends_with("(may fail)"), is_late, "{tail:?}");
        assert_eq!(tail[4].starts_with("sched_setattr"), !is_late, "{tail:?}");
    }
}

#[test]
fn the_largest_table_of_threads_fits_the_region() {
    use crate::resume::abi::{MAX_FURTHER_THREADS, TABLE_LEN};
    let mut desc = whole();
    let last = desc.threads[2].clone();
    desc.threads.resize(MAX_THREADS, Thread { name: b"fifteen letters".to_vec(), ..last });
    let special = Sched { policy: 1, priority: 1, ..Sched::default() };
    desc.whole.as_mut().unwrap().sched = vec![special; MAX_THREADS];
    let facts = TailFacts::of(&desc, &HostFacts::default()).unwrap();
    assert_eq!(desc.threads.len() as u64, MAX_FURTHER_THREADS + 1);
    assert!((facts.further().encode(PLACE.base).len() as u64) < TABLE_LEN);
}

/// Whoever has many threads and many groups makes no table that is their product.
#[test]
fn credentials_of_many_threads_are_told_once() {
    use crate::resume::abi::{TABLE, TABLE_LEN};
    let mut desc = whole();
    let last = desc.threads[2].clone();
    desc.threads.resize(MAX_THREADS, last);
    desc.whole.as_mut().unwrap().sched = vec![Sched::default(); MAX_THREADS];
    let plain = TailFacts::of(&desc, &HostFacts::default()).unwrap().further().encode(PLACE.base);
    let supplementary: Vec<u32> = (0..65_536).collect();
    desc.credentials.groups = Some(Groups { ids: [7; 4], supplementary: supplementary.clone() });
    let mut host = HostFacts::default();
    host.credentials.rights.effective = u64::MAX;
    let table = TailFacts::of(&desc, &host).unwrap().further().encode(PLACE.base);
    assert!((table.len() as u64) < TABLE_LEN, "{}", table.len());
    let list: Vec<u8> = supplementary.iter().flat_map(|group| group.to_le_bytes()).collect();
    let at = table.windows(list.len()).rposition(|bytes| bytes == list).unwrap();
    // One op more for each that waits, and behind all programs the steps themselves, whose addresses are in them.
    let steps = plain.len() + (MAX_THREADS - 1) * 64;
    assert!(at > steps && at < steps + 10 * 64, "{at} {steps}");
    let from = PLACE.base + TABLE + steps as u64;
    let op = [&31u32.to_le_bytes()[..], &0u32.to_le_bytes(), &from.to_le_bytes()].concat();
    let found = table[..steps].windows(op.len()).filter(|bytes| *bytes == op).count();
    assert_eq!(found, MAX_THREADS - 1);
}

#[test]
fn ids_that_a_namespace_cannot_give_are_told() {
    let own = |desc: &Descriptor, pid_max| {
        TailFacts::of(desc, &HostFacts::default()).unwrap().own_pid(pid_max)
    };
    let mut desc = whole();
    assert_eq!(own(&desc, 10), Ok(Some(7)));
    assert!(own(&desc, 9).unwrap_err().contains("thread 9"));
    (desc.threads[0].tid, desc.process.parent_pid) = (1, 1);
    assert!(own(&desc, 10).unwrap_err().contains("init"));
    assert_eq!(own(&descriptor(), 10), Ok(None));
}

/// What is as in any process is no step, and the rest is one each, in this order.
#[test]
fn state_is_restored_where_it_is_none_of_any_process() {
    let steps = |desc: &Descriptor| {
        let (host, fds) = (HostFacts::default(), TemplateFds::number(&[]));
        let program =
            compile(desc, &offset_of, &placement(), &[], &Vdso::Moved, &host, &fds).unwrap();
        let text = program.to_string();
        let behind = text.split_once("(may fail)\n  14").unwrap().1.to_owned();
        let is_number = |letter: char| letter == ' ' || letter.is_ascii_digit();
        let lines = behind.lines().map(|line| line.trim_start_matches(is_number).to_owned());
        lines.collect::<Vec<_>>()
    };
    let mut desc = descriptor();
    // But for this one, which the agent's own may differ from.
    let oom_score = [
        "= open(<25 bytes>, 0x80001) (may fail)",
        "write(0, <1 bytes>, 1) (may fail)",
        "dup2(1, 0) = 0x0",
    ];
    let plain = steps(&desc);
    assert_eq!(plain[..3], oom_score);
    assert_eq!(plain.len(), 4, "{plain:?}");
    let tiles = ThreadState { io_priority: 0x4003, timer_slack_ns: 9, has_tiles: true };
    desc.state = State {
        is_undumpable: true,
        no_new_privs: true,
        thp_disable: 3,
        deny_write_execute: 1,
        // Bit 0 asks, and is no registration.
        membarrier: 1 << 4 | 1,
        vector_permits: 1 << 18,
        threads: vec![tiles],
        ..State::default()
    };
    let expected = [
        "arch_prctl(0x1023, 18)",
        "membarrier(16, 0, 0)",
        "prctl(41, 1, 2, 0, 0) (may fail)",
        oom_score[0],
        oom_score[1],
        oom_score[2],
        "ioprio_set(1, 0, 0x4003) (may fail)",
        "prctl(29, 9, 0, 0, 0)",
        "prctl(65, 1, 0, 0, 0)",
        "prctl(38, 1, 0, 0, 0)",
        "prctl(4, 0, 0, 0, 0)",
    ];
    assert_eq!(steps(&desc)[..11], expected);
    desc.state =
        State { oom_score: -7, core_filter: Some(0x7f), keeps_capabilities: true, ..desc.state };
    let expected = [
        "prctl(41, 1, 2, 0, 0) (may fail)",
        "prctl(8, 1, 0, 0, 0) (may fail)",
        "= open(<27 bytes>, 0x80001) (may fail)",
        "write(0, <4 bytes>, 4) (may fail)",
        "dup2(1, 0) = 0x0",
        "= open(<25 bytes>, 0x80001) (may fail)",
        "write(0, <2 bytes>, 2) (may fail)",
    ];
    assert_eq!(steps(&desc)[2..9], expected);
    desc.state.sched = Sched { policy: 3, nice: 7, ..Sched::default() };
    let info = [0; crate::resume::child::INFO_LEN];
    let tail = TailFacts::of(&desc, &HostFacts::default())
        .unwrap()
        .tail(&PLACE, &info, &[], &Own::default())
        .to_string();
    for step in ["sched_setattr(0, <48 bytes>, 0)", "tilezero"] {
        assert!(tail.contains(step), "{step}: {tail}");
    }
}

#[test]
fn time_passes_for_an_interval_timer_and_not_for_cpu_time() {
    let mut desc = whole();
    desc.process.timers = vec![[1, 0, 9, 500_000], [0, 0, 9, 0], [0; 4]];
    let timers = |passed_ns: u64| -> Vec<Vec<u64>> {
        let place = TailPlace { passed_ns, ..PLACE };
        let info = [0; crate::resume::child::INFO_LEN];
        let tail = TailFacts::of(&desc, &HostFacts::default()).unwrap().tail(
            &place,
            &info,
            &[],
            &Own::default(),
        );
        let timer = |op: &Op| match op {
            Op::Syscall { name: "setitimer", args, .. } => match &args[1] {
                crate::resume::program::Arg::Bytes(bytes) => Some(
                    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect(),
                ),
                _ => None,
            },
            _ => None,
        };
        tail.ops.iter().filter_map(timer).collect()
    };
    assert_eq!(timers(0), [vec![1, 0, 9, 500_000], vec![0, 0, 9, 0]]);
    assert_eq!(timers(2_600_000_000), [vec![1, 0, 6, 900_000], vec![0, 0, 9, 0]]);
    assert_eq!(timers(20_000_000_000), [vec![1, 0, 0, 1], vec![0, 0, 9, 0]], "it fires at once");
}
