//! Descriptor -> the template's restore program. A pure function: same input, same program.
//!
//! In this order, and why:
//!
//! 1. All signals are blocked, for good: a child's mask comes from its signal frame. The alternate stack
//!    becomes the seed's.
//! 2. The process's own vvar and vdso are parked behind the region, then everything but the region is
//!    unmapped: from here on only the blob's memory exists.
//! 3. Trampolines are written, then every VMA is mapped: from the image, from an identical local file, or
//!    fresh where the seed had nothing. Advice follows each mapping. Nothing is touched: what a template
//!    writes is copied by every clone. Last comes what lies beneath written pages of files, for the stub.
//! 4. The stack, anonymous and growing, is filled from the image: the kernel reads argv and environ
//!    from anonymous memory alone, and lets no file mapping grow.
//! 5. vvar and vdso move to where the seed's were, for its libc calls into them; where kernels differ, to where the
//!    seed's vdso leads (`vdso`).
//! 6. The kernel is told where code, data, heap, stack, argv, environ and auxv lie (PR_SET_MM_MAP): brk
//!    goes on exactly where the seed's stood.
//! 7. Thread state that clones inherit: FS and GS base, name. Process state: signal actions, personality,
//!    umask, directory, limits. Limits come late, so that they do not limit the work above.
//! 8. Every descriptor but 0-2 and the command socket is closed: mappings hold their files.
//!
//! What clones do not inherit (further threads, rseq, robust list, parent-death signal) or would lose (DONTFORK memory) is
//! the tail's, see `child` and `threads`.

use std::collections::HashMap;

use super::abi::{MAIL, MAIL_LEN};
use super::calls;
use super::credentials::CredentialsError;
use super::files::FilePlan;
use super::pieces::{Backing, Piece, Places};
use super::placement::{Beneath, Placement, USER_END};
use super::program::{Expect, Op, Program};
use super::shared::SharedHere;
use super::vdso::{self, Proxy, Vdso};
use super::{state, threads};
use crate::descriptor::{
    Credentials, Descriptor, ImageOffset, MappedFile, MmLayout, SeedAddr, SeedRange, SharedPart,
    SignalAction, Source, VmaFlags, VmaKind,
};

/// Present stack that is copied into each template at most; a seed with more is refused.
pub const MAX_STACK_COPY: u64 = 64 << 20;
/// Number of the command socket in a template.
pub const COMMAND_FD: u32 = 3;

pub(super) const READ_WRITE: u8 = 3;
const READ_EXECUTE: u8 = 5;
const FIXED: i32 = libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE;
const FIXED_SHARED: i32 = libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE;
pub(super) const FIXED_ANONYMOUS: i32 = FIXED | libc::MAP_ANONYMOUS;
const MAP_DROPPABLE: i32 = 8;
const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const SS_DISABLE: u32 = 2;

/// Numbers, in the template, of the descriptors that the program maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateFds {
    /// The image's file.
    pub image: u32,
    /// Local files that are identical to files of the descriptor's table.
    pub files: HashMap<u16, u32>,
    /// What stands in for the seed's program, where that is none of these.
    pub stand_in: Option<u32>,
    /// Memory that shows files of this host, to write to them.
    pub shared: Vec<SharedView>,
}

/// A mapping of a file of this host that is the seed's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedView {
    /// A VMA.
    pub range: SeedRange,
    /// The file.
    pub fd: u32,
    /// From this byte on.
    pub offset: u64,
}

impl TemplateFds {
    /// With the number of a file behind these that stands in for the seed's program.
    pub fn with_stand_in(self) -> TemplateFds {
        let behind = u32::try_from(self.files.len()).unwrap_or(0) + 1;
        TemplateFds { stand_in: Some(self.image + behind), ..self }
    }

    /// With numbers for files behind all these that the seed had mapped shared, each with its parts.
    pub fn with_shared(self, files: &[SharedHere]) -> TemplateFds {
        let behind = self.files.len() + usize::from(self.stand_in.is_some()) + 1;
        let first = self.image + u32::try_from(behind).unwrap_or(0);
        let views = |(file, fd): (&SharedHere, u32)| {
            let view =
                move |part: &SharedPart| SharedView { range: part.range, fd, offset: part.offset };
            file.parts.iter().map(view).collect::<Vec<_>>()
        };
        let shared = files.iter().zip(first..).flat_map(views).collect();
        TemplateFds { shared, ..self }
    }

