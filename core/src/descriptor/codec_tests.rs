use proptest::prelude::*;

use super::*;
use crate::descriptor::{
    ArenaMap, Clocks, DcTarget, Export, FileKind, Groups, MAX_PENDING, Number, Owner, RcEndpoint,
    Rights, Rseq, Sched, SharedFile, SiteKind, Slab, ThreadState, VmaFlags, VmaKind, WarmSet,
    Whole,
};
use crate::id::{DcKey, ReadKey};

/// A small descriptor with one of everything, every field fixed: the golden bytes are made of it.
pub(crate) fn sample() -> Descriptor {
    let owner = OwnerIndex(0);
    let runs = [
        Run {
            range: SeedRange::new(0x40_0000, 0x40_3000),
            source: Source::File { file: 0, offset: 0x1000, owner, addr: SeedAddr(0x40_0000) },
        },
        Run { range: SeedRange::new(0x50_0000, 0x50_1000), source: Source::Zero },
        Run {
            range: SeedRange::new(0x50_1000, 0x50_9000),
            source: Source::Owner { owner, addr: SeedAddr(0x50_1000) },
        },
        Run {
            range: SeedRange::new(0x7fff_0000_0000, 0x7fff_0000_2000),
            source: Source::Owner { owner, addr: SeedAddr(0x1000) },
        },
    ];
    let vma = |start, end, prot, kind| Vma {
        range: SeedRange::new(start, end),
        prot,
        kind,
        flags: VmaFlags(VmaFlags::DONT_FORK),
    };
    Descriptor {
        seed: SeedId(0x0123_4567_89ab_cdef),
        generation: 1,
        needs: HostNeeds {
            machine: 62,
            cpu_features: vec![1, 0x8000_0000],
            xcr0: 7,
            xsave_size: 832,
            vdso: [3; 32],
            kernel: "6.1.0".to_owned(),
        },
        page_shift: 12,
        owners: vec![Owner {
            seed: SeedId(0x0123_4567_89ab_cdef),
            epoch: 1,
            exports: vec![Export::Tcp {
                agent: Some("host-a:7370".to_owned()),
                read_key: ReadKey([9; 16]),
            }],
            arena: None,
        }],
        vmas: vec![
            vma(0x40_0000, 0x40_3000, 5, VmaKind::File { file: 0, offset: 0x1000 }),
            vma(0x50_0000, 0x51_0000, 3, VmaKind::Anonymous),
            vma(0x7fff_0000_0000, 0x7fff_0000_2000, 3, VmaKind::Stack),
        ],
        page_table: PageTable::new(runs, 4096).unwrap(),
        files: vec![MappedFile {
            path: "/usr/bin/true".to_owned(),
            size: 12345,
            mtime_ns: -1,
            dev_ino: (1, 2),
        }],
        threads: vec![Thread { tid: 77, frame: SeedAddr(0x7fff_0000_1000), ..Thread::default() }],
        process: Process { cwd: "/".to_owned(), ..Process::default() },
        state: State::default(),
        pending: Vec::new(),
        credentials: OwnCredentials::default(),
        root: None,
        open_files: vec![OpenFile { fd: 1, flags: 0o2, position: 5, link: "/dev/null".to_owned() }],
        carried: None,
        losses: Losses::default(),
        shared: Vec::new(),
        shared_files: Vec::new(),
        treatment: Treatment::default(),
        sites: vec![CallSite { addr: SeedAddr(0x40_0123), kind: SiteKind::Madvise }],
        resume_area: ResumeArea { addr: SeedAddr(0x50_2000) },
        stub_place: None,
        marks: Marks::default(),
        warm: WarmSet::default(),
        whole: None,
    }
}

#[test]
fn a_descriptor_survives_its_bytes() {
    let descriptor = sample();
    assert_eq!(decode(&encode(&descriptor).unwrap()).unwrap(), descriptor);
}

/// The bytes of minor version 0 stay readable for ever, and what this version writes is what it wrote.
#[test]
fn golden_bytes_of_1_0() {
    let golden = include_bytes!("../../../tests/wire/descriptor-1.0.bin");
    assert_eq!(decode(golden).unwrap(), sample());
    assert_eq!(encode(&sample()).unwrap(), golden);
}

#[test]
fn a_warm_set_survives_and_needs_no_new_reader() {
    let mut descriptor = sample();
    let written = [SeedRange::new(0x50_1000, 0x50_2000)];
    descriptor.warm = WarmSet::new(&[SeedRange::new(0x40_0000, 0x40_2000)], &written);
    let bytes = encode(&descriptor).unwrap();
    assert_eq!(decode(&bytes).unwrap(), descriptor);
    let plain = encode(&sample()).unwrap();
    let [id, flags] =
        [0, 2].map(|at| u16::from_le_bytes([bytes[plain.len() + at], bytes[plain.len() + at + 1]]));
    assert_eq!((id, flags & CRITICAL), (section::WARM_SET, 0));
}

