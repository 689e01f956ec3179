//! RDMA: libraries, devices, ports, GIDs, memory that may be pinned, DC, and what is chosen.

use mitosis::verbs::choice::{FabricName, Wish};
use mitosis::verbs::{GidKind, LinkLayer, PortState, Transport};

use super::Check;
use crate::rdma::{self, DeviceView, Facts};

/// Judges what there is. Without RDMA nothing is missing but where it is required.
pub fn judge(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    match &facts.devices {
        Err(text) => checks.push(absent(text)),
        Ok(devices) if devices.is_empty() => checks.push(absent("no RDMA device is there")),
        Ok(devices) => {
            checks.extend(devices.iter().flat_map(device));
            checks.push(match &facts.connections {
                Some(Err(text)) => {
                    let remedy = "load rdma_ucm and install librdmacm; dc does without";
                    Check::lacking("rdma connections", format!("rc cannot be used: {text}"), remedy)
                }
                _ => Check::fine(
                    "rdma connections",
                    "librdmacm and /dev/infiniband/rdma_cm are there",
                ),
            });
            checks.push(memlock(facts));
        }
    }
    checks.push(choice(facts));
    checks
}

/// No RDMA: tcp is used.
fn absent(text: &str) -> Check {
    let (finding, remedy) = match text.split_once("): ") {
        Some((finding, remedy)) => (format!("{finding})"), remedy.to_owned()),
        None => (text.to_owned(), "none is needed for tcp".to_owned()),
    };
    Check::lacking("rdma", format!("{finding}; READs go by tcp"), remedy)
}

fn device(device: &DeviceView) -> Vec<Check> {
    let name = &device.facts.name;
    let Some(caps) = &device.caps else {
        let text = device.facts.trouble.clone().unwrap_or_default();
        let remedy = "run the agent as root, or give its user /dev/infiniband";
        return vec![Check::lacking(name, format!("cannot be opened: {text}"), remedy)];
    };
    let mut checks = vec![Check::fine(
        name,
        format!(
            "firmware {}, {} READs at a time; ODP: {}",
            caps.firmware,
            caps.max_qp_init_rd_atom,
            rdma::odp(caps)
        ),
    )];
    checks.push(match &device.dc {
        Some(Ok(_)) => Check::fine(format!("{name} DC"), rdma::dc(device)),
        _ => Check::lacking(
            format!("{name} DC"),
            rdma::dc(device),
            "rc serves as well, with a connection a host; dc needs a ConnectX-4 or later card and libmlx5",
        ),
    });
    for port in &device.facts.ports {
        let name = format!("{name}:{}", port.number);
        let mtu = port.mtu.bytes();
        checks.push(if port.state == PortState::Active {
            Check::fine(&name, format!("ACTIVE, {}, MTU {mtu}", port.link))
        } else {
            let remedy = match port.link {
                LinkLayer::Ethernet => "look at its cable, and take its network interface up",
                _ => "look at its cable, and at the subnet manager",
            };
            Check::lacking(&name, format!("is {}", port.state), remedy)
        });
        if device.facts.transport != Transport::Iwarp && port.link == LinkLayer::Ethernet {
            checks.push(gids(&name, port));
        }
    }
    checks
}

fn gids(name: &str, port: &mitosis::verbs::choice::PortFacts) -> Check {
    let usable = |kind| port.gids.iter().filter(move |entry| entry.kind == kind);
    let routable: Vec<_> = usable(GidKind::RoceV2)
        .filter(|entry| !entry.gid.is_link_local())
        .map(|entry| format!("{} ({})", entry.index, entry.gid.ip()))
        .collect();
    let name = format!("{name} GIDs");
    if routable.is_empty() {
        let found =
            format!("{} of RoCE v2, none of them routable", usable(GidKind::RoceV2).count());
        return Check::lacking(name, found, "give its network interface an IP address");
    }
    Check::fine(name, format!("RoCE v2: {}", routable.join(", ")))
}

fn memlock(facts: &Facts) -> Check {
    const NAME: &str = "pinned memory";
    if facts.memlock.suffices() {
        return Check::fine(NAME, facts.memlock.to_string());
    }
    let text = facts.memlock.to_string();
    let (finding, remedy) = text.rsplit_once(": ").unwrap_or((&text, "raise it"));
    // Whoever uses tcp pins nothing.
    let wished =
        facts.settings.as_ref().is_ok_and(|own| own.fabric.fabric == Some(FabricName::Tcp));
    if wished {
        Check::lacking(NAME, finding, remedy)
    } else {
        Check::missing(NAME, finding, remedy)
    }
}

