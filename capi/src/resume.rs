//! Children of a seed, by its handle.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt::Display;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::str::FromStr;
use std::{ptr, slice};

use mitosis_core::client::{self, AgentAddress, resume};
use mitosis_core::id::Handle;
use mitosis_core::prepare::MAX_MAIL_BYTES;

use crate::boundary::{boundary, not_null};
use crate::child::Child;
use crate::error::{Failed, MITOSIS_OK, MitosisErr};
use crate::fork::agent;
use crate::options::{SizeFirst, check_flags, read};
use crate::text;

/// For mitosis_resume_options.flags: the seed ends with the last of these children.
pub const MITOSIS_RESUME_SEED_ENDS_WITH_CHILDREN: u32 = 1;

/// For mitosis_resume_options.flags: CLOCK_MONOTONIC, CLOCK_BOOTTIME and timers go on in the children from where they stood
/// at prepare. Without it they are as in their parent now, and what was to happen meanwhile happens at once.
pub const MITOSIS_RESUME_CLOCK_FROZEN: u32 = 2;

/// How to resume. Set all to zero, then size, then what you need; zero is the default everywhere.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ResumeOptions {
    /// sizeof(struct mitosis_resume_options).
    pub size: usize,
    /// The socket of this host's agent; NULL: as in mitosis_prepare_options.
    pub agent: *const c_char,
    /// Where the children run: "host" or "host:port"; NULL: this host.
    pub host: *const c_char,
    /// What mitosis_payload() tells in each child; NULL if payload_size is 0.
    pub payload: *const c_void,
    /// Its bytes; with the environment at most 1 MiB.
    pub payload_size: usize,
    /// Changes of the children's environment, ended by NULL: "NAME=VALUE" sets, "NAME" unsets. NULL: none.
    pub environment: *const *const c_char,
    /// Three descriptors, the children's stdin, stdout and stderr, which stay the caller's; NULL: the
    /// caller's own 0, 1 and 2.
    pub stdio: *const c_int,
    /// MITOSIS_RESUME_* flags.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Where sockets of the seed's listen in the children, ended by NULL: "all", "PORT", "PORT=PORT", "unix:/PATH" or
    /// "unix:/PATH=/PATH". They do before any child runs; to one that is not named no connection comes. NULL: none.
    pub listen: *const *const c_char,
    /// The children's working directory, an absolute path that is there on their host; NULL: the seed's, if it is there,
    /// else "/".
    pub cwd: *const c_char,
    /// What the children find as their host's name; NULL: the host's own.
    pub hostname: *const c_char,
    /// The control group that the children enter, a directory of their host ("/sys/fs/cgroup/..."); NULL: the agent's.
    pub cgroup: *const c_char,
    /// Namespaces of their host that the children join, one of a kind, ended by NULL: "net=/run/netns/NAME"; kinds are cgroup,
    /// ipc, net, uts and mnt. NULL: none.
    pub namespaces: *const *const c_char,
    /// What /proc/self/cmdline and ps(1) tell of the children, ended by NULL, the program's name first; at most 128 KiB. The
    /// argv of main() stays what it is. NULL: as in the seed.
    pub argv: *const *const c_char,
    /// The id map of a user namespace that the children are in, ended by NULL: "INSIDE:OUTSIDE:COUNT" ("0:100000:65536"), users and
    /// groups alike. For a seed of one thread. NULL: they are in their agent's.
    pub id_map: *const *const c_char,
}

// SAFETY: repr(C), a usize first; pointers and integers without padding (asserted).
unsafe impl SizeFirst for ResumeOptions {
    const NAME: &'static str = "mitosis_resume_options";
}
const _: () = assert!(size_of::<ResumeOptions>() == 120);