/// What is read is what is written: a place to tell losses at, without any, is in no descriptor.
#[test]
fn losses_without_any_are_none() {
    let mut bytes = encode(&sample()).unwrap();
    put(&mut bytes, section::LOSSES, &Losses { told_at: SeedAddr(0x2000), all: Vec::new() });
    let len = u32::try_from(bytes.len()).unwrap().to_le_bytes();
    bytes[16..20].copy_from_slice(&len);
    let crc = crc32fast::hash(&bytes[HEADER_LEN..]).to_le_bytes();
    bytes[20..24].copy_from_slice(&crc);
    assert_eq!(decode(&bytes).unwrap(), sample());
}

/// Whoever does not know what a child may not do must not run it.
#[test]
fn state_survives_and_is_critical() {
    let mut descriptor = sample();
    descriptor.state = State {
        frozen_at: Clocks { monotonic_ns: 7, boottime_ns: -8 },
        no_new_privs: true,
        threads: vec![ThreadState { io_priority: 3, ..ThreadState::default() }],
        ..State::default()
    };
    let bytes = encode(&descriptor).unwrap();
    assert_eq!(decode(&bytes).unwrap(), descriptor);
    let plain = encode(&sample()).unwrap();
    let [id, flags] =
        [0, 2].map(|at| u16::from_le_bytes([bytes[plain.len() + at], bytes[plain.len() + at + 1]]));
    assert_eq!((id, flags & CRITICAL), (section::STATE, CRITICAL));
    descriptor.state.threads.push(ThreadState::default());
    let refused = decode(&encode(&descriptor).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("one record for each thread"), "{refused}");
}

#[test]
fn pending_signals_survive_and_are_some_threads() {
    let with = |queues: &[(u32, u32)]| {
        let queue = |(tid, count): &(u32, u32)| PendingSignals {
            tid: *tid,
            at: SeedAddr(0x1000),
            count: *count,
        };
        let descriptor = Descriptor { pending: queues.iter().map(queue).collect(), ..sample() };
        (descriptor.clone(), decode(&encode(&descriptor).unwrap()))
    };
    let (tid, most) = (sample().threads[0].tid, u32::try_from(MAX_PENDING).unwrap());
    let (made, read) = with(&[(0, most - 1), (tid, 1)]);
    assert_eq!(read.unwrap(), made);
    for (bad, why) in [
        (&[(0, most), (tid, 1)][..], "more signals"),
        (&[(0, u32::MAX), (tid, u32::MAX)], "more signals"),
        (&[(tid, 1), (tid, 1)], "two queues"),
        (&[(tid + 1, 1)], "not there"),
    ] {
        assert!(with(bad).1.unwrap_err().to_string().contains(why), "{bad:?}");
    }
}

#[test]
fn a_root_survives_and_is_critical() {
    let mut descriptor = sample();
    descriptor.root = Some("/jail".to_owned());
    let bytes = encode(&descriptor).unwrap();
    assert_eq!(decode(&bytes).unwrap(), descriptor);
    let plain = encode(&sample()).unwrap();
    assert_eq!(bytes[plain.len()..], *b"\x17\0\x01\0\x06\0\0\0\x05/jail");
    for root in ["jail", "/ja\0il", ""] {
        descriptor.root = Some(root.to_owned());
        assert!(decode(&encode(&descriptor).unwrap()).is_err(), "{root:?}");
    }
}

#[test]
fn credentials_survive_and_are_critical() {
    let mut descriptor = sample();
    descriptor.credentials = OwnCredentials {
        users: Some([1, 2, 3, 4]),
        groups: Some(Groups { ids: [5, 6, 7, 8], supplementary: vec![9, 10] }),
        rights: Some(Rights { permitted: 3, effective: 1, secure_bits: 2, ..Rights::default() }),
    };
    let bytes = encode(&descriptor).unwrap();
    assert_eq!(decode(&bytes).unwrap(), descriptor);
    // For ever: the numbers in their order, each preceded by a 1 for "is there".
    let plain = encode(&sample()).unwrap();
    let golden = [
        21, 0, 1, 0, 20, 0, 0, 0, // section, critical, length
        1, 1, 2, 3, 4, // users
        1, 5, 6, 7, 8, 2, 9, 10, // groups, two supplementary ones
        1, 0, 3, 1, 0, 0,
        2, // inheritable, permitted, effective, bounding, ambient, secure bits
    ];
    assert_eq!(bytes[plain.len()..], golden[..]);
    let Some(rights) = &mut descriptor.credentials.rights else { unreachable!() };
    rights.effective = 4;
    let refused = decode(&encode(&descriptor).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("contradict"), "{refused}");
}