    /// Numbers for the image and then for these files: the order in which [`super::template::TemplateSpec`]
    /// takes them.
    pub fn number(files: &[u16]) -> TemplateFds {
        let image = COMMAND_FD + 1;
        let files = files.iter().copied().zip(image + 1..).collect();
        TemplateFds { image, files, stand_in: None, shared: Vec::new() }
    }
}

/// What is known of the process that will become the template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Its own vvar mappings and vdso, ascending.
    pub special: Vec<(VmaKind, SeedRange)>,
    /// Everything else that it has mapped.
    pub mapped: Vec<SeedRange>,
    /// Its resource limits, soft and hard.
    pub limits: Vec<(u64, u64)>,
    /// Its /proc hides nothing, so that one that is mounted anew shows no more.
    pub proc_is_plain: bool,
    /// Whom it is taken for.
    pub credentials: Credentials,
}

/// Why a descriptor makes no program.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompileError {
    /// None, or several of what is no whole process.
    #[error("the seed has {0} threads, and is not prepared with all of them: prepare it anew")]
    Threads(usize),
    /// The stack is too large.
    #[error(
        "the seed's stack holds {0} bytes, more than the {MAX_STACK_COPY} that a template copies"
    )]
    StackTooLarge(u64),
    /// A descriptor's number is too high for this host.
    #[error(
        "the seed has descriptor {number} open, and this host allows {limit} (RLIMIT_NOFILE): raise the limit of \
         its agent (ulimit -n, LimitNOFILE=)"
    )]
    TooManyFiles {
        /// The highest number that its children need.
        number: u32,
        /// The limit.
        limit: u64,
    },
    /// This host's agent may not make a child what the seed is.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The image and the descriptor do not fit together.
    #[error("the image has no place for {0}: the descriptor's VMAs are inconsistent")]
    NotInImage(SeedAddr),
}

/// The program that makes a template of `desc`. `offset_of` says where in the image's file a seed's address
/// lies; `trampolines` are the bytes at the placement's trampolines, `vdso` is how it comes by that.
///
/// # Errors
/// What this host cannot restore.
pub fn compile(
    desc: &Descriptor,
    offset_of: &dyn Fn(SeedAddr) -> Option<ImageOffset>,
    placement: &Placement,
    trampolines: &[(u64, Vec<u8>)],
    vdso: &Vdso,
    host: &HostFacts,
    fds: &TemplateFds,
) -> Result<Program, CompileError> {
    let first = threads::first(desc)?;
    let thread = &desc.threads[first];
    check_numbers(desc, host)?;
    let moves = vdso_moves(desc, placement, vdso, host);
    let places = Places { desc, offset_of, files: &fds.files, shared: &fds.shared };
    let pieces = places.pieces().map_err(CompileError::NotInImage)?;
    let (alt_base, alt_flags, alt_size) = thread.alt_stack;
    let mut ops = vec![
        calls::block_signals(),
        calls::sigaltstack(alternate_stack(alt_base.0, alt_flags, alt_size)),
    ];
    ops.extend(moves.iter().map(|m| calls::relocate(m.from, m.len, m.parked)));
    ops.push(calls::munmap(0, placement.base));
    ops.push(calls::munmap(placement.region().end.0, USER_END));
    write_trampolines(&mut ops, placement, trampolines);
    for piece in &pieces {
        map(&mut ops, piece, fds);
    }
    if let Some(Beneath { range, offset }) = placement.beneath {
        // Without access: the stub moves parts of it, and nobody else knows of it.
        let (start, len) = (range.start.0, range.len());
        ops.push(calls::mmap(
            start,
            len,
            0,
            FIXED | libc::MAP_NORESERVE,
            Some(fds.image),
            offset.0,
        ));
    }
    if let Vdso::Proxied(proxy) = vdso {
        let place =
            offset_of(proxy.seed.start).ok_or(CompileError::NotInImage(proxy.seed.start))?;
        map_proxy(&mut ops, proxy, place, fds);
    }
    fill_stacks(&mut ops, &pieces, &places, fds)?;
    // What the tail maps anew it guards itself.
    let is_new = |at: SeedAddr| desc.shared.iter().any(|part| part.range.contains(at));
    for guard in desc.marks.guards.iter().filter(|guard| !is_new(guard.start)) {
        let (start, len) = (guard.start.0, guard.len());
        ops.push(calls::guard(start, len));
    }
    ops.extend(moves.iter().map(|m| calls::relocate(m.parked, m.len, m.to)));
    let parking = placement.parking();
    ops.push(calls::munmap(parking.start.0, parking.end.0));
    set_layout(&mut ops, desc, placement.base + MAIL, fds);
    ops.push(calls::arch_prctl(ARCH_SET_FS, thread.fs_base));
    ops.push(calls::arch_prctl(ARCH_SET_GS, thread.gs_base));
    let name = [thread.name.as_slice(), b"\0"].concat();
    ops.push(calls::prctl(libc::PR_SET_NAME, [name.into()], Expect::Success));
    set_process_state(&mut ops, desc, host);
    state::restore(&mut ops, desc, first);
    seal(&mut ops, desc, &pieces);
    if desc.root.is_some() {
        set_directories(&mut ops, desc);
    }
    ops.push(calls::close_from(COMMAND_FD + 1));
    Ok(Program { ops })
}