fn choice(facts: &Facts) -> Check {
    const NAME: &str = "fabric";
    const REMEDY: &str = "see docs/rdma.md; MITOSIS_FABRIC=tcp does without RDMA";
    match (&facts.choice, &facts.settings) {
        (Ok(choice), _) if choice.fell_back.is_none() => {
            Check::fine(NAME, format!("{choice} ({})", choice.reason))
        }
        (Ok(choice), _) => Check::lacking(NAME, format!("{choice} ({})", choice.reason), REMEDY),
        (Err(text), Ok(settings)) => {
            let Wish { fabric, .. } = settings.fabric;
            let wanted = fabric.map_or("RDMA".to_owned(), |fabric| fabric.to_string());
            Check::missing(NAME, format!("{wanted} is required, but {text}"), REMEDY)
        }
        (Err(text), Err(_)) => Check::missing(NAME, text.clone(), REMEDY),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use mitosis::verbs::choice::{Choice, DeviceFacts, PortFacts, Settings};
    use mitosis::verbs::{DcCaps, DeviceCaps, Gid, GidEntry, Memlock, Mtu, OdpCaps};

    use super::super::Standing;
    use super::*;

    fn memlock(allowed_bytes: Option<u64>) -> Memlock {
        Memlock { needed_bytes: 64 << 20, allowed_bytes, pinned_bytes: 0 }
    }

    pub(crate) fn view(state: PortState, address: &str) -> DeviceView {
        let gid = Gid::from(address.parse::<std::net::IpAddr>().unwrap());
        let entry =
            GidEntry { index: 1, gid, kind: GidKind::RoceV2, netdev: Some("eth0".to_owned()) };
        let port = PortFacts {
            number: 1,
            state,
            link: LinkLayer::Ethernet,
            mtu: Mtu::B4096,
            lid: 0,
            gids: vec![entry],
        };
        let caps = DeviceCaps {
            firmware: "22.1".to_owned(),
            vendor_part: (0x2c9, 4119),
            ports: 1,
            max_mr_bytes: u64::MAX,
            max_mr: 100,
            max_qp: 100,
            max_qp_wr: 100,
            max_cqe: 100,
            max_qp_rd_atom: 16,
            max_qp_init_rd_atom: 16,
            odp: OdpCaps { explicit: true, implicit: false, rc_read: true },
        };
        let facts = DeviceFacts {
            name: "mlx5_0".to_owned(),
            transport: Transport::Ib,
            numa_distance: Some(10),
            trouble: None,
            ports: vec![port],
        };
        DeviceView { facts, caps: Some(caps), dc: Some(Ok(DcCaps::default())) }
    }

    pub(crate) fn facts(devices: Result<Vec<DeviceView>, String>) -> Facts {
        let choice = Choice {
            fabric: FabricName::Tcp,
            port: None,
            reason: "MITOSIS_FABRIC=auto".to_owned(),
            fell_back: None,
        };
        Facts {
            connections: devices.is_ok().then_some(Ok(())),
            devices,
            memlock: memlock(None),
            settings: Ok(Settings::default()),
            choice: Ok(choice),
        }
    }

    fn faults(facts: &Facts) -> Vec<(String, Standing)> {
        let checks = judge(facts).into_iter().filter(|check| check.standing != Standing::Fine);
        checks
            .inspect(|check| assert!(check.remedy.is_some(), "{check:?}"))
            .map(|check| (check.name, check.standing))
            .collect()
    }

    #[test]
    fn a_good_card_has_nothing_to_say() {
        let good = facts(Ok(vec![view(PortState::Active, "10.77.0.1")]));
        assert_eq!(faults(&good), []);
        let text = format!("{:?}", judge(&good));
        for part in
            ["RoCE v2: 1 (10.77.0.1)", "READs of unpinned memory", "MTU 4096", "yes; no streams"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_host_without_rdma_lacks_it_and_is_fine() {
        let none =
            "no RDMA here (ibv_get_device_list: not supported, errno 95): load the card's driver";
        for devices in [Err(none.to_owned()), Ok(Vec::new())] {
            assert_eq!(faults(&facts(devices)), [("rdma".to_owned(), Standing::Lacking)]);
        }
        let check = &judge(&facts(Err(none.to_owned())))[0];
        assert_eq!(check.remedy.as_deref(), Some("load the card's driver"));
    }

    #[test]
    fn a_port_that_is_down_an_address_that_is_local_and_a_card_without_dc_are_told() {
        let mut poor = view(PortState::Down, "fe80::1");
        poor.dc = Some(Err("mlx5dv_create_qp: not supported".to_owned()));
        let names: Vec<_> =
            faults(&facts(Ok(vec![poor]))).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["mlx5_0 DC", "mlx5_0:1", "mlx5_0:1 GIDs"]);
    }

    #[test]
    fn too_little_pinned_memory_is_missing_with_both_figures_unless_tcp_is_wished() {
        let mut short = facts(Ok(vec![view(PortState::Active, "10.77.0.1")]));
        short.memlock = memlock(Some(8 << 20));
        assert_eq!(faults(&short), [("pinned memory".to_owned(), Standing::Missing)]);
        let text = format!("{:?}", judge(&short));
        assert!(text.contains("67108864 bytes needed, 8388608 allowed"), "{text}");
        assert!(text.contains("ulimit -l unlimited"), "{text}");
        short.settings = Ok(Settings {
            fabric: Wish { fabric: Some(FabricName::Tcp), required: false },
            ..Settings::default()
        });
        assert_eq!(faults(&short), [("pinned memory".to_owned(), Standing::Lacking)]);
    }

    #[test]
    fn a_required_fabric_that_cannot_be_had_is_missing() {
        let mut required = facts(Err("libibverbs.so.1 cannot be opened".to_owned()));
        required.choice = Err("libibverbs.so.1 cannot be opened".to_owned());
        required.settings = Ok(Settings {
            fabric: Wish { fabric: Some(FabricName::Rc), required: true },
            ..Settings::default()
        });
        let found = judge(&required).pop().unwrap();
        assert_eq!(found.standing, Standing::Missing);
        assert!(found.finding.starts_with("rc is required, but libibverbs.so.1"), "{found:?}");
    }
}
