//! How hosts and what runs in them end, and that nothing is left then.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mitosis_hosts::{ExecOptions, Pair, PairConfig};

use crate::setting::*;

#[test]
fn dropping_a_pair_ends_all_that_runs_in_it() {
    let pair = pair();
    let mut namespaces = namespaces_of(pair.a().record().init_pid);
    namespaces.extend(namespaces_of(pair.b().record().init_pid));
    // A daemon that has left its parent, and a command that nobody waits for yet.
    shell(pair.b(), "sleep 60 >/dev/null 2>&1 & disown");
    let mut left = pair.a().command(["/bin/sleep", "60"]).spawn().unwrap();
    assert!(populated(&namespaces));
    drop(pair);
    // Killed; or, where it had not got there yet, it found nothing to go to.
    let end = left.wait().unwrap();
    assert!(end.signal() == Some(SIGKILL) || end.code().is_some_and(|code| code != 0), "{end:?}");
    assert!(!populated(&namespaces), "drop returns when all have ended");
}

#[test]
fn a_killed_harness_leaves_nothing() {
    let (mounts, links) = (outer_mounts(), outer_links());
    let (mut up, hosts) = held_up(&["--file", "/bin/cat"]);
    let namespaces = namespaces_of_all(&hosts);
    let pid = hosts.hosts[1].init_pid.to_string();
    let mut command = Command::new(BIN)
        .args(["exec", "--pid", &pid, "--", "/bin/cat", "/etc/hostname", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(command.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "host-b\n");
    up.kill().unwrap();
    up.wait().unwrap();
    soon("no process is left in a namespace of the hosts", || !populated(&namespaces));
    assert!(!command.wait().unwrap().success());
    assert_eq!((outer_mounts(), outer_links()), (mounts, links));
}

#[test]
fn hosts_end_with_their_owner() {
    let mut owner = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let (mut up, hosts) = held_up(&["--owner", &owner.id().to_string()]);
    let namespaces = namespaces_of_all(&hosts);
    assert!(populated(&namespaces));
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(up.wait().unwrap().success());
    assert!(!populated(&namespaces));
}

#[test]
fn a_held_up_ends_by_input_and_by_signal() {
    let (mut up, hosts) = held_up(&[]);
    let namespaces = namespaces_of_all(&hosts);
    drop(up.stdin.take());
    assert!(up.wait().unwrap().success());
    assert!(!populated(&namespaces));

    let (mut up, hosts) = held_up(&["--hosts", "3", "--b-time-offset-s", "60"]);
    let offsets: Vec<_> = hosts.hosts.iter().map(|host| host.time_offset_s).collect();
    assert_eq!(offsets, [0, 60, 120]);
    signal(&up, SIGTERM);
    assert!(up.wait().unwrap().success());
    assert!(!Path::new(&hosts.hosts[2].root).exists());
}

#[test]
fn up_runs_a_command_and_ends_as_it_does() {
    let script = r#"set -e
        [ "$("$MITOSIS_HOSTS_BIN" exec --host b -- cat /etc/hostname)" = host-b ]
        "$MITOSIS_HOSTS_BIN" exec --host host-a -- cat /etc/hostname; exit 7"#;
    let output = Command::new(BIN)
        .args(["up", "--file", "/bin/cat", "--", "bash", "-c", script])
        .output()
        .unwrap();
    assert_eq!((text(&output).as_str(), output.status.code()), ("host-a\n", Some(7)), "{output:?}");

    // A command of a killed `up` does not live on.
    let mut up = Command::new(BIN)
        .args(["up", "--", "bash", "-c", "echo $$; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    BufReader::new(up.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    let process = Path::new("/proc").join(pid.trim()).join("exe");
    assert!(fs::read_link(&process).is_ok());
    up.kill().unwrap();
    up.wait().unwrap();
    soon("the command has ended", || fs::read_link(&process).is_err());
}

#[test]
fn status_and_signals_pass_through_exec() {
    let pair = pair();
    let run = |script: &str| pair.b().command(["/bin/bash", "-c", script]).status().unwrap();
    assert_eq!(run("exit 3").code(), Some(3));
    assert_eq!(run("kill -KILL $$").signal(), Some(SIGKILL));
    assert_eq!(pair.b().command(["/bin/none"]).output().unwrap().status.code(), Some(127));
    assert_eq!(pair.b().command(["/etc/hosts"]).output().unwrap().status.code(), Some(126));

    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let mut child =
        pair.b().command(["/bin/bash", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    signal(&child, SIGTERM);
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    assert_eq!(child.wait().unwrap().code(), Some(9));

    let mut child = pair.b().command(["/bin/sleep", "77.5"]).spawn().unwrap();
    let listing = "for p in /proc/[0-9]*; do cat $p/cmdline; done 2>/dev/null | cat -v";
    soon("the command runs", || shell(pair.b(), listing).contains("77.5"));
    child.kill().unwrap();
    child.wait().unwrap();
    soon("the command dies with its exec", || !shell(pair.b(), listing).contains("77.5"));
}

#[test]
fn orphans_are_reaped() {
    let pair = pair();
    let orphan = shell(pair.b(), "(sleep 0.05 >/dev/null 2>&1 & echo $!)");
    soon("the orphan is gone, not a zombie", || {
        shell(pair.b(), &format!("ls /proc/{orphan}/stat 2>/dev/null || echo none")) == "none"
    });
}

#[test]
fn commands_get_a_fresh_environment() {
    let pair = pair();
    let options = ExecOptions {
        env: vec![("KEY".into(), "a=b".into())],
        cpu: Some(0),
        cwd: Some("/run".into()),
    };
    let script = "echo $KEY $HOME ${CARGO_MANIFEST_DIR-unset} $PWD";
    let output = pair.b().command_with(&options, ["/bin/bash", "-c", script]).output().unwrap();
    assert_eq!(text(&output), "a=b /root unset /run\n");
    let output =
        pair.b().command_with(&options, ["/bin/cat", "/proc/self/status"]).output().unwrap();
    assert!(text(&output).contains("Cpus_allowed_list:\t0\n"));
}

#[test]
fn failures_name_cause_and_remedy() {
    let fails = |arguments: &[&str]| {
        let output = Command::new(BIN).args(arguments).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(fails(&["up", "--file", "/no/such"]).contains("/no/such"));
    assert!(fails(&["up", "--file", "/etc"]).contains("name each file"));
    assert!(fails(&["up", "--hosts", "5"]).contains("from 1 to 4"));
    assert!(fails(&["up", "--b-time-offset-s", "-999999999"]).contains("clocks"));
    assert!(fails(&["exec", "--pid", "1", "--", "x"]).contains("no host has the init 1"));
    assert!(fails(&["exec", "--host", "b", "--", "x"]).contains("MITOSIS_HOSTS_JSON"));
    let config =
        PairConfig { bin: Some(BIN.into()), time_offset_s: -999_999_999, ..Default::default() };
    let error = Pair::up(config).unwrap_err().to_string();
    assert!(error.contains("host-b did not come up"), "{error}");

    let mut config = PairConfig { bin: Some(BIN.into()), ..PairConfig::default() };
    config = config.file("/usr/bin/setpriv").unwrap().file(BIN).unwrap();
    let pair = Pair::up(config).unwrap();
    let nobody = ["setpriv", "--reuid", "65534", "--clear-groups", BIN, "up"];
    let output = pair.b().command(nobody).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("need root"), "{said}");
}