/// Starts children of a seed. All of them are started, or none.
///
/// handle:   of the seed, from mitosis_seed_handle().
/// options:  NULL for the defaults.
/// count:    how many children, 1 to 10,000.
/// children: an array with room for count pointers, which receives the children in the order of their
///           mitosis_child_index(), or NULLs on failure. Free each with mitosis_child_free().
///
/// RETURN VALUE: MITOSIS_OK, or a negative code.
///
/// ERRORS:
/// MITOSIS_ERR_NULL           handle or children is NULL, or payload is with a payload_size.
/// MITOSIS_ERR_HANDLE         handle is no handle.
/// MITOSIS_ERR_ARGUMENT       count, the size of payload and environment, a name in the environment, a
///                            descriptor that is not open, text that is not UTF-8, a place to listen that the
///                            seed has not or that is taken; options: size, flags,
///                            or a field that this version does not know.
/// MITOSIS_ERR_NO_AGENT, MITOSIS_ERR_AGENT_CLOSED, MITOSIS_ERR_AGENT_SILENT, MITOSIS_ERR_CONNECTION
///                            the agent of this host could not be asked.
/// MITOSIS_ERR_SEED_GONE      the seed was dropped, has ended, or was never there.
/// MITOSIS_ERR_KEY_REFUSED    the key of the handle is wrong, or this user may not resume so.
/// MITOSIS_ERR_HOST_UNFIT     the host cannot run the seed.
/// MITOSIS_ERR_UNREACHABLE    the seed's host, or the one that shall run the children, does not answer.
/// MITOSIS_ERR_SECRET         the hosts have no cluster secret in common.
/// MITOSIS_ERR_PROTOCOL       versions do not understand each other.
/// MITOSIS_ERR_LIMIT          a limit is reached.
/// MITOSIS_ERR_MISSING        the host lacks /dev/fuse, a capability or a kernel feature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_resume(
    handle: *const c_char,
    options: *const ResumeOptions,
    count: u32,
    children: *mut *mut Child,
) -> c_int {
    boundary(|| {
        let children = not_null!(children);
        check_count(count)?;
        // SAFETY: C's: room for that many pointers.
        unsafe { clear(children, count) };
        // SAFETY: C's, for each pointer.
        let (agent, options) = unsafe { asked(handle, options, count)? };
        // SAFETY: C's: room for that many pointers.
        unsafe { hand_over(resume(&agent, options)?, children, count) }
    })
}

/// Before an array of that many is written to.
fn check_count(count: u32) -> Result<(), Failed> {
    if count <= client::MAX_COUNT {
        return Ok(());
    }
    let message = format!("{count} children cannot be started: ask for 1 to {}", client::MAX_COUNT);
    Err(Failed::new(MitosisErr::Argument, message))
}

/// # Safety
/// `children` has room for `count` pointers.
pub(crate) unsafe fn clear(children: NonNull<*mut Child>, count: u32) {
    for i in 0..count as usize {
        // SAFETY: the caller's.
        unsafe { children.add(i).write(ptr::null_mut()) };
    }
}

/// # Safety
/// `handle` is null or a string, `options` null or what the header demands of it.
pub(crate) unsafe fn asked(
    handle: *const c_char,
    options: *const ResumeOptions,
    count: u32,
) -> Result<(AgentAddress, client::ResumeOptions), Failed> {
    check_count(count)?;
    let handle = not_null!(handle);
    // SAFETY: the caller's: a string.
    let handle = unsafe { text::optional(handle.as_ptr(), "handle")? }.unwrap_or_default();
    // SAFETY: the caller's.
    let (agent, mut options) = unsafe { resume_options(handle.parse()?, options)? };
    options.count = count;
    Ok((agent, options))
}

/// # Safety
/// `children` has room for `count` pointers.
pub(crate) unsafe fn hand_over(
    started: Vec<client::Child>,
    children: NonNull<*mut Child>,
    count: u32,
) -> Result<c_int, Failed> {
    if started.len() != count as usize {
        let message = format!("{} of {count} children were started", started.len());
        return Err(Failed::new(MitosisErr::Protocol, message));
    }
    for (i, child) in started.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { children.add(i).write(Child::for_c(child)) };
    }
    Ok(MITOSIS_OK)
}

