//! Where and how eagerly a thread runs.

use std::io;

/// Pins the calling thread to one CPU (sched_setaffinity(2)).
///
/// # Errors
/// EINVAL: there is no such CPU, or the cpuset forbids it.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is plain data for which all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `cpu` is below the set's size in bits.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` lives through the call; 0 names the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The calling thread runs when nobody else wants to (SCHED_IDLE, sched(7)).
///
/// # Errors
/// sched_setscheduler(2)'s; a thread may always do this.
pub fn run_when_idle() -> io::Result<()> {
    // SAFETY: sched_param is plain data for which all zero is priority 0, the one that this policy has.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: `parameters` lives through the call; 0 names the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets the calling thread's nice value (setpriority(2): Linux keeps one per thread).
///
/// # Errors
/// EACCES or EPERM: a lower value needs CAP_SYS_NICE or RLIMIT_NICE.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: no memory is passed; 0 names the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
