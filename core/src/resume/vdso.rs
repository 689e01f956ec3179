//! How children come by the vDSO: the code that a kernel maps into each process, and that the seed's libc calls for
//! the time ([vdso(7)](https://man7.org/linux/man-pages/man7/vdso.7.html)).
//!
//! ```text
//! the seed's kernel   its host's vvar and vDSO, moved to where the seed's were
//! another one         the seed's vDSO, from its image --jmp--> its host's vvar and vDSO, in a hole of the seed's
//!                       `- where a function began       `- the function of that name, or the system call of that name
//! ```
//! Libc keeps the addresses of functions that it has found at its start; another kernel's lie elsewhere. So where
//! they were something must go on being them.

use object::{Object, ObjectSymbol};

use super::placement::Placement;
use crate::descriptor::{Descriptor, HostNeeds, SeedAddr, SeedRange, VmaKind};

/// Functions of vdso(7) that are system calls with the same arguments, and their numbers. getrandom(2)'s has two
/// more, about a state that the system call does without.
const CALLS: [(&str, i64); 6] = [
    ("clock_gettime", libc::SYS_clock_gettime),
    ("clock_getres", libc::SYS_clock_getres),
    ("gettimeofday", libc::SYS_gettimeofday),
    ("time", libc::SYS_time),
    ("getcpu", libc::SYS_getcpu),
    ("getrandom", libc::SYS_getrandom),
];
/// Of `ucontext_t`, in a signal frame: where the thread goes on.
const RIP: u64 = std::mem::offset_of!(libc::ucontext_t, uc_mcontext) as u64
    + 8 * libc::REG_RIP.cast_unsigned() as u64;

/// See the module's comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Vdso {
    /// The seed's kernel runs here, or the seed has none.
    #[default]
    Moved,
    /// Another one does.
    Proxied(Proxy),
}

/// What makes the seed's vDSO lead to its host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where the host's vvar begins in a child, with the vDSO behind it as ever.
    pub host: SeedAddr,
    /// The seed's.
    pub seed: SeedRange,
    /// What stands in its place: address and bytes.
    pub entries: Vec<(u64, Vec<u8>)>,
}

/// Why children cannot have the vDSO that they need.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VdsoError {
    /// No hole is large enough.
    #[error("the seed leaves no room for this kernel's vDSO: resume it on a host with kernel {0}")]
    NoRoom(String),
    /// This process has none: `vdso=0` on the kernel's command line.
    #[error("this kernel maps no vDSO, and the seed's libc calls one: boot it without vdso=0")]
    NoneHere,
    /// Its bytes make no sense.
    #[error("the vDSO of {whose} cannot be read: {why}")]
    Unreadable {
        /// Whose it is.
        whose: &'static str,
        /// Why.
        why: String,
    },
    /// A function is too short to be led elsewhere.
    #[error(
        "{name} of the seed's vDSO is too short to be replaced: resume it on a host with kernel {kernel}"
    )]
    TooShort {
        /// The function.
        name: String,
        /// The seed's.
        kernel: String,
    },
    /// A thread was stopped in the code that is replaced.
    #[error(
        "thread {tid} stood in the vDSO of kernel {kernel} when the seed was made, whose code cannot go on here: prepare \
         it once more, or resume it on a host with that kernel"
    )]
    ThreadInside {
        /// In the parent.
        tid: u32,
        /// The seed's.
        kernel: String,
    },
}

/// This host's.
#[derive(Debug)]
pub struct HostVdso<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its mappings and vvar's in the keeper, ascending.
    pub special: &'a [(VmaKind, SeedRange)],
    /// Its digest, as [`HostNeeds::vdso`]; `None`: it is to be taken for another kernel's.
    pub digest: Option<[u8; 32]>,
}

impl HostVdso<'_> {
    /// Whether it can take the place of the seed's.
    fn is_as(&self, needs: &HostNeeds, seeds: &[(VmaKind, SeedRange)]) -> bool {
        let shape = |all: &[(VmaKind, SeedRange)]| -> Vec<(VmaKind, u64)> {
            all.iter().map(|(kind, range)| (kind.clone(), range.len())).collect()
        };
        Some(needs.vdso) == self.digest && shape(seeds) == shape(self.special)
    }
}

