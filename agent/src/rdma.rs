//! What RDMA there is here, for `info` to show and `doctor` to judge.

use mitosis::agent::rdma::pinned_at_start;
use mitosis::verbs::choice::{self, Choice, DeviceFacts, Settings};
use mitosis::verbs::{self, DcCaps, DeviceCaps, EventChannel, Memlock};

use crate::daemon::own_address;
use crate::settings::Settled;

/// One device.
#[derive(Clone, Debug)]
pub struct DeviceView {
    /// What choosing goes by.
    pub facts: DeviceFacts,
    /// What it can do; none if it cannot be opened.
    pub caps: Option<DeviceCaps>,
    /// Whether it serves DC; none if libmlx5 does not know it, or is not there.
    pub dc: Option<Result<DcCaps, String>>,
}

/// All that there is.
#[derive(Debug)]
pub struct Facts {
    /// The devices, or why there are none.
    pub devices: Result<Vec<DeviceView>, String>,
    /// Whether connections can be made, or why not; asked where there are devices.
    pub connections: Option<Result<(), String>>,
    /// What may be pinned, and what is needed.
    pub memlock: Memlock,
    /// What the settings ask for, in words; or what is wrong with them.
    pub settings: Result<Settings, String>,
    /// What they come to.
    pub choice: Result<Choice, String>,
}

impl Facts {
    /// Of this host and process; opens the libraries.
    pub fn gather(settled: &Settled) -> Self {
        let surveyed = verbs::survey();
        let settings = settled.rdma().map_err(|error| error.to_string());
        let known: Result<Vec<DeviceFacts>, String> = match &surveyed {
            Ok(devices) => Ok(devices.iter().map(|device| device.facts.clone()).collect()),
            Err(error) => Err(error.to_string()),
        };
        let choice = settings.as_ref().map_err(Clone::clone).and_then(|settings| {
            let known = known.as_deref().map_err(Clone::clone);
            let dc = |port: &choice::ChosenPort| match &surveyed {
                Ok(devices) => {
                    verbs::try_dc_on(devices, port).map(drop).map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            // As an agent does: of several GIDs it takes the one of its own address.
            let own = own_address(settled);
            choice::choose(settings, known, own, dc).map_err(|error| error.to_string())
        });
        let view = |device: verbs::Surveyed| DeviceView {
            dc: device.dc().map(|found| found.map_err(|error| error.to_string())),
            caps: device.caps,
            facts: device.facts,
        };
        let devices = match surveyed {
            Ok(devices) => Ok(devices.into_iter().map(view).collect::<Vec<_>>()),
            Err(error) => Err(error.to_string()),
        };
        let any = devices.as_ref().is_ok_and(|devices| !devices.is_empty());
        let connections =
            any.then(|| EventChannel::new().map(drop).map_err(|error| error.to_string()));
        let ready_mib = settled.number("arena_ready_mib").unwrap_or_default();
        let memlock = Memlock::of_this_process(pinned_at_start(ready_mib << 20));
        Self { devices, connections, memlock, settings, choice }
    }
}

/// What a device's on-demand paging serves.
pub fn odp(caps: &DeviceCaps) -> &'static str {
    match (caps.odp.explicit && caps.odp.rc_read, caps.odp.implicit) {
        (true, true) => "READs of unpinned memory, whole address spaces too",
        (true, false) => "READs of unpinned memory",
        (false, _) => "none",
    }
}

/// What a device's DC serves.
pub fn dc(device: &DeviceView) -> String {
    match &device.dc {
        None => "none: no mlx5 device, or no libmlx5".to_owned(),
        Some(Err(error)) => format!("none: {error}"),
        Some(Ok(caps)) => {
            let streams = match (caps.log_streams, caps.log_failed_streams) {
                (0, _) => "no streams".to_owned(),
                (log, 0) => format!("{} streams, not isolated", 1u32 << log),
                (log, failed) => {
                    format!("{} streams, {} may fail alone", 1u32 << log, 1u32 << failed)
                }
            };
            let depth = match caps.max_rd_atomic {
                0 => String::new(),
                depth => format!("{depth} READs at a time, "),
            };
            format!("yes; {depth}{streams}")
        }
    }
}