/// Clones inherit seals. What the tail maps anew it seals itself.
fn seal(ops: &mut Vec<Op>, desc: &Descriptor, pieces: &[Piece]) {
    let is_new = |piece: &&Piece| {
        desc.shared.iter().any(|part| !part.range.intersect(piece.range).is_empty())
    };
    let sealed = pieces.iter().filter(|piece| piece.flags.has(VmaFlags::SEALED));
    for piece in sealed.filter(|piece| !is_new(piece)) {
        ops.push(calls::seal(piece.range.start.0, piece.range.len()));
    }
}

/// Whether children write files before they go on as the seed's: then its limit of a file's size comes after.
fn limits_files_late(desc: &Descriptor) -> bool {
    desc.carried.is_some() || !desc.shared.is_empty()
}

/// A limit of the seed's, as far as its host lets it; `None`: it is the host's.
fn limit_here(desc: &Descriptor, host: &HostFacts, resource: usize) -> Option<(u64, u64)> {
    let (soft, hard) = *desc.process.limits.get(resource)?;
    let (own_soft, own_hard) = *host.limits.get(resource)?;
    // Above its host's nobody goes.
    let hard = hard.min(own_hard);
    let soft = soft.min(hard);
    ((soft, hard) != (own_soft, own_hard)).then_some((soft, hard))
}

/// The limit of a file's size that a tail sets, for the template did not.
pub(super) fn late_file_limit(desc: &Descriptor, host: &HostFacts) -> Option<(u64, u64)> {
    let resource = usize::try_from(libc::RLIMIT_FSIZE).unwrap_or(0);
    limits_files_late(desc).then(|| limit_here(desc, host, resource)).flatten()
}

/// Whether all numbers of carried files can be had under the limit that children get.
fn check_numbers(desc: &Descriptor, host: &HostFacts) -> Result<(), CompileError> {
    let Some(carried) = &desc.carried else { return Ok(()) };
    let at = usize::try_from(libc::RLIMIT_NOFILE).unwrap_or(0);
    let Some((_, hard)) = host.limits.get(at) else { return Ok(()) };
    let limit = desc.process.limits.get(at).map_or(*hard, |(soft, _)| *soft.min(hard));
    let number = FilePlan::of(carried).highest();
    match u64::from(number) < limit {
        true => Ok(()),
        false => Err(CompileError::TooManyFiles { number, limit }),
    }
}

/// One vvar or vdso mapping's way.
struct Move {
    from: u64,
    parked: u64,
    to: u64,
    len: u64,
}

/// None where there is not what was planned for: then the step that needs it fails, and is named.
fn vdso_moves(
    desc: &Descriptor,
    placement: &Placement,
    vdso: &Vdso,
    host: &HostFacts,
) -> Vec<Move> {
    let Some(first) = host.special.first().map(|(_, range)| range.start.0) else {
        return Vec::new();
    };
    let seeds = vdso::special(desc);
    let mut parked = placement.parking().start.0;
    let moves = host.special.iter().enumerate().map_while(|(at, (_, own))| {
        let to = match vdso {
            Vdso::Moved => seeds.get(at)?.1.start.0,
            // Code finds its data by the distance.
            Vdso::Proxied(proxy) => proxy.host.0 + (own.start.0 - first),
        };
        let len = own.len();
        parked += len;
        Some(Move { from: own.start.0, parked: parked - len, to, len })
    });
    moves.collect()
}

/// The seed's vDSO, with its functions leading to the host's.
fn map_proxy(ops: &mut Vec<Op>, proxy: &Proxy, place: ImageOffset, fds: &TemplateFds) {
    let (start, len) = (proxy.seed.start.0, proxy.seed.len());
    ops.push(calls::mmap(start, len, READ_WRITE, FIXED, Some(fds.image), place.0));
    let entry = |(addr, bytes): &(u64, Vec<u8>)| Op::Store { addr: *addr, bytes: bytes.clone() };
    ops.extend(proxy.entries.iter().map(entry));
    ops.push(calls::mprotect(start, len, READ_EXECUTE));
}