/// # Safety
/// `options` is null, or what the header demands of it.
unsafe fn resume_options(
    handle: Handle,
    options: *const ResumeOptions,
) -> Result<(AgentAddress, client::ResumeOptions), Failed> {
    let mut wanted = client::ResumeOptions::new(handle);
    if options.is_null() {
        return Ok((AgentAddress::find(), wanted));
    }
    // SAFETY: the caller's.
    let options = unsafe { read(options)? };
    let known = MITOSIS_RESUME_SEED_ENDS_WITH_CHILDREN | MITOSIS_RESUME_CLOCK_FROZEN;
    check_flags(options.flags, known, options.reserved, ResumeOptions::NAME)?;
    // SAFETY: the caller's, for each pointer.
    unsafe {
        wanted.host = text::optional(options.host, "host")?.map(str::to_owned);
        wanted.payload = payload(options.payload, options.payload_size)?;
        wanted.environment = environment(options.environment)?;
        wanted.stdio = stdio(options.stdio)?;
        wanted.listen = parsed::<client::Listen>(options.listen, "listen")?;
        wanted.cwd = text::optional(options.cwd, "cwd")?.map(str::to_owned);
        wanted.hostname = text::optional(options.hostname, "hostname")?.map(str::to_owned);
        wanted.cgroup = text::optional(options.cgroup, "cgroup")?.map(str::to_owned);
        wanted.namespaces = parsed::<client::Namespace>(options.namespaces, "namespaces")?;
        wanted.argv = argv(options.argv)?;
        wanted.id_map = parsed::<client::IdMap>(options.id_map, "id_map")?;
    }
    let has = |flag: u32| options.flags & flag != 0;
    wanted.seed_ends_with_children = has(MITOSIS_RESUME_SEED_ENDS_WITH_CHILDREN);
    wanted.clock =
        if has(MITOSIS_RESUME_CLOCK_FROZEN) { client::Clock::Frozen } else { client::Clock::Live };
    // SAFETY: the caller's: null or a string.
    let agent = unsafe { agent(options.agent) };
    Ok((agent.unwrap_or_else(AgentAddress::find), wanted))
}

/// # Safety
/// `payload` is null or that many readable bytes.
unsafe fn payload(payload: *const c_void, bytes: usize) -> Result<Vec<u8>, Failed> {
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let payload = not_null!(payload);
    if bytes > MAX_MAIL_BYTES {
        return Err(too_much_mail(bytes));
    }
    // SAFETY: the caller's; it is copied before this returns.
    Ok(unsafe { slice::from_raw_parts(payload.cast::<u8>().as_ptr(), bytes) }.to_vec())
}

fn too_much_mail(bytes: usize) -> Failed {
    Failed::new(
        MitosisErr::Argument,
        format!(
            "payload and environment are {bytes} bytes or more, above the limit of {MAX_MAIL_BYTES}: \
             pass a path or a key instead"
        ),
    )
}

/// # Safety
/// `entries` is null or an array of strings that ends with a null pointer.
unsafe fn environment(
    entries: *const *const c_char,
) -> Result<Vec<(String, Option<String>)>, Failed> {
    let (mut changes, mut bytes) = (Vec::new(), 0);
    if entries.is_null() {
        return Ok(changes);
    }
    for at in 0.. {
        // SAFETY: the caller's: every entry before this one was not the last.
        let entry = unsafe { entries.add(at).read() };
        if entry.is_null() {
            break;
        }
        // SAFETY: the caller's: a string.
        bytes += unsafe { CStr::from_ptr(entry) }.count_bytes() + 1;
        if bytes > MAX_MAIL_BYTES {
            return Err(too_much_mail(bytes));
        }
        // SAFETY: as above.
        let entry = unsafe { text::optional(entry, "environment")? }.unwrap_or_default();
        changes.push(match entry.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (entry.to_owned(), None),
        });
    }
    Ok(changes)
}

/// # Safety
/// `entries` is null or an array of strings that ends with a null pointer.
unsafe fn argv(entries: *const *const c_char) -> Result<Vec<String>, Failed> {
    let (mut argv, mut bytes) = (Vec::new(), 0);
    // One that has too much is refused by who is asked; nobody reads on behind it.
    while !entries.is_null() && bytes <= client::MAX_ARGV_BYTES {
        // SAFETY: the caller's: every entry before this one was not the last.
        let entry = unsafe { entries.add(argv.len()).read() };
        if entry.is_null() {
            break;
        }
        // SAFETY: the caller's: a string.
        let entry = unsafe { text::optional(entry, "argv")? }.unwrap_or_default();
        bytes += entry.len() + 1;
        argv.push(entry.to_owned());
    }
    Ok(argv)
}

