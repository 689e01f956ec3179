//! `mitosis info`: what this host is, as far as Mitosis goes by it; facts, without a judgment.

use std::fs;
use std::process::ExitCode;

use mitosis::client::AgentAddress;
use mitosis::verbs::GidEntry;
use mitosis::verbs::choice::PortFacts;
use serde_json::{Value, json};

use crate::rdma::{self, DeviceView, Facts};
use crate::settings::Settled;

/// Shows it.
pub fn run(address: &AgentAddress, settled: &Settled, as_json: bool) {
    settled.warn();
    let facts = Facts::gather(settled);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let own = Own {
        version: env!("CARGO_PKG_VERSION"),
        kernel: release.trim().to_owned(),
        socket: address.0.display().to_string(),
    };
    if as_json {
        println!("{}", as_value(&own, &facts));
    } else {
        print!("{}", as_text(&own, &facts));
    }
}

/// `mitosis info -c`: the settings instead.
pub fn settings(settled: &Settled, as_json: bool) -> ExitCode {
    if as_json {
        println!("{}", settled.as_value());
    } else {
        print!("{}", settled.as_text());
    }
    if settled.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is not RDMA.
struct Own {
    version: &'static str,
    kernel: String,
    socket: String,
}

/// The choice as one line; where it cannot be made, why.
fn chosen(facts: &Facts) -> String {
    match &facts.choice {
        Ok(choice) => format!("{choice} ({})", choice.reason),
        Err(text) => format!("none: {text}"),
    }
}

fn as_text(own: &Own, facts: &Facts) -> String {
    let mut text = format!(
        "version     {}\nkernel      {}\nsocket      {}\nfabric      {}\n",
        own.version,
        own.kernel,
        own.socket,
        chosen(facts)
    );
    text.push_str(&format!("pinned      {}\n", facts.memlock));
    match &facts.devices {
        Err(error) => text.push_str(&format!("devices     none: {error}\n")),
        Ok(devices) if devices.is_empty() => text.push_str("devices     none\n"),
        Ok(devices) => devices.iter().for_each(|device| text.push_str(&device_text(device))),
    }
    text
}

fn device_text(device: &DeviceView) -> String {
    let distance = device.facts.numa_distance;
    let distance = distance.map_or("unknown".to_owned(), |distance| distance.to_string());
    let mut text = format!("\n{}  (NUMA distance {distance})\n", device.facts.name);
    let Some(caps) = &device.caps else {
        let trouble = device.facts.trouble.as_deref().unwrap_or("it cannot be opened");
        return text + &format!("  {trouble}\n");
    };
    text.push_str(&format!(
        "  firmware  {}\n  READs     {} at a time, {} answered\n  DC        {}\n  ODP       {}\n",
        caps.firmware,
        caps.max_qp_init_rd_atom,
        caps.max_qp_rd_atom,
        rdma::dc(device),
        rdma::odp(caps)
    ));
    for port in &device.facts.ports {
        text.push_str(&format!(
            "  port {}    {}, {}, MTU {}, LID {}\n",
            port.number,
            port.state,
            port.link,
            port.mtu.bytes(),
            port.lid
        ));
        for entry in &port.gids {
            let netdev = entry.netdev.as_deref().unwrap_or("-");
            text.push_str(&format!(
                "    GID {:3}  {}  {}  {netdev}\n",
                entry.index, entry.gid, entry.kind
            ));
        }
    }
    text
}

fn as_value(own: &Own, facts: &Facts) -> Value {
    let (fabric, reason) = match &facts.choice {
        Ok(choice) => (Value::from(choice.to_string()), choice.reason.clone()),
        Err(text) => (Value::Null, text.clone()),
    };
    json!({
        "version": own.version,
        "kernel": own.kernel,
        "socket": own.socket,
        "fabric": fabric,
        "fabric_reason": reason,
        "memlock": {
            "needed_bytes": facts.memlock.needed_bytes,
            "allowed_bytes": facts.memlock.allowed_bytes,
            "pinned_bytes": facts.memlock.pinned_bytes,
        },
        "rdma": facts.devices.as_ref().err(),
        "devices": facts.devices.iter().flatten().map(device_value).collect::<Vec<_>>(),
    })
}

fn device_value(device: &DeviceView) -> Value {
    let caps = device.caps.as_ref();
    json!({
        "name": device.facts.name,
        "trouble": device.facts.trouble,
        "numa_distance": device.facts.numa_distance,
        "firmware": caps.map(|caps| caps.firmware.clone()),
        "max_qp_init_rd_atom": caps.map(|caps| caps.max_qp_init_rd_atom),
        "max_qp_rd_atom": caps.map(|caps| caps.max_qp_rd_atom),
        "dc": device.dc.as_ref().is_some_and(Result::is_ok),
        "odp": {
            "explicit": caps.is_some_and(|caps| caps.odp.explicit),
            "implicit": caps.is_some_and(|caps| caps.odp.implicit),
            "rc_read": caps.is_some_and(|caps| caps.odp.rc_read),
        },
        "ports": device.facts.ports.iter().map(port_value).collect::<Vec<_>>(),
    })
}

fn port_value(port: &PortFacts) -> Value {
    let gid = |entry: &GidEntry| {
        json!({
            "index": entry.index,
            "gid": entry.gid.to_string(),
            "kind": entry.kind.to_string(),
            "netdev": entry.netdev,
        })
    };
    json!({
        "number": port.number,
        "state": port.state.to_string(),
        "link": port.link.to_string(),
        "mtu": port.mtu.bytes(),
        "lid": port.lid,
        "gids": port.gids.iter().map(gid).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use mitosis::verbs::PortState;

    use super::*;
    use crate::doctor::rdma::tests::{facts, view};

    #[test]
    fn facts_are_as_documented() {
        let own = Own { version: "0", kernel: "6.1".to_owned(), socket: "/a".to_owned() };
        let good = view(PortState::Active, "10.77.0.1");
        let mut poor = view(PortState::Down, "fe80::1");
        poor.caps = None;
        poor.facts.trouble = Some("it cannot be opened".to_owned());
        poor.facts.numa_distance = None;
        for port in &mut poor.facts.ports {
            port.gids.iter_mut().for_each(|entry| entry.netdev = None);
        }
        let mut none = facts(Err("no RDMA here".to_owned()));
        none.choice = Err("libibverbs.so.1 cannot be opened".to_owned());
        none.memlock.allowed_bytes = Some(1);
        let all = [facts(Ok(vec![good, poor])), none];
        let values: Vec<Value> = all.iter().map(|facts| as_value(&own, facts)).collect();
        crate::json_tests::assert_documented("info", &values);
    }
}