fn write_trampolines(ops: &mut Vec<Op>, placement: &Placement, bytes: &[(u64, Vec<u8>)]) {
    for page in &placement.trampoline_pages {
        ops.push(calls::mmap(page.start.0, page.len(), READ_WRITE, FIXED_ANONYMOUS, None, 0));
        let inside = bytes.iter().filter(|(addr, _)| page.contains(SeedAddr(*addr)));
        ops.extend(inside.map(|(addr, bytes)| Op::Store { addr: *addr, bytes: bytes.clone() }));
        ops.push(calls::mprotect(page.start.0, page.len(), READ_EXECUTE));
    }
}

fn map(ops: &mut Vec<Op>, piece: &Piece, fds: &TemplateFds) {
    let (start, len) = (piece.range.start.0, piece.range.len());
    let mut extra = 0;
    if piece.flags.has(VmaFlags::NO_RESERVE) {
        extra |= libc::MAP_NORESERVE;
    }
    if piece.stack {
        // Not MAP_STACK: it sets a flag on the mapping that the seed's stack does not have.
        extra |= libc::MAP_GROWSDOWN;
    }
    let (flags, fd, offset) = match piece.backing {
        Backing::Anonymous => (FIXED_ANONYMOUS, None, 0),
        Backing::Image(offset) => (FIXED, Some(fds.image), offset.0),
        Backing::File { fd, offset } => (FIXED, Some(fd), offset),
        Backing::Shared { fd, offset } => (FIXED_SHARED, Some(fd), offset),
    };
    ops.push(calls::mmap(start, len, piece.prot, flags | extra, fd, offset));
    if piece.flags.has(VmaFlags::DROPPABLE) {
        // A kernel that does not know it keeps the mapping above; both lose their content at fork.
        let flags = MAP_DROPPABLE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        ops.push(calls::madvise(start, len, libc::MADV_WIPEONFORK, Expect::Success));
        ops.push(calls::try_mmap(start, len, piece.prot, flags));
    }
    if piece.flags.has(VmaFlags::WIPE_ON_FORK) {
        ops.push(calls::madvise(start, len, libc::MADV_WIPEONFORK, Expect::Success));
    }
    ops.extend(advised(piece.flags, start, len));
}

/// What any memory with these flags is advised of.
pub(super) fn advised(flags: VmaFlags, start: u64, len: u64) -> impl Iterator<Item = Op> {
    let advice = [
        (VmaFlags::DONT_DUMP, libc::MADV_DONTDUMP, Expect::Success),
        (VmaFlags::HUGE_PAGE, libc::MADV_HUGEPAGE, Expect::Ignored),
        (VmaFlags::NO_HUGE_PAGE, libc::MADV_NOHUGEPAGE, Expect::Ignored),
        (VmaFlags::MERGEABLE, libc::MADV_MERGEABLE, Expect::Ignored),
    ];
    let wanted = advice.into_iter().filter(move |(bit, ..)| flags.has(*bit));
    wanted.map(move |(_, advice, expect)| calls::madvise(start, len, advice, expect))
}

fn fill_stacks(
    ops: &mut Vec<Op>,
    pieces: &[Piece],
    places: &Places<'_>,
    fds: &TemplateFds,
) -> Result<(), CompileError> {
    let mut total = 0;
    for piece in pieces.iter().filter(|piece| piece.copied) {
        // A stack's pages are where they are, whoever owns them: neighbours are one read.
        let mut runs: Vec<SeedRange> = Vec::new();
        for run in places.present(piece.range).filter(|run| run.source != Source::Zero) {
            match runs.last_mut() {
                Some(last) if last.end == run.range.start => last.end = run.range.end,
                _ => runs.push(run.range),
            }
        }
        for run in runs {
            total += run.len();
            let Backing::Image(offset) =
                places.image_at(run.start).map_err(CompileError::NotInImage)?
            else {
                continue;
            };
            ops.push(calls::pread(fds.image, run.start.0, run.len(), offset.0));
        }
    }
    if total > MAX_STACK_COPY { Err(CompileError::StackTooLarge(total)) } else { Ok(()) }
}

/// In the place of a program's descriptor.
const KEEP_EXE: u32 = u32::MAX;

