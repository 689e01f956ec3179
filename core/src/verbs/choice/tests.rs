use super::super::address::{Gid, GidKind};
use super::*;

fn gid(index: u32, address: &str, kind: GidKind, netdev: &str) -> GidEntry {
    let gid = Gid::from(address.parse::<IpAddr>().unwrap());
    GidEntry { index, gid, kind, netdev: Some(netdev.to_owned()) }
}

/// A table as a RoCE port has it: each address once as version 1 and once as version 2.
fn table() -> Vec<GidEntry> {
    let mut table = Vec::new();
    for (at, (address, netdev)) in [
        ("fe80::1", "eth0"),
        ("2001:db8::1", "eth0"),
        ("10.9.0.1", "eth0.5"),
        ("10.77.0.1", "eth0"),
    ]
    .into_iter()
    .enumerate()
    {
        let at = u32::try_from(at).unwrap();
        table.push(gid(2 * at, address, GidKind::RoceV1, netdev));
        table.push(gid(2 * at + 1, address, GidKind::RoceV2, netdev));
    }
    table
}

fn port(number: u8, state: PortState) -> PortFacts {
    PortFacts { number, state, link: LinkLayer::Ethernet, mtu: Mtu::B1024, lid: 0, gids: table() }
}

fn device(name: &str, distance: Option<u32>, states: &[PortState]) -> DeviceFacts {
    let ports = (1..).zip(states).map(|(number, state)| port(number, *state)).collect();
    DeviceFacts {
        name: name.to_owned(),
        transport: Transport::Ib,
        numa_distance: distance,
        trouble: None,
        ports,
    }
}

fn two() -> Vec<DeviceFacts> {
    let active = PortState::Active;
    vec![
        device("mlx5_0", Some(21), &[active]),
        device("mlx5_1", Some(10), &[active, PortState::Down]),
    ]
}

fn settings(variables: &[(&str, &str)]) -> Settings {
    let find = |name| variables.iter().find(|(own, _)| *own == name);
    Settings::from_variables(|name| find(name).map(|(_, value)| (*value).to_owned())).unwrap()
}

fn no_dc(_: &ChosenPort) -> Result<(), String> {
    Err("EOPNOTSUPP".to_owned())
}

fn chosen(variables: &[(&str, &str)], devices: &[DeviceFacts]) -> Choice {
    choose(&settings(variables), Ok(devices), None, no_dc).unwrap()
}

#[test]
fn the_nearest_active_port_with_its_ipv4_gid() {
    let choice = chosen(&[], &two());
    assert_eq!(choice.to_string(), "rc on mlx5_1:1, GID 7 (RoCE v2, 10.77.0.1)");
    assert!(
        choice.reason.contains("nearest of 2 ACTIVE ports (NUMA distance 10)"),
        "{}",
        choice.reason
    );
    assert!(choice.reason.contains("mlx5_1:1 has no DC: EOPNOTSUPP"), "{}", choice.reason);
    assert_eq!(choice.fell_back, None);
}

#[test]
fn dc_where_the_port_serves_it() {
    for wish in ["auto", "dc", "dc,require"] {
        let settings = settings(&[("MITOSIS_FABRIC", wish)]);
        let choice = choose(&settings, Ok(&two()), None, |_| Ok(())).unwrap();
        assert_eq!((choice.fabric, choice.fell_back), (FabricName::Dc, None));
    }
    let rc = settings(&[("MITOSIS_FABRIC", "rc")]);
    let choice = choose(&rc, Ok(&two()), None, |_| panic!("not asked")).unwrap();
    assert_eq!(choice.fabric, FabricName::Rc);
}

#[test]
fn dc_that_is_not_there_falls_back_and_says_so_unless_required() {
    let choice = chosen(&[("MITOSIS_FABRIC", "dc")], &two());
    assert_eq!(choice.fabric, FabricName::Rc);
    assert!(matches!(choice.fell_back, Some(ChoiceError::NoDc { .. })));
    let required = settings(&[("MITOSIS_FABRIC", "dc,require")]);
    let error = choose(&required, Ok(&two()), None, no_dc).unwrap_err();
    assert!(error.to_string().starts_with("mlx5_1:1 has no DC: EOPNOTSUPP; use rc"), "{error}");
    // Some RDMA is enough for auto.
    assert_eq!(chosen(&[("MITOSIS_FABRIC", "auto,require")], &two()).fabric, FabricName::Rc);
}

#[test]
fn without_rdma_auto_is_tcp_without_a_warning_and_rc_with_one() {
    let none = || Err("libibverbs.so.1 cannot be opened".to_owned());
    let choice = choose(&settings(&[]), none(), None, no_dc).unwrap();
    assert_eq!((choice.fabric, choice.fell_back.is_some()), (FabricName::Tcp, false));
    assert!(choice.reason.contains("libibverbs.so.1"), "{}", choice.reason);
    let choice = choose(&settings(&[("MITOSIS_FABRIC", "rc")]), none(), None, no_dc).unwrap();
    assert_eq!((choice.fabric, choice.fell_back.is_some()), (FabricName::Tcp, true));
    for wish in ["auto,require", "rc,require", "dc,require"] {
        let required = settings(&[("MITOSIS_FABRIC", wish)]);
        assert!(choose(&required, none(), None, no_dc).is_err(), "{wish}");
    }
    let tcp = settings(&[("MITOSIS_FABRIC", "tcp,require")]);
    assert_eq!(choose(&tcp, none(), None, no_dc).unwrap().to_string(), "tcp");
}