/// # Safety
/// `entries` is null, or pointers to strings, the last one null.
unsafe fn parsed<T: FromStr<Err: Display>>(
    entries: *const *const c_char,
    what: &str,
) -> Result<Vec<T>, Failed> {
    let mut choices = Vec::new();
    if entries.is_null() {
        return Ok(choices);
    }
    for at in 0..=client::MAX_CHOICES {
        // SAFETY: the caller's: every entry before this one was not the last.
        let entry = unsafe { entries.add(at).read() };
        if entry.is_null() {
            break;
        }
        // SAFETY: the caller's: a string.
        let entry = unsafe { text::optional(entry, what)? }.unwrap_or_default();
        let refuse = |error: T::Err| Failed::new(MitosisErr::Argument, error.to_string());
        choices.push(entry.parse().map_err(refuse)?);
    }
    Ok(choices)
}

/// # Safety
/// `numbers` is null or three readable ints.
unsafe fn stdio(numbers: *const c_int) -> Result<Option<[OwnedFd; 3]>, Failed> {
    if numbers.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's.
    let numbers = unsafe { numbers.cast::<[c_int; 3]>().read() };
    let own = |number: c_int| {
        let refuse = |why: String| {
            Failed::new(MitosisErr::Argument, format!("stdio names descriptor {number}: {why}"))
        };
        if number < 0 {
            return Err(refuse("it is negative".to_owned()));
        }
        // SAFETY: borrowed for the call only; a number that is not open fails there.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        borrowed.try_clone_to_owned().map_err(|error| refuse(error.to_string()))
    };
    let [stdin, stdout, stderr] = numbers.map(own);
    Ok(Some([stdin?, stdout?, stderr?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_is_split_at_the_first_sign() {
        let entries = [c"A=1=2".as_ptr(), c"B".as_ptr(), c"C=".as_ptr(), ptr::null()];
        // SAFETY: literals, ended by null.
        let changes = unsafe { environment(entries.as_ptr()) }.unwrap();
        let some = |value: &str| Some(value.to_owned());
        assert_eq!(
            changes,
            [("A".to_owned(), some("1=2")), ("B".to_owned(), None), ("C".to_owned(), some(""))]
        );
    }

    #[test]
    fn places_to_listen_are_parsed() {
        let entries = [c"all".as_ptr(), c"80=8080".as_ptr(), ptr::null()];
        // SAFETY: literals, ended by null.
        let choices = unsafe { parsed::<client::Listen>(entries.as_ptr(), "listen") }.unwrap();
        let port = client::Listen::Port { was: 80, now: 8080 };
        assert_eq!(choices, [client::Listen::All, port]);
        let entries = [c"nowhere".as_ptr(), ptr::null()];
        // SAFETY: as above.
        let failed = unsafe { parsed::<client::Listen>(entries.as_ptr(), "listen") }.unwrap_err();
        assert_eq!(failed.code, MitosisErr::Argument);
        // SAFETY: null is none.
        assert_eq!(unsafe { parsed::<client::Listen>(ptr::null(), "listen") }.unwrap(), []);
    }

    #[test]
    fn mail_at_the_limit_and_one_past_it() {
        let bytes = vec![7u8; MAX_MAIL_BYTES + 1];
        let copied = |len| {
            // SAFETY: at most what the vector has.
            unsafe { payload(bytes.as_ptr().cast(), len) }
        };
        assert_eq!(copied(MAX_MAIL_BYTES).unwrap().len(), MAX_MAIL_BYTES);
        assert_eq!(copied(MAX_MAIL_BYTES + 1).unwrap_err().code, MitosisErr::Argument);
        // SAFETY: null is allowed, and refused.
        let null = unsafe { payload(ptr::null(), 1) };
        assert_eq!(null.unwrap_err().code, MitosisErr::Null);
    }

    #[test]
    fn descriptors_that_are_not_open_are_named() {
        for bad in [[0, 1, -1], [0, 1, 99_999]] {
            // SAFETY: three ints.
            let failed = unsafe { stdio(bad.as_ptr()) }.unwrap_err();
            assert_eq!(failed.code, MitosisErr::Argument);
            assert!(failed.message.contains(&bad[2].to_string()), "{}", failed.message);
        }
    }
}