/// A whole process of two threads.
fn whole_sample() -> Descriptor {
    let mut descriptor = sample();
    descriptor.threads.push(Thread {
        tid: 78,
        frame: SeedAddr(0x50_3000),
        tid_address: SeedAddr(0x50_4990),
        fs_base: 0x50_46c0,
        gs_base: 0,
        robust_list: (SeedAddr(0x50_49a0), 24),
        rseq: Some(Rseq { addr: SeedAddr(0x50_4fa0), len: 32, signature: 0x5305_3053 }),
        alt_stack: (SeedAddr(0x50_5000), 0, 8192),
        name: b"worker".to_vec(),
    });
    let fifo = Sched { policy: 1, priority: 10, nice: 0, flags: 1 };
    let sched = vec![Sched { nice: -5, ..Sched::default() }, fifo];
    descriptor.whole = Some(Whole { gate: SeedAddr(0x50_2040), sched });
    descriptor
}

/// The same with the section that makes it a whole process.
#[test]
fn golden_bytes_of_1_0_with_all_threads() {
    let golden = include_bytes!("../../../tests/wire/descriptor-1.0-whole.bin");
    assert_eq!(decode(golden).unwrap(), whole_sample());
    assert_eq!(encode(&whole_sample()).unwrap(), golden);
}

/// Who does not know the section would run one thread of several.
#[test]
fn a_whole_process_is_not_for_readers_that_do_not_know_it() {
    let bytes = encode(&whole_sample()).unwrap();
    let at = bytes.windows(4).rposition(|word| word == [15, 0, 1, 0]).unwrap();
    let mut newer = bytes;
    newer[at] = 200;
    let crc = crc32fast::hash(&newer[HEADER_LEN..]).to_le_bytes();
    newer[20..24].copy_from_slice(&crc);
    assert_eq!(decode(&newer), Err(DescriptorError::UnknownCritical(200)));
}

#[test]
fn whole_processes_that_cannot_be_are_refused() {
    let refused = |change: &dyn Fn(&mut Descriptor)| {
        let mut descriptor = whole_sample();
        change(&mut descriptor);
        match decode(&encode(&descriptor).unwrap()).unwrap_err() {
            DescriptorError::Section { section: section::WHOLE, reason } => reason,
            other => panic!("{other}"),
        }
    };
    let whole =
        |change: fn(&mut Whole)| refused(&|descriptor| change(descriptor.whole.as_mut().unwrap()));
    assert!(refused(&|descriptor| descriptor.whole = None).contains("missing"));
    for (name, is_sound) in
        [(&b"fifteen letters"[..], true), (b"sixteen letters!", false), (b"a\0b", false)]
    {
        let mut descriptor = sample();
        descriptor.threads[0].name = name.to_vec();
        let decoded = decode(&encode(&descriptor).unwrap());
        assert_eq!(decoded.is_ok(), is_sound, "{decoded:?}");
    }
    assert!(whole(|whole| whole.sched.clear()).contains("each thread"));
    assert!(whole(|whole| whole.gate.0 += 2).contains("aligned"));
    let with = |threads: usize| {
        let mut descriptor = whole_sample();
        descriptor.threads.resize(threads, Thread::default());
        descriptor.whole.as_mut().unwrap().sched.resize(threads, Sched::default());
        decode(&encode(&descriptor).unwrap())
    };
    assert!(with(MAX_THREADS).is_ok());
    assert!(with(MAX_THREADS + 1).unwrap_err().to_string().contains("more threads"));
}

/// A descriptor that can be READ by every fabric.
fn rdma_sample() -> Descriptor {
    let mut descriptor = sample();
    let owner = &mut descriptor.owners[0];
    let target = DcTarget { gid: [0xfe; 16], lid: 7, dctn: 0xff_ffff, dc_key: DcKey([3; 8]) };
    let listener = "10.0.0.1:18515".parse().unwrap();
    let rc = Export::Rc(RcEndpoint::new("host-a:7370", listener));
    owner.exports.splice(0..0, [Export::Dc(target), rc]);
    owner.arena = Some(ArenaMap {
        extents: vec![SeedRange::new(0x40_0000, 0x40_3000), SeedRange::new(0x50_0000, 0x50_1000)],
        slabs: vec![Slab { rkey: 0xbeef, iova: 0x7f00_0000_0000, len: 16 << 20 }],
    });
    descriptor
}

/// The same with the section that RDMA exports stand in.
#[test]
fn golden_bytes_of_1_0_with_rdma_exports() {
    let golden = include_bytes!("../../../tests/wire/descriptor-1.0-rdma.bin");
    assert_eq!(decode(golden).unwrap(), rdma_sample());
    assert_eq!(encode(&rdma_sample()).unwrap(), golden);
}

#[test]
fn rdma_exports_survive_their_bytes_and_stand_in_front() {
    let descriptor = rdma_sample();
    let bytes = encode(&descriptor).unwrap();
    assert_eq!(decode(&bytes).unwrap(), descriptor);
    let text = format!("{:?}", descriptor.owners);
    assert!(
        text.contains("0xffffff") && !text.contains("48879") && !text.contains("[3, 3"),
        "{text}"
    );
    // Who does not know the section still has the page service.
    let at = bytes.windows(4).rposition(|word| word == [13, 0, 0, 0]).unwrap();
    let mut older = bytes;
    older[at] = 200;
    let crc = crc32fast::hash(&older[HEADER_LEN..]).to_le_bytes();
    older[20..24].copy_from_slice(&crc);
    assert_eq!(decode(&older).unwrap(), sample());
}