#[test]
fn the_lists_decide_before_the_distance() {
    assert_eq!(chosen(&[("MITOSIS_DEV", "mlx5_0:1")], &two()).port.unwrap().device, "mlx5_0");
    assert_eq!(chosen(&[("MITOSIS_DEV", "^mlx5_1")], &two()).port.unwrap().device, "mlx5_0");
    assert_eq!(chosen(&[("MITOSIS_DEV_DENY", "mlx5_1:1")], &two()).port.unwrap().device, "mlx5_0");
    // Equally near: as the list has them.
    let near = [device("a", None, &[PortState::Active]), device("b", None, &[PortState::Active])];
    assert_eq!(chosen(&[("MITOSIS_DEV", "b,a")], &near).port.unwrap().device, "b");
    assert_eq!(chosen(&[], &near).port.unwrap().device, "a");
}

#[test]
fn a_device_that_is_not_there_is_told_with_those_that_are() {
    let required =
        settings(&[("MITOSIS_FABRIC", "rc,require"), ("MITOSIS_DEV", "mlx5_7,mlx5_8:2")]);
    let error = choose(&required, Ok(&two()), None, no_dc).unwrap_err();
    assert_eq!(
        error.to_string(),
        "MITOSIS_DEV names mlx5_7,mlx5_8:2, which is not there; there are: mlx5_0:1 (ACTIVE), mlx5_1:1 (ACTIVE), mlx5_1:2 (DOWN)"
    );
    let denied = settings(&[("MITOSIS_FABRIC", "rc,require"), ("MITOSIS_DEV", "^mlx5_0,mlx5_1")]);
    let error = choose(&denied, Ok(&two()), None, no_dc).unwrap_err();
    assert!(matches!(error, ChoiceError::NoneAllowed(_)), "{error}");
}

#[test]
fn a_port_that_is_not_active_is_told_with_its_state() {
    let required = settings(&[("MITOSIS_FABRIC", "rc,require"), ("MITOSIS_DEV", "mlx5_1:2")]);
    let error = choose(&required, Ok(&two()), None, no_dc).unwrap_err();
    assert!(error.to_string().starts_with("no port is ACTIVE: mlx5_1:2 (DOWN); "), "{error}");
}

#[test]
fn a_device_that_cannot_be_opened_says_why() {
    let mut shut = device("mlx5_0", None, &[]);
    shut.trouble = Some("ibv_open_device on mlx5_0: Permission denied".to_owned());
    let required = settings(&[("MITOSIS_FABRIC", "rc,require")]);
    let error = choose(&required, Ok(&[shut]), None, no_dc).unwrap_err();
    assert!(error.to_string().contains("Permission denied"), "{error}");
    let error = choose(&required, Ok(&[]), None, no_dc).unwrap_err();
    assert_eq!(error.to_string(), "no RDMA device is there");
}

#[test]
fn a_gid_index_overrides_and_must_be_there() {
    let choice = chosen(&[("MITOSIS_GID_INDEX", "2")], &two());
    assert_eq!(choice.to_string(), "rc on mlx5_1:1, GID 2 (RoCE v1, 2001:db8::1)");
    let required = settings(&[("MITOSIS_FABRIC", "rc,require"), ("MITOSIS_GID_INDEX", "8")]);
    let error = choose(&required, Ok(&two()), None, no_dc).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(
            "MITOSIS_GID_INDEX=8: mlx5_1:1 has no such GID; it has: 0: fe80::1 (RoCE v1, eth0), "
        ),
        "{text}"
    );
}

#[test]
fn the_agents_own_address_is_preferred_even_on_a_vlan() {
    let address = |text: &str| Some(text.parse().unwrap());
    let of = |text| choose(&settings(&[]), Ok(&two()), address(text), no_dc).unwrap();
    assert_eq!(of("10.9.0.1").port.unwrap().gid.unwrap().index, 5);
    assert_eq!(of("2001:db8::1").port.unwrap().gid.unwrap().index, 3);
    assert_eq!(of("192.0.2.1").port.unwrap().gid.unwrap().index, 7);
}

#[test]
fn version_1_alone_is_not_taken_unasked() {
    let mut old = device("mlx4_0", None, &[PortState::Active]);
    old.ports[0].gids.retain(|entry| entry.kind == GidKind::RoceV1);
    let required = settings(&[("MITOSIS_FABRIC", "rc,require")]);
    let error = choose(&required, Ok(&[old]), None, no_dc).unwrap_err();
    assert!(error.to_string().starts_with("mlx4_0:1 has no RoCE v2 GID (give its"), "{error}");
}

#[test]
fn infiniband_has_a_lid_and_iwarp_no_gid() {
    let mut ib = device("mlx5_0", None, &[PortState::Active]);
    (ib.ports[0].link, ib.ports[0].lid) = (LinkLayer::InfiniBand, 17);
    ib.ports[0].gids = vec![gid(0, "fe80::a", GidKind::Ib, "ib0")];
    assert_eq!(chosen(&[], &[ib]).to_string(), "rc on mlx5_0:1, GID 0 (fe80::a), LID 17");
    let mut siw = device("siw0", None, &[PortState::Active]);
    siw.transport = Transport::Iwarp;
    assert_eq!(chosen(&[], &[siw]).to_string(), "rc on siw0:1 (iWARP)");
}
