//! Failures: each an error with its remedy, and nothing left behind.

use std::sync::atomic::AtomicBool;

use mitosis::client::ClientError;

use super::*;

pub(crate) fn a_thread_started_by_a_fork_handler_is_refused_by_name() {
    START_A_THREAD.store(true, SeqCst);
    match seed().handle() {
        Err(ClientError::Failed(failure)) => {
            let text = failure.to_string();
            assert!(text.contains("'sneaky'") && text.contains("LD_PRELOAD"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

static START_A_THREAD: AtomicBool = AtomicBool::new(false);

/// Earlier than libmitosis's own.
#[used]
#[unsafe(link_section = ".init_array.00099")]
static EARLY: extern "C" fn() = register_early;

extern "C" fn register_early() {
    // SAFETY: a handler that does nothing unless its case asks.
    unsafe { libc::pthread_atfork(None, None, Some(start_a_thread)) };
}

unsafe extern "C" fn start_a_thread() {
    extern "C" fn idle(_: *mut libc::c_void) -> *mut libc::c_void {
        loop {
            // SAFETY: sleeps.
            unsafe { libc::pause() };
        }
    }
    if START_A_THREAD.load(SeqCst) {
        // SAFETY: a fresh thread with live arguments.
        unsafe {
            let mut thread = 0;
            assert_eq!(libc::pthread_create(&raw mut thread, null(), idle, null_mut()), 0);
            libc::pthread_setname_np(thread, c"sneaky".as_ptr());
        }
    }
}

pub(crate) fn without_an_agent_nothing_stops() {
    let before = (fds(), signal_state());
    let error = seed_with(&PrepareOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("agent.sock") && text.contains("'mitosis agent'"), "{text}");
    assert_eq!((fds(), signal_state()), before);
}

pub(crate) fn an_agent_that_hangs_up_is_an_error_at_once() {
    let began = Instant::now();
    let seed = seed();
    let error = seed.handle().unwrap_err();
    assert!(matches!(error, ClientError::Closed { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2));
    let deadline = Instant::now() + Duration::from_secs(5);
    while !seed.reaped() {
        assert!(Instant::now() < deadline, "the seed outlived its agent");
        thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn a_sandbox_without_dispatch_is_refused_unless_a_visible_seed_is_allowed() {
    const PR_SET_SYSCALL_USER_DISPATCH: u32 = 59;
    let einval = libc::SECCOMP_RET_ERRNO | libc::EINVAL.cast_unsigned();
    filter(libc::SYS_prctl, Some(PR_SET_SYSCALL_USER_DISPATCH), einval);
    let before = (fds(), signal_state());
    let error = seed_with(&PrepareOptions::default()).unwrap_err();
    assert!(matches!(error, PrepareError::NoDispatch), "{error}");
    assert!(error.to_string().contains("allow_visible_seed"), "{error}");
    assert_eq!((fds(), signal_state()), before);
    handle(libc::SIGCHLD, count_signal as *const () as usize);
    let options = PrepareOptions { allow_visible_seed: true, ..PrepareOptions::default() };
    let seed = seed_with(&options).unwrap();
    seed.handle().unwrap();
    // SAFETY: asks.
    assert_eq!(unsafe { libc::waitpid(-1, null_mut(), libc::WNOHANG) }, 0, "it shows");
    assert_eq!(signal_state()[0], before.1[0]);
    drop_and_reap(seed);
    assert_eq!(SIGNALS_SEEN.load(SeqCst), 1);
}

pub(crate) fn a_process_that_is_not_dumpable_is_refused() {
    // SAFETY: drops root, then asks for what setuid programs have anyway.
    unsafe {
        let socket = std::env::var("MITOSIS_AGENT").unwrap();
        let open = |path: &std::path::Path| {
            let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            fs::set_permissions(path, everybody).unwrap();
        };
        open(socket.as_ref());
        open(std::path::Path::new(&socket).parent().unwrap());
        assert_eq!(libc::setresuid(65534, 65534, 65534), 0);
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 0), 0);
    }
    match seed().handle() {
        Err(ClientError::Failed(failure)) => {
            assert!(failure.to_string().contains("PR_SET_DUMPABLE"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn a_fork_that_fails_leaves_nothing() {
    let error = mitosis::client::fork(Some("host-b")).unwrap_err().to_string();
    assert!(error.contains("a stand-in cannot Resume"), "{error}");
    let seeds = || {
        let ours = |stat: String| {
            let rest = stat.rsplit_once(") ").unwrap().1.to_owned();
            rest.split(' ').nth(1).unwrap().parse() == Ok(std::process::id())
        };
        let stats = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| fs::read_to_string(entry.unwrap().path().join("stat")).ok());
        stats.filter(|stat| stat.contains(") ")).filter(|stat| ours(stat.clone())).count()
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while seeds() > 0 {
        assert!(Instant::now() < deadline, "a seed is left");
        thread::sleep(Duration::from_millis(2));
    }
}