#[test]
fn rdma_exports_that_cannot_be_are_refused() {
    let refused = |change: fn(&mut Owner)| {
        let mut descriptor = rdma_sample();
        change(&mut descriptor.owners[0]);
        match decode(&encode(&descriptor).unwrap()).unwrap_err() {
            DescriptorError::Section { section: section::RDMA_EXPORTS, reason } => reason,
            other => panic!("{other}"),
        }
    };
    let wide = refused(|owner| {
        let Export::Dc(target) = &mut owner.exports[0] else { unreachable!() };
        target.dctn = 1 << 24;
    });
    assert_eq!(wide, "a dctn of 0x1000000; it has 24 bits");
    let changes: [fn(&mut ArenaMap); 4] = [
        |arena| arena.extents.swap(0, 1),
        |arena| arena.extents[1].end = arena.extents[1].start,
        |arena| arena.slabs[0].len = 0,
        |arena| arena.slabs[0].iova = u64::MAX,
    ];
    for change in changes {
        let mut descriptor = rdma_sample();
        change(descriptor.owners[0].arena.as_mut().unwrap());
        assert!(decode(&encode(&descriptor).unwrap()).is_err());
    }
}

#[test]
fn a_childs_seed_says_where_its_stub_lies() {
    let place = StubPlace {
        base: SeedAddr(0x6000_0000_0000),
        trampolines: vec![SeedAddr(0x41_0000)],
        trampoline_pages: vec![SeedRange::new(0x41_0000, 0x41_1000)],
    };
    let mut descriptor = Descriptor { stub_place: Some(place), ..sample() };
    assert_eq!(decode(&encode(&descriptor).unwrap()).unwrap(), descriptor);
    descriptor.sites.clear();
    assert!(decode(&encode(&descriptor).unwrap()).is_err());
}

#[test]
fn damage_is_named() {
    let good = encode(&sample()).unwrap();
    let seal = |mut bytes: Vec<u8>| {
        let crc = crc32fast::hash(&bytes[HEADER_LEN..]).to_le_bytes();
        bytes[20..24].copy_from_slice(&crc);
        let len = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        bytes[16..20].copy_from_slice(&len);
        bytes
    };
    for cut in 0..good.len() {
        let error = decode(&good[..cut]).unwrap_err();
        assert!(matches!(error, DescriptorError::Magic | DescriptorError::Length { .. }), "{cut}");
        if cut > HEADER_LEN {
            // A cut between two sections leaves a descriptor that lacks optional ones; it is another one.
            assert_ne!(decode(&seal(good[..cut].to_vec())).ok(), Some(sample()), "{cut}");
        }
    }
    let mut flipped = good.clone();
    flipped[HEADER_LEN + 40] ^= 1;
    assert_eq!(decode(&flipped), Err(DescriptorError::Checksum));
    let mut newer = good.clone();
    newer[10] = 1;
    assert_eq!(decode(&newer).as_ref(), Ok(&sample()), "a newer minor version");
    newer[8] = 2;
    newer[10] = 0;
    assert_eq!(decode(&newer), Err(DescriptorError::Version { major: 2, minor: 0 }));
    assert!(matches!(decode(&[0x4d; 8]), Err(DescriptorError::Magic)));
}

#[test]
fn the_size_limit_holds_at_the_limit_and_one_past_it() {
    let mut big = encode(&sample()).unwrap();
    big.resize(MAX_DESCRIPTOR_BYTES, 0);
    big[16..20].copy_from_slice(&u32::try_from(MAX_DESCRIPTOR_BYTES).unwrap().to_le_bytes());
    assert_eq!(decode(&big), Err(DescriptorError::Checksum));
    big.push(0);
    big[16..20].copy_from_slice(&u32::try_from(MAX_DESCRIPTOR_BYTES + 1).unwrap().to_le_bytes());
    assert_eq!(decode(&big), Err(DescriptorError::TooLong(MAX_DESCRIPTOR_BYTES + 1)));
}

#[test]
fn unknown_sections_pass_unless_critical() {
    for (flags, expected) in [(0u16, None), (1, Some(DescriptorError::UnknownCritical(900)))] {
        let mut bytes = encode(&sample()).unwrap();
        bytes.extend_from_slice(&900u16.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&2u32.to_le_bytes());
        bytes.extend_from_slice(&[1, 2]);
        let crc = crc32fast::hash(&bytes[HEADER_LEN..]).to_le_bytes();
        bytes[20..24].copy_from_slice(&crc);
        let len = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        bytes[16..20].copy_from_slice(&len);
        assert_eq!(decode(&bytes).err(), expected);
    }
}