/// What children of `desc` need here. `read` gives the seed's memory; it is called where kernels differ alone.
///
/// # Errors
/// They cannot have it.
pub fn plan(
    desc: &Descriptor,
    placement: &Placement,
    here: &HostVdso<'_>,
    read: &dyn Fn(SeedAddr, &mut [u8]) -> std::io::Result<()>,
) -> Result<Vdso, VdsoError> {
    let seeds = special(desc);
    let seed = seeds.iter().find(|(kind, _)| *kind == VmaKind::Vdso).map(|(_, range)| *range);
    let Some(seed) = seed.filter(|_| !here.is_as(&desc.needs, &seeds)) else {
        return Ok(Vdso::Moved);
    };
    let first = here.special.first().map(|(_, range)| range.start);
    let own = here.special.iter().find(|(kind, _)| *kind == VmaKind::Vdso).map(|(_, range)| *range);
    let (Some(first), Some(own)) = (first, own) else { return Err(VdsoError::NoneHere) };
    let kernel = || desc.needs.kernel.clone();
    let unreadable =
        |error: std::io::Error| VdsoError::Unreadable { whose: "the seed", why: error.to_string() };
    for thread in &desc.threads {
        let mut at = [0; 8];
        read(SeedAddr(thread.frame.0 + RIP), &mut at).map_err(unreadable)?;
        if seed.contains(SeedAddr(u64::from_le_bytes(at))) {
            return Err(VdsoError::ThreadInside { tid: thread.tid, kernel: kernel() });
        }
    }
    let mut bytes = vec![0; usize::try_from(seed.len()).unwrap_or(0)];
    read(seed.start, &mut bytes).map_err(unreadable)?;
    let host =
        placement.room_for(desc, own.end.0 - first.0).ok_or_else(|| VdsoError::NoRoom(kernel()))?;
    let vdso = host.0 + (own.start.0 - first.0);
    let entries =
        entries(&functions(&bytes, "the seed")?, &functions(here.bytes, "this kernel")?, vdso);
    let entries = entries.map_err(|name| VdsoError::TooShort { name, kernel: kernel() })?;
    let entries = entries.into_iter().map(|(offset, code)| (seed.start.0 + offset, code)).collect();
    Ok(Vdso::Proxied(Proxy { host, seed, entries }))
}

/// Its vvar mappings and vDSO, ascending.
pub(super) fn special(desc: &Descriptor) -> Vec<(VmaKind, SeedRange)> {
    let all = desc.vmas.iter().filter(|vma| matches!(vma.kind, VmaKind::Vvar | VmaKind::Vdso));
    all.map(|vma| (vma.kind.clone(), vma.range)).collect()
}

/// A function of a vDSO.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    /// Without `__vdso_`, with which each has a second name.
    name: String,
    offset: u64,
    len: u64,
}

/// All functions of a vDSO, by their places.
fn functions(vdso: &[u8], whose: &'static str) -> Result<Vec<Function>, VdsoError> {
    let file = object::File::parse(vdso);
    let file = file.map_err(|error| VdsoError::Unreadable { whose, why: error.to_string() })?;
    let mut functions: Vec<Function> = Vec::new();
    for symbol in file.dynamic_symbols().filter(|symbol| symbol.kind() == object::SymbolKind::Text)
    {
        let (offset, len) = (symbol.address(), symbol.size());
        let is_inside = offset.checked_add(len).is_some_and(|end| end <= vdso.len() as u64);
        let Some(name) = symbol.name().ok().filter(|_| is_inside) else { continue };
        let name = name.strip_prefix("__vdso_").unwrap_or(name).to_owned();
        functions.push(Function { name, offset, len });
    }
    functions.sort_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
    functions.dedup();
    match functions.is_empty() {
        true => Err(VdsoError::Unreadable { whose, why: "it names no function".to_owned() }),
        false => Ok(functions),
    }
}

/// What is to stand in the place of each of the seed's functions, by its offset. `vdso` is where the host's will be. The
/// error is the name of one that is too short.
fn entries(
    seeds: &[Function],
    hosts: &[Function],
    vdso: u64,
) -> Result<Vec<(u64, Vec<u8>)>, String> {
    let mut entries = Vec::with_capacity(seeds.len());
    for (at, function) in seeds.iter().enumerate() {
        let code = match hosts.iter().find(|own| own.name == function.name) {
            Some(own) => jump(vdso + own.offset),
            None => call(&function.name),
        };
        let next = seeds.get(at + 1).map_or(u64::MAX, |next| next.offset);
        if (code.len() as u64) > function.len.min(next - function.offset) {
            return Err(function.name.clone());
        }
        entries.push((function.offset, code));
    }
    Ok(entries)
}

