//! Mitosis between two machines: kernels, memories and RDMA devices of their own.
//!
//! `make test-rxe` runs these: they boot emulated machines, and need the wheel, the agent and the
//! programs of the process suite. The machines are booted once and used by one test at a time.
#![allow(missing_docs)]

mod bed;
#[allow(dead_code, reason = "the process suite's own runner uses all of it")]
#[path = "../../../../agent/tests/process_suite/compile.rs"]
mod compile;
mod devices;
mod faults;
mod forking;
mod kernels;
mod losses;
#[allow(dead_code, reason = "the process suite's own runner uses all of it")]
#[path = "../../../../agent/tests/process_suite/outcome.rs"]
mod outcome;
mod revocation;
mod settings;
mod silence;
mod software_dc;
mod suite;
#[allow(dead_code, reason = "the process suite's own runner uses all of it")]
#[path = "../../../../agent/tests/process_suite/table.rs"]
mod table;
mod targets;
mod verbs;
mod world;

/// What every fabric does alike.
macro_rules! fabric {
    ($name:ident) => {
        mod $name {
            use crate::forking;

            const FABRIC: &str = stringify!($name);

            #[test]
            fn python_forks() {
                forking::python_forks(FABRIC);
            }

            #[test]
            fn every_page_arrives() {
                forking::every_page_arrives(FABRIC);
            }
        }
    };
}

/// What fabrics of a card do alike; over tcp the sealed hosts lose their agents.
macro_rules! card {
    ($name:ident, $fabric:expr) => {
        mod $name {
            #[test]
            fn a_child_is_forked() {
                crate::forking::a_child_is_forked($fabric);
            }

            #[test]
            fn what_is_read_after_the_drop_fails() {
                crate::revocation::what_is_read_after_the_drop_fails($fabric);
            }

            #[test]
            fn the_childs_agent_is_killed() {
                crate::losses::the_childs_agent_is_killed($fabric);
            }

            #[test]
            fn the_seeds_agent_is_killed() {
                crate::losses::the_seeds_agent_is_killed($fabric);
            }
        }
    };
}

/// A machine that loses its power is a boot for those who come behind: these are the last, and for the cards
/// alone; over tcp the sealed hosts cut links.
mod without_power {
    use crate::losses::{self, Others};
    use crate::world::TWO_KERNELS;
    use crate::{forking, kernels, suite};

    #[test]
    fn dc_seeds_machine_is_killed() {
        losses::the_seeds_machine_is_killed("dc", Others::BootMeanwhile);
    }

    /// The machines that have booted meanwhile.
    #[test]
    fn other_kernels_run_each_others_seeds() {
        kernels::run_each_others_seeds();
    }

    /// And over tcp, what the sealed hosts show of one kernel.
    #[test]
    fn other_kernels_over_tcp_1_every_page_arrives() {
        forking::every_page_arrives(TWO_KERNELS);
    }

    #[test]
    fn other_kernels_over_tcp_2_a_child_is_forked_back() {
        forking::a_child_is_forked(TWO_KERNELS);
    }

    #[test]
    fn other_kernels_over_tcp_3_the_childs_agent_is_killed() {
        losses::the_childs_agent_is_killed(TWO_KERNELS);
    }

    #[test]
    fn other_kernels_over_tcp_4_the_seeds_agent_is_killed() {
        losses::the_seeds_agent_is_killed(TWO_KERNELS);
    }

    #[test]
    fn other_kernels_over_tcp_5_programs_cross_both_ways() {
        suite::programs_cross_both_ways();
    }

    #[test]
    fn rc_seeds_machine_is_killed() {
        losses::the_seeds_machine_is_killed("rc", Others::None);
    }
}

fabric!(tcp);
fabric!(rc);
fabric!(dc);

// Each behind those of the same agents above, as tests run in the order of their names.
card!(rc_card, "rc");
card!(dc_card, "dc");