proptest! {
    /// No bytes make the parser panic or take memory by their own say, even with a right checksum.
    #[test]
    fn hostile_bytes_are_errors_or_descriptors(flips in prop::collection::vec((24usize..2000, any::<u8>()), 1..8)) {
        let mut bytes = encode(&sample()).unwrap();
        for (at, value) in flips {
            let at = HEADER_LEN + at % (bytes.len() - HEADER_LEN);
            bytes[at] = value;
        }
        let crc = crc32fast::hash(&bytes[HEADER_LEN..]).to_le_bytes();
        bytes[20..24].copy_from_slice(&crc);
        if let Ok(descriptor) = decode(&bytes) {
            prop_assert!(encode(&descriptor).is_ok());
        }
    }

    #[test]
    fn page_tables_survive_their_bytes(gaps in prop::collection::vec((1u64..1000, 1u64..1000, 0u8..3, any::<u32>()), 0..200)) {
        let mut page = 0;
        let mut runs = Vec::new();
        for (gap, len, kind, at) in gaps {
            let start = page + gap;
            page = start + len;
            let (owner, addr) = (OwnerIndex(0), SeedAddr(u64::from(at) << 12));
            let source = match kind {
                0 => Source::Zero,
                1 => Source::Owner { owner, addr },
                _ => Source::File { file: 3, offset: u64::from(at) << 12, owner, addr },
            };
            runs.push(Run { range: SeedRange::new(start << 12, page << 12), source });
        }
        let table = PageTable::new(runs, 4096).unwrap();
        prop_assert_eq!(decode_page_table(&encode_page_table(&table, 12), 12).unwrap(), table);
    }
}

/// Two pages that are there and one that is not, of 2^`shift` bytes each.
fn of_pages(shift: u8) -> Descriptor {
    let page = 1u64 << shift;
    let range = SeedRange::new(4 * page, 7 * page);
    let there = SeedRange::new(4 * page, 6 * page);
    let source = Source::Owner { owner: OwnerIndex(0), addr: SeedAddr(9 * page) };
    let vma = Vma { range, prot: 3, kind: VmaKind::Anonymous, flags: VmaFlags::default() };
    Descriptor {
        page_shift: shift,
        vmas: vec![vma],
        page_table: PageTable::new([Run { range: there, source }], page).unwrap(),
        warm: WarmSet::default(),
        whole: None,
        sites: Vec::new(),
        stub_place: None,
        marks: Marks::default(),
        ..sample()
    }
}

/// The page's size is the header's, in each section that counts pages.
#[test]
fn pages_of_each_size_come_back() {
    for shift in [12, 14, 16] {
        let descriptor = of_pages(shift);
        let bytes = encode(&descriptor).unwrap();
        let back = decode(&bytes).unwrap();
        assert_eq!(back, descriptor);
        assert_eq!(back.page_size(), 1 << shift);
        assert_eq!(back.page_table.pages(back.page_size()), 2);
    }
}

#[test]
fn what_is_aligned_to_smaller_pages_alone_is_refused() {
    let mut descriptor = of_pages(14);
    let range = descriptor.vmas[0].range;
    descriptor.vmas[0].range = SeedRange::new(range.start.0 - 4096, range.end.0);
    let error = encode(&descriptor).and_then(|bytes| decode(&bytes)).unwrap_err().to_string();
    assert!(error.contains("unaligned"), "{error}");
}

