//! Both ends on one host: `make test-hw`. What is found is printed first; what cannot run here is
//! skipped, and says why.

use std::net::IpAddr;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use mitosis::verbs::choice::ChosenPort;
use mitosis::verbs::{self, GidKind, Surveyed};

use crate::reader::{self, Place};
use crate::{Bench, chosen, dc_here, fabric_here};

/// The owner ends when it is told, or with its reader.
const OWNER_PATIENCE: Duration = Duration::from_secs(60);

/// What came of the cases.
#[derive(Debug, Default)]
pub struct Tally {
    pub passed: u32,
    pub skipped: u32,
}

impl Tally {
    pub fn pass(&mut self, name: &str) {
        self.passed += 1;
        println!("ok {name}");
    }

    pub fn skip(&mut self, what: &str, reason: &str) {
        self.skipped += 1;
        println!("skipped: {what}: {reason}");
    }
}

/// All that can run on this host, or what is of DC.
pub fn run(all: bool) -> ExitCode {
    let mut tally = Tally::default();
    match look() {
        Err(reason) => tally.skip("all", &reason),
        Ok((surveyed, port)) => {
            let bench = Bench::on(&surveyed, port.clone());
            match address(&port) {
                _ if !all => {}
                Ok(own) => {
                    tally.passed += verbs_here(own);
                    fabric_here::run(&bench, own, &mut tally);
                }
                Err(reason) => tally.skip("rc", &reason),
            }
            dc_here::run(&bench, &mut tally);
        }
    }
    println!("{} passed, {} skipped", tally.passed, tally.skipped);
    ExitCode::SUCCESS
}

/// Tells what there is; what is used, or why nothing can be.
fn look() -> Result<(Vec<Surveyed>, ChosenPort), String> {
    let surveyed = verbs::survey().map_err(|error| error.to_string())?;
    surveyed.iter().for_each(tell);
    let port = chosen(&surveyed)?;
    println!("used: {port}");
    Ok((surveyed, port))
}

fn tell(device: &Surveyed) {
    let facts = &device.facts;
    let Some(caps) = &device.caps else {
        let trouble = facts.trouble.as_deref().unwrap_or("it cannot be opened");
        return println!("found {}: {trouble}", facts.name);
    };
    let (vendor, part) = caps.vendor_part;
    println!("found {}: vendor {vendor:#x}, part {part}, firmware {}", facts.name, caps.firmware);
    println!("  READs: {} at a time, {} answered", caps.max_qp_init_rd_atom, caps.max_qp_rd_atom);
    println!("  ODP: {:?}", caps.odp);
    match device.dc() {
        None => println!("  DC: none, libmlx5 does not know the device or is not there"),
        Some(Err(error)) => println!("  DC: none, {error}"),
        Some(Ok(caps)) => println!("  DC: {caps:?}"),
    }
    for port in &facts.ports {
        let (state, link, mtu) = (port.state, port.link, port.mtu.bytes());
        println!("  port {}: {state}, {link}, MTU {mtu}, LID {}", port.number, port.lid);
        for gid in &port.gids {
            let netdev = gid.netdev.as_deref().unwrap_or("-");
            println!("    GID {}: {}, {}, {netdev}", gid.index, gid.gid, gid.kind);
        }
    }
}

/// The address by which rdma-cm finds the port.
fn address(port: &ChosenPort) -> Result<IpAddr, String> {
    if let Some(entry) = port.gid.as_ref().filter(|entry| entry.kind == GidKind::RoceV2) {
        return Ok(entry.gid.ip());
    }
    let given = std::env::var("SELF").ok().and_then(|text| text.parse().ok());
    given.ok_or_else(|| {
        format!("{port} is found by an IP address: give SELF=ADDRESS, that of its interface")
    })
}

/// The cases of two machines, with the owner in a process of its own. Each opens the device anew.
fn verbs_here(own: IpAddr) -> u32 {
    let program = std::env::current_exe().expect("this program's path");
    let mut owner = Command::new(program)
        .env("NODE", "1")
        .env("SELF", own.to_string())
        .spawn()
        .expect("the owner");
    let passed = reader::run(own, own, Place::Here);
    let began = Instant::now();
    loop {
        match owner.try_wait().expect("the owner's end") {
            Some(status) => {
                assert!(status.success(), "the owner ended with {status}");
                return passed;
            }
            None if began.elapsed() > OWNER_PATIENCE => {
                let _ = owner.kill();
                panic!("the owner does not end");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
