//! What prepare costs.

use super::*;

/// No test: what prepare costs beside fork(2), for people.
pub(crate) fn cost() {
    for pages in [1usize << 10, 50 << 10] {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: nothing else is there; 4 KiB pages throughout.
        unsafe {
            let at = PRIVATE_AT + ((pages * PAGE) as u64) * 16;
            let memory = map(at, pages, flags, -1);
            libc::madvise(memory.as_mut_ptr().cast(), memory.len(), libc::MADV_NOHUGEPAGE);
            memory.fill(1);
        }
        let mut ours = Vec::new();
        let mut forks = Vec::new();
        for _ in 0..31 {
            // Memory alone on its CPU, between the two.
            thread::sleep(Duration::from_millis(20));
            let began = Instant::now();
            let seed = seed();
            ours.push(began.elapsed().as_micros());
            drop_and_reap(seed);
            thread::sleep(Duration::from_millis(20));
            let began = Instant::now();
            // SAFETY: the child ends at once.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    libc::pause();
                }
                forks.push(began.elapsed().as_micros());
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, null_mut(), 0);
            }
        }
        for times in [&mut ours, &mut forks] {
            times.sort_unstable();
        }
        let show = |times: &[u128]| format!("{} [{} {}]", times[15], times[3], times[27]);
        eprintln!(
            "{} MiB: prepare {} us, fork {} us (median [p10 p90] of 31, interleaved)",
            (pages * PAGE) >> 20,
            show(&ours),
            show(&forks)
        );
    }
    panic!("figures above");
}