/// A descriptor that carries one file of each kind.
pub(crate) fn files_sample() -> Descriptor {
    use crate::descriptor::carried::{EpollWatch, Listening, LostContent, NotCarried};
    let listening = Listening {
        domain: 2,
        socket_type: 1,
        protocol: 6,
        address: vec![2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        backlog: Some(511),
        reuse_address: true,
        reuse_port: false,
        v6_only: false,
        no_delay: true,
        keep_alive: false,
    };
    let pipe = |writes, other, content: &[u8]| FileKind::Pipe {
        writes,
        other,
        capacity: 65536,
        content: content.to_vec(),
    };
    let connection = |other, content: &[u8], lost| FileKind::Connection {
        socket_type: 1,
        other,
        content: content.to_vec(),
        lost,
    };
    let watch = EpollWatch { fd: 5, events: 0x8000_0001, data: u64::MAX };
    let path = "/tmp/x".to_owned();
    let kinds = vec![
        FileKind::Stdio { of: 1 },
        FileKind::Path { path, position: 17 },
        pipe(false, Some(3), b"in the pipe"),
        pipe(true, Some(2), b""),
        pipe(true, None, b""),
        connection(Some(6), b"there", None),
        connection(Some(5), b"", Some(LostContent::Descriptors)),
        connection(None, b"", None),
        FileKind::Socket {
            domain: 2,
            socket_type: 2,
            protocol: 17,
            connected_to: Some(vec![2, 0]),
        },
        FileKind::Listener(listening),
        FileKind::Event { count: 1 << 40, is_semaphore: true },
        FileKind::Epoll { watches: vec![watch] },
        FileKind::Timer { clock: 1, left_ns: 5, interval_ns: 6, ticks: 7 },
        FileKind::Signals { mask: 0x200 },
        FileKind::Inotify { watches: 2 },
        FileKind::Memory { name: "m".to_owned(), position: 1, content: vec![1, 2, 3], seals: 4 },
        FileKind::Closed(NotCarried::TooLarge),
    ];
    let number = |fd, close_on_exec| Number { fd, close_on_exec };
    let file = |(fd, kind)| CarriedFile {
        numbers: vec![number(fd, true), number(fd + 100, false)],
        flags: 0o4002,
        kind,
    };
    let files = (3u32..).zip(kinds).map(file).collect();
    Descriptor { carried: Some(CarriedFiles::new(files).unwrap()), ..sample() }
}

/// The same with the section that carried files stand in.
#[test]
fn golden_bytes_of_1_0_with_carried_files() {
    let golden = include_bytes!("../../../tests/wire/descriptor-1.0-files.bin");
    assert_eq!(decode(golden).unwrap(), files_sample());
    assert_eq!(encode(&files_sample()).unwrap(), golden);
}

#[test]
fn later_kinds_of_files_survive_and_are_what_they_can_be() {
    use crate::descriptor::carried::{EpollWatch, MAX_WATCH_NUMBER, PathWatch};
    let with = |kinds: Vec<FileKind>| {
        let file = |(fd, kind)| {
            let numbers = vec![Number { fd, close_on_exec: false }];
            CarriedFile { numbers, flags: 0, kind }
        };
        CarriedFiles::new((3u32..).zip(kinds).map(file).collect())
    };
    let packets = |other, content: &[u8], lengths: &[u32]| FileKind::Packets {
        other,
        capacity: 4096,
        content: content.to_vec(),
        lengths: lengths.to_vec(),
    };
    let writer = |other| FileKind::Pipe { writes: true, other, capacity: 4096, content: vec![] };
    let path = |number| PathWatch { number, mask: 0x100, path: "/a".to_owned() };
    let watching = |numbers: &[u32]| FileKind::Watching {
        watches: numbers.iter().copied().map(path).collect(),
        lost: 1,
        unread: 16,
    };
    let watch = |fd| EpollWatch { fd, events: 1, data: 2 };
    let epoll = |fd, by| FileKind::EpollOfOthers { watches: vec![(watch(fd), by)] };
    let sound = vec![
        packets(Some(1), b"onefour", &[3, 4]),
        writer(Some(0)),
        packets(None, b"", &[]),
        watching(&[1, MAX_WATCH_NUMBER]),
        epoll(9, 3),
    ];
    let descriptor = Descriptor { carried: Some(with(sound).unwrap()), ..sample() };
    assert_eq!(decode(&encode(&descriptor).unwrap()).unwrap(), descriptor);
    for bad in [
        vec![packets(Some(1), b"onefour", &[3, 3]), writer(Some(0))],
        vec![packets(Some(1), b"", &[0]), writer(Some(0))],
        vec![packets(None, &[0; 4097], &[4097])],
        vec![packets(Some(1), b"", &[]), writer(None)],
        vec![watching(&[0])],
        vec![watching(&[2, 2])],
        vec![watching(&[MAX_WATCH_NUMBER + 1])],
        vec![epoll(1 << 20, 3)],
        vec![epoll(3, 1 << 20)],
    ] {
        assert!(with(bad.clone()).is_err(), "{bad:?}");
    }
}

#[test]
fn who_does_not_know_carried_files_refuses_them() {
    let plain = encode(&sample()).unwrap();
    let bytes = encode(&files_sample()).unwrap();
    let [id, flags] =
        [0, 2].map(|at| u16::from_le_bytes([bytes[plain.len() + at], bytes[plain.len() + at + 1]]));
    assert_eq!((id, flags & CRITICAL), (section::CARRIED_FILES, CRITICAL));
    // A seed of no open files is another one than a seed whose files are not carried.
    let none = Descriptor { carried: Some(CarriedFiles::default()), ..sample() };
    assert_eq!(decode(&encode(&none).unwrap()).unwrap().carried, Some(CarriedFiles::default()));
}

#[test]
fn carried_files_that_cannot_be_are_refused() {
    let refused = |change: &dyn Fn(&mut Vec<CarriedFile>)| {
        let mut files = Vec::from(files_sample().carried.unwrap());
        change(&mut files);
        CarriedFiles::new(files).unwrap_err()
    };
    type Change<'a> = &'a dyn Fn(&mut Vec<CarriedFile>);
    let changes: [Change<'_>; 11] = [
        &|files| files[0].numbers.clear(),
        &|files| files[0].numbers[0].fd = 2,
        &|files| files[0].numbers[0].fd = 1 << 20,
        &|files| files[0].numbers[0].fd = files[1].numbers[1].fd,
        &|files| files[0].kind = FileKind::Stdio { of: 3 },
        &|files| files[1].kind = FileKind::Path { path: "/a\0b".to_owned(), position: 0 },
        // Ends that do not know each other, or are the same.
        &|files| files.swap(3, 4),
        &|files| files[5].kind = files[6].kind.clone(),
        &|files| {
            let FileKind::Pipe { writes, .. } = &mut files[3].kind else { unreachable!() };
            *writes = false;
        },
        &|files| {
            let FileKind::Pipe { content, .. } = &mut files[3].kind else { unreachable!() };
            content.push(1);
        },
        &|files| {
            let FileKind::Connection { other, .. } = &mut files[7].kind else { unreachable!() };
            *other = Some(1 << 31);
        },
    ];
    for (at, change) in changes.iter().enumerate() {
        let error = refused(*change);
        assert!(error.contains("descriptor") || error.contains("number"), "{at}: {error}");
    }
}

#[test]
fn carried_files_have_limits() {
    let many = |count: usize| -> Vec<CarriedFile> {
        let number = |fd| Number { fd, close_on_exec: false };
        let file = |fd| CarriedFile {
            numbers: vec![number(fd)],
            flags: 0,
            kind: FileKind::Stdio { of: 0 },
        };
        (3u32..).take(count).map(file).collect()
    };
    let limit = crate::descriptor::carried::MAX_CARRIED_NUMBERS;
    assert!(CarriedFiles::new(many(limit)).is_ok());
    assert!(CarriedFiles::new(many(limit + 1)).unwrap_err().contains("close some"));
    for (len, good) in [(0, false), (249, true), (250, false)] {
        let mut files = many(1);
        let (name, content) = ("m".repeat(len), Vec::new());
        files[0].kind = FileKind::Memory { name, position: 0, content, seals: 0 };
        assert_eq!(CarriedFiles::new(files).is_ok(), good, "{len}");
    }
    let limit = crate::descriptor::carried::MAX_CARRIED_BYTES;
    for (bytes, good) in [(limit, true), (limit + 1, false)] {
        let mut files = many(1);
        let (name, content) = ("m".to_owned(), vec![0; bytes]);
        files[0].kind = FileKind::Memory { name, position: 0, content, seals: 0 };
        assert_eq!(CarriedFiles::new(files).is_ok(), good, "{bytes}");
    }
}

proptest! {
    #[test]
    fn hostile_carried_files_are_errors_or_descriptors(flips in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        let mut bytes = encode(&files_sample()).unwrap();
        let first = encode(&sample()).unwrap().len();
        for (at, value) in flips {
            let at = first + at % (bytes.len() - first);
            bytes[at] = value;
        }
        let crc = crc32fast::hash(&bytes[HEADER_LEN..]).to_le_bytes();
        bytes[20..24].copy_from_slice(&crc);
        if let Ok(descriptor) = decode(&bytes) {
            prop_assert!(encode(&descriptor).is_ok());
        }
    }
}

#[test]
fn losses_and_shared_memory_survive_and_need_no_new_reader() {
    use crate::descriptor::{Loss, LossKind};
    let loss = Loss { kind: LossKind::Pipes, fds: vec![3], was: "pipe:[1]".to_owned() };
    let losses = Losses { told_at: SeedAddr(0x50_2100), all: vec![loss] };
    let mut shared = sample();
    shared.vmas[1].kind = VmaKind::Shared;
    let range = shared.vmas[1].range;
    let plain = encode(&shared).unwrap().len();
    shared.shared = vec![SharedPart { range, object: 0, offset: 4096, file: Some(2) }];
    for (descriptor, plain, wanted) in [
        (Descriptor { losses, ..sample() }, encode(&sample()).unwrap().len(), section::LOSSES),
        (shared.clone(), plain, section::SHARED),
    ] {
        let bytes = encode(&descriptor).unwrap();
        assert_eq!(decode(&bytes).unwrap(), descriptor);
        let [id, flags] =
            [0, 2].map(|at| u16::from_le_bytes([bytes[plain + at], bytes[plain + at + 1]]));
        assert_eq!((id, flags & CRITICAL), (wanted, 0));
    }
    let part = shared.shared[0].clone();
    for bad in [
        SharedPart { object: super::super::vma::MAX_SHARED_OBJECTS, ..part.clone() },
        SharedPart { offset: 1, ..part.clone() },
        SharedPart { offset: u64::MAX << 12, ..part.clone() },
        SharedPart { range: shared.vmas[0].range, ..part },
    ] {
        let bytes = encode(&Descriptor { shared: vec![bad], ..shared.clone() }).unwrap();
        assert!(decode(&bytes).unwrap_err().to_string().contains("not shared"));
    }
}

/// A host lists what it makes of shared memory, and a peer names how much that is.
#[test]
fn shared_memory_has_bounds() {
    let many = |count: u64, bytes: u64| {
        let mut descriptor = sample();
        let vma = descriptor.vmas[1].clone();
        let range = |at: u64| SeedRange::new((1 + at) * bytes, (1 + at) * bytes + bytes);
        let vmas =
            (0..count).map(|at| Vma { range: range(at), kind: VmaKind::Shared, ..vma.clone() });
        descriptor.vmas = vmas.collect();
        let part = |at| SharedPart { range: range(at), object: 0, offset: 0, file: None };
        descriptor.shared = (0..count).map(part).collect();
        decode(&encode(&descriptor).unwrap()).map_err(|error| error.to_string())
    };
    let most = u64::from(super::super::vma::MAX_SHARED_OBJECTS);
    let too_much = |result: Result<Descriptor, String>| {
        result.is_err_and(|error| error.contains("than any seed has copied"))
    };
    assert!(many(most, 4096).is_ok());
    assert!(too_much(many(most + 1, 4096)));
    assert!(many(1, MAX_SHARED_BYTES).is_ok());
    assert!(too_much(many(2, MAX_SHARED_BYTES)));
}

#[test]
fn shared_files_survive_and_only_needed_ones_need_a_new_reader() {
    let mut descriptor = sample();
    descriptor.vmas[1].kind = VmaKind::Shared;
    let range = descriptor.vmas[1].range;
    descriptor.shared = vec![SharedPart { range, object: 3, offset: 0, file: None }];
    descriptor.losses.told_at = SeedAddr(0x21);
    let file = SharedFile {
        object: 3,
        path: "/f".to_owned(),
        dev_ino: (4, 5),
        digest: [6; 32],
        bytes: 7,
        is_needed: false,
    };
    descriptor.shared_files = vec![file.clone()];
    let bytes = encode(&descriptor).unwrap();
    assert_eq!(decode(&bytes).unwrap(), descriptor);
    // For ever. Where children are told of losses stands there, though nothing is lost yet.
    let golden = [
        &[17, 0, 0, 0, 2, 0, 0, 0, 0x21, 0][..], // section, not critical, length; address, none
        &[18, 0, 0, 0],
    ];
    assert!(bytes.windows(14).any(|window| *window == golden.concat()));
    let golden = [&[26, 0, 0, 0, 41, 0, 0, 0][..], &[1, 3, 2, b'/', b'f', 4, 5], &[6; 32], &[7, 0]];
    assert_eq!(bytes[bytes.len() - 49..], golden.concat());
    descriptor.shared_files[0].is_needed = true;
    let bytes = encode(&descriptor).unwrap();
    assert_eq!(decode(&bytes).unwrap(), descriptor);
    assert_eq!(bytes[bytes.len() - 49..][..4], [26, 0, 1, 0]);
    let many = (0..=32).map(|object| SharedFile { object, ..file.clone() }).collect();
    for (bad, why) in [
        (vec![SharedFile { object: 2, ..file.clone() }], "no shared memory"),
        (vec![file.clone(), file.clone()], "two files"),
        (vec![SharedFile { path: "f".to_owned(), ..file.clone() }], "no path"),
        (many, "more files"),
    ] {
        let bytes = encode(&Descriptor { shared_files: bad, ..descriptor.clone() }).unwrap();
        assert!(decode(&bytes).unwrap_err().to_string().contains(why), "{why}");
    }
}

#[test]
fn treatment_survives_and_is_critical() {
    let treatment = Treatment { merges_memory: true, is_io_flusher: false, speculation: [8, 4, 0] };
    let descriptor = Descriptor { treatment, ..sample() };
    let bytes = encode(&descriptor).unwrap();
    assert_eq!(decode(&bytes).unwrap(), descriptor);
    // For ever.
    let golden = [27, 0, 1, 0, 5, 0, 0, 0, 1, 0, 8, 4, 0];
    assert_eq!(bytes[encode(&sample()).unwrap().len()..], golden);
}

#[test]
fn marks_survive_and_guards_are_in_order() {
    let with = |guards: &[(u64, u64)]| {
        let guards = guards
            .iter()
            .map(|(start, end)| SeedRange { start: SeedAddr(*start), end: SeedAddr(*end) });
        let marks = Marks { locks_future: 2, guards: guards.collect() };
        let descriptor = Descriptor { marks, ..sample() };
        (descriptor.clone(), decode(&encode(&descriptor).unwrap()))
    };
    let end = sample().vmas.last().unwrap().range.end.0;
    let (made, read) = with(&[(0x1000, 0x2000), (0x2000, 0x4000)]);
    assert_eq!(read.unwrap(), made);
    for bad in [
        &[(0x1000, 0x1000)][..],
        &[(0x1000, 0x2001)],
        &[(0x3000, 0x2000)],
        &[(0x2000, 0x4000), (0x1000, 0x2000)],
        &[(0x1000, end + 0x1000)],
    ] {
        assert!(with(bad).1.unwrap_err().to_string().contains("guards"), "{bad:x?}");
    }
}