/// `jmp *0(%rip)` and the address: to anywhere; no register changes.
fn jump(to: u64) -> Vec<u8> {
    [&[0xff, 0x25, 0, 0, 0, 0], &to.to_le_bytes()[..]].concat()
}

/// `mov $NUMBER,%eax; syscall; ret`, the system call of that name: a vDSO's function has its arguments where a system call has them, but for the fourth,
/// which none of [`CALLS`] takes. What is none (SGX) answers that it is not there.
fn call(name: &str) -> Vec<u8> {
    let number = CALLS
        .iter()
        .find(|(known, _)| *known == name)
        .and_then(|(_, number)| i32::try_from(*number).ok());
    match number {
        Some(number) => [&[0xb8], &number.to_le_bytes()[..], &[0x0f, 0x05, 0xc3]].concat(),
        None => [&[0xb8], &(-libc::ENOSYS).to_le_bytes()[..], &[0xc3]].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::{Vma, VmaFlags};
    use crate::resume::compile::tests::descriptor;
    use crate::resume::placement::PARKING_LEN;
    use crate::resume::template::room_for_argv;
    use crate::wire::local::MAX_ARGV_BYTES;

    /// Bytes of what leads elsewhere.
    const JUMP_LEN: usize = 14;

    fn function(name: &str, offset: u64, len: u64) -> Function {
        Function { name: name.to_owned(), offset, len }
    }

    fn own() -> Vec<u8> {
        crate::describe::own_vdso().unwrap().unwrap()
    }

    #[test]
    fn this_kernels_functions_are_found() {
        let functions = functions(&own(), "this kernel").unwrap();
        for (name, _) in &CALLS[..5] {
            let found: Vec<_> =
                functions.iter().filter(|function| function.name == *name).collect();
            assert!(matches!(found[..], [one] if one.len >= JUMP_LEN as u64), "{name}: {found:?}");
        }
    }

    #[test]
    fn a_function_leads_to_its_namesake_else_to_the_call_else_says_that_it_is_not_there() {
        let seeds =
            [function("time", 0x10, 16), function("getcpu", 0x20, 16), function("sgx", 0x40, 9)];
        let entries = entries(&seeds, &[function("time", 0x700, 40)], 0x7000_0000).unwrap();
        let expected = [
            (0x10, vec![0xff, 0x25, 0, 0, 0, 0, 0x00, 0x07, 0x00, 0x70, 0, 0, 0, 0]),
            (0x20, vec![0xb8, 0x35, 1, 0, 0, 0x0f, 0x05, 0xc3]),
            (0x40, vec![0xb8, 0xda, 0xff, 0xff, 0xff, 0xc3]),
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn a_function_without_room_is_named() {
        let host = [function("time", 0, 40)];
        assert_eq!(entries(&[function("time", 0, 13)], &host, 0), Err("time".to_owned()));
        let close = [function("time", 0, 40), function("getcpu", 13, 40)];
        assert_eq!(entries(&close, &host, 0), Err("time".to_owned()), "the next one begins in it");
    }

    #[test]
    fn what_is_no_vdso_is_refused() {
        for bytes in [&b""[..], b"\x7fELF", &[0; 8192]] {
            assert!(matches!(functions(bytes, "the seed"), Err(VdsoError::Unreadable { .. })));
        }
        let mut cut = own();
        cut.truncate(0x200);
        assert!(functions(&cut, "the seed").is_err());
    }

    fn place(addr: SeedAddr) -> usize {
        usize::try_from(addr.0).unwrap()
    }

    /// A descriptor whose one thread goes on at `rip`, in a seed that has this kernel's vDSO, and what its memory is.
    fn seed(rip: u64) -> (Descriptor, Vec<u8>) {
        let mut desc = descriptor();
        let vma = |start, end, kind| Vma {
            range: SeedRange::new(start, end),
            prot: 5,
            kind,
            flags: VmaFlags::default(),
        };
        let bytes = own();
        let end = 0x1_4000 + bytes.len() as u64;
        desc.vmas = vec![vma(0x1_0000, 0x1_4000, VmaKind::Vvar), vma(0x1_4000, end, VmaKind::Vdso)];
        desc.threads[0].frame = SeedAddr(0x2_0000);
        let mut memory = vec![0; 0x3_0000];
        memory[0x1_4000..0x1_4000 + bytes.len()].copy_from_slice(&bytes);
        let at = place(SeedAddr(0x2_0000 + RIP));
        memory[at..at + 8].copy_from_slice(&rip.to_le_bytes());
        (desc, memory)
    }

    fn planned(rip: u64, digest: [u8; 32]) -> Result<Vdso, VdsoError> {
        let (mut desc, memory) = seed(rip);
        desc.needs.vdso = [1; 32];
        let placement = Placement::choose(&desc, &[]).unwrap();
        planned_at(&desc, &memory, &placement, digest)
    }

    fn planned_at(
        desc: &Descriptor,
        memory: &[u8],
        placement: &Placement,
        digest: [u8; 32],
    ) -> Result<Vdso, VdsoError> {
        let bytes = own();
        let special = special(desc);
        let here = HostVdso { bytes: &bytes, special: &special, digest: Some(digest) };
        let read = |addr: SeedAddr, into: &mut [u8]| {
            let at = place(addr);
            into.copy_from_slice(&memory[at..at + into.len()]);
            Ok(())
        };
        plan(desc, placement, &here, &read)
    }

    #[test]
    fn an_equal_one_moves_and_another_is_led_to() {
        assert_eq!(planned(0, [1; 32]).unwrap(), Vdso::Moved);
        let Vdso::Proxied(proxy) = planned(0, [2; 32]).unwrap() else { panic!("moved") };
        let inside = |(addr, code): &(u64, Vec<u8>)| {
            proxy.seed.contains(SeedAddr(*addr)) && code.len() == JUMP_LEN
        };
        assert!(proxy.entries.len() >= 5 && proxy.entries.iter().all(inside), "{proxy:x?}");
    }

    /// Seeds that leave two holes: one in which the region finds room, and a smaller one.
    #[test]
    fn a_given_argv_is_nowhere_in_the_hosts() {
        const BASES: u64 = 2 << 20;
        const GAPS: [u64; 6] = [32 << 20, 34 << 20, 48 << 20, 66 << 20, 1 << 30, 1 << 40];
        let (mut desc, memory) = seed(0);
        desc.needs.vdso = [1; 32];
        let vma = |start, end| Vma {
            range: SeedRange::new(start, end),
            prot: 3,
            kind: VmaKind::Anonymous,
            flags: VmaFlags::default(),
        };
        let (mut same, mut apart) = (0, 0);
        let extras = [0, 64 << 10, 128 << 10, 256 << 10, 384 << 10, 2 << 20];
        for (gap, extra) in GAPS.into_iter().flat_map(|gap| extras.map(|extra| (gap, extra))) {
            let mut desc = desc.clone();
            let (low, high) = (0x6000_0000_0000, 0x6000_4000_0000);
            desc.vmas.extend([
                vma(4 << 30, low),
                vma(low + gap.min(1 << 29) + extra, high),
                vma(high + (64 << 20) + gap, 0x7fff_ffff_f000),
            ]);
            let Ok(placement) = Placement::choose(&desc, &[]) else { continue };
            let argv = room_for_argv(&placement, &desc);
            let proxied = planned_at(&desc, &memory, &placement, [2; 32]);
            let (Some(argv), Ok(Vdso::Proxied(proxy))) = (argv, proxied) else { continue };
            let len = special(&desc).last().unwrap().1.end.0 - special(&desc)[0].1.start.0;
            let host = SeedRange::new(proxy.host.0, proxy.host.0 + len);
            // Whichever is lower ends before the next base.
            assert_eq!((host.start.0 % BASES, argv.0 % BASES), (0, PARKING_LEN));
            let argv = SeedRange::new(argv.0, argv.0 + MAX_ARGV_BYTES as u64);
            assert!(host.intersect(argv).is_empty(), "{gap:x} {extra:x}: {host:?} {argv:?}");
            let is_free = |vma: &Vma| vma.range.intersect(argv).is_empty();
            assert!(desc.vmas.iter().all(is_free), "{gap:x} {extra:x}: {argv:?}");
            assert!(placement.region().intersect(argv).is_empty());
            match argv.start.0 - proxy.host.0.min(argv.start.0) == PARKING_LEN {
                true => same += 1,
                false => apart += 1,
            }
        }
        assert!(same > 0 && apart > 0, "{same} beside each other, {apart} elsewhere");
        const { assert!(PARKING_LEN + MAX_ARGV_BYTES as u64 <= BASES) };
    }

    #[test]
    fn a_thread_inside_is_named() {
        let error = planned(0x1_4800, [2; 32]).unwrap_err();
        assert!(matches!(error, VdsoError::ThreadInside { .. }), "{error}");
        assert_eq!(planned(0x1_4800, [1; 32]).unwrap(), Vdso::Moved, "it goes on in the same code");
    }
}