/// PR_SET_MM_MAP. The auxiliary vector must lie somewhere while the kernel reads it: in the mailbox. /proc/self/exe becomes
/// the seed's program where that is here, else what stands in for it (which takes a capability, so it may fail).
fn set_layout(ops: &mut Vec<Op>, desc: &Descriptor, scratch: u64, fds: &TemplateFds) {
    let auxv = &desc.process.auxv;
    debug_assert!(auxv.len() as u64 <= MAIL_LEN);
    ops.push(Op::Store { addr: scratch, bytes: auxv.clone() });
    let layout = &desc.process.layout;
    let set = |exe: u32, expect: Expect| {
        let map = mm_map(layout, scratch, auxv.len(), exe);
        let len = map.len() as u64;
        let what = u64::from(libc::PR_SET_MM_MAP.cast_unsigned());
        calls::prctl(libc::PR_SET_MM, [what.into(), map.into(), len.into()], expect)
    };
    ops.push(set(KEEP_EXE, Expect::Success));
    let fd = program(desc).and_then(|index| fds.files.get(&index).copied()).or(fds.stand_in);
    ops.extend(fd.map(|fd| set(fd, Expect::Ignored)));
}

/// PR_SET_MM_MAP of what another auxiliary vector and program are told of already.
pub(super) fn tell_layout(layout: &MmLayout, expect: Expect) -> Op {
    let map = mm_map(layout, 0, 0, KEEP_EXE);
    let len = map.len() as u64;
    let what = u64::from(libc::PR_SET_MM_MAP.cast_unsigned());
    calls::prctl(libc::PR_SET_MM, [what.into(), map.into(), len.into()], expect)
}

/// The seed's program among its files.
pub(super) fn program(desc: &Descriptor) -> Option<u16> {
    let is_program = |file: &MappedFile| file.path == desc.process.exe;
    desc.files.iter().position(is_program).and_then(|index| u16::try_from(index).ok())
}

/// A `struct prctl_mm_map`.
fn mm_map(layout: &MmLayout, auxv: u64, auxv_len: usize, exe: u32) -> Vec<u8> {
    let MmLayout { code, data, brk, stack, args, env } = *layout;
    let addresses =
        [code.0, code.1, data.0, data.1, brk.0, brk.1, stack, args.0, args.1, env.0, env.1, auxv];
    let mut map = addresses.map(u64::to_le_bytes).concat();
    map.extend_from_slice(&u32::try_from(auxv_len).unwrap_or(0).to_le_bytes());
    map.extend_from_slice(&exe.to_le_bytes());
    map
}

fn set_process_state(ops: &mut Vec<Op>, desc: &Descriptor, host: &HostFacts) {
    let process = &desc.process;
    for (signal, action) in (1..).zip(&process.signal_actions) {
        let fixed = signal == u64::from(libc::SIGKILL.cast_unsigned())
            || signal == u64::from(libc::SIGSTOP.cast_unsigned());
        // The keeper's children start with default actions.
        if !fixed && *action != SignalAction::default() {
            let SignalAction { handler, flags, restorer, mask } = *action;
            let bytes = [handler, flags, restorer, mask].map(u64::to_le_bytes).concat();
            ops.push(calls::sigaction(signal, bytes));
        }
    }
    ops.push(calls::personality(process.personality));
    ops.push(calls::umask(process.umask));
    if desc.root.is_none() {
        set_directories(ops, desc);
    }
    for (resource, at) in (0..).zip(0..process.limits.len()) {
        let is_late = resource == u64::from(libc::RLIMIT_FSIZE) && limits_files_late(desc);
        if let Some((soft, hard)) = limit_here(desc, host, at).filter(|_| !is_late) {
            ops.push(calls::set_limit(resource, soft, hard));
        }
    }
}

/// Another root comes behind all that opens a file of the host's.
fn set_directories(ops: &mut Vec<Op>, desc: &Descriptor) {
    ops.extend(desc.root.as_deref().map(calls::chroot));
    // Where the seed's directory is not here, or had been removed, a child is at a place that it can tell.
    ops.push(calls::chdir("/", Expect::Success));
    ops.push(calls::chdir(&desc.process.cwd, Expect::Ignored));
}

/// A `stack_t`.
pub(super) fn alternate_stack(base: u64, flags: u32, size: u64) -> Vec<u8> {
    let flags = if size == 0 { SS_DISABLE } else { flags };
    let mut bytes = base.to_le_bytes().to_vec();
    bytes.extend_from_slice(&u64::from(flags & !1).to_le_bytes());
    bytes.extend_from_slice(&size.to_le_bytes());
    bytes
}

#[cfg(test)]
#[path = "compile_tests.rs"]
pub(crate) mod tests;
