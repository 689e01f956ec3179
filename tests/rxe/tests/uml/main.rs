//! The `rc` fabric between many hosts: guests in user mode, an owner's program or a reader's on each.
//!
//! `make test-uml` runs these: they boot up to eight guests each, and need `suite-fabric`. What a fork
//! does is tested in `guests`; here are numbers of hosts, and hosts, links and owners that fail.
#![allow(missing_docs)]

mod bed;
mod hosts;
mod losses;

use mitosis_guests::Device;

/// What fabrics do alike over both devices.
macro_rules! device {
    ($name:ident, $device:expr) => {
        mod $name {
            use crate::{Device, losses};

            const DEVICE: Device = $device;

            #[test]
            fn seven_hosts_read_one() {
                losses::seven_hosts_read_one(DEVICE);
            }

            #[test]
            fn a_host_is_killed_in_mid_read() {
                losses::a_host_is_killed_in_mid_read(DEVICE);
            }

            #[test]
            fn a_seed_is_revoked_under_seven_readers() {
                losses::a_seed_is_revoked_under_seven_readers(DEVICE);
            }

            #[test]
            fn an_owner_restarts() {
                losses::an_owner_restarts(DEVICE);
            }

            #[test]
            fn a_link_flaps() {
                losses::a_link_flaps(DEVICE);
            }

            #[test]
            fn a_seed_above_the_arenas_bound() {
                losses::a_seed_above_the_arenas_bound(DEVICE);
            }

            #[test]
            fn more_queues_than_connections() {
                losses::more_queues_than_connections(DEVICE);
            }
        }
    };
}

device!(rxe, Device::SoftRoce);
device!(siw, Device::SoftIwarp);
