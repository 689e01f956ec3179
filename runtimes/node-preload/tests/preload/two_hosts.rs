//! An unmodified server of one host serves on another, which has nothing of it: neither program nor files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use mitosis_hosts::{FileSpec, Host, Pair, PairConfig};

use crate::world::{Running, built, library, wait_for};

const NODE: &str = "const { randomBytes } = require('crypto'); let count = 0;\n\
    require('http').createServer((_, answer) => {\n\
    \x20 answer.end(`served ${++count} ${randomBytes(16).toString('hex')}`);\n\
    }).listen(8080, '127.0.0.1');";
/// A request by bash alone.
const ASK: &str =
    "exec 5<>/dev/tcp/127.0.0.1/PORT && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&5 && cat <&5";

fn start(mut command: Command, log: &std::path::Path) -> Running {
    let file = fs::File::create(log).unwrap();
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    Running(command.spawn().unwrap())
}

fn ask(host: &Host, port: u16) -> String {
    let script = ASK.replace("PORT", &port.to_string());
    let output = host.command(["/bin/bash", "-c", &script]).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).rsplit("\r\n").next().unwrap_or_default().to_owned()
}

#[test]
fn a_warm_node_serves_on_a_host_that_has_no_node() {
    let folder = tempfile::Builder::new().prefix("mitosis-preload-").tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = |name: &str| fs::read_to_string(path(name)).unwrap_or_default();
    let (mitosis, secret) = (built("mitosis"), path("secret"));
    fs::write(&secret, [7; 32]).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let mut config = PairConfig::default();
    config.files.push(FileSpec::new(&mitosis, "/bin/mitosis").unwrap());
    config.files.push(FileSpec::new(&secret, "/etc/mitosis.secret").unwrap());
    for tool in ["/bin/bash", "/bin/cat"] {
        config = config.file(tool).unwrap();
    }
    let pair = Pair::up(config).expect("sealed hosts come up (they need root)");
    let agent = |host: &Host, name: &str, program: &str, secret: &str| {
        let advertise = format!("{name}:7370");
        let arguments = [
            program,
            "agent",
            "--listen",
            "7370",
            "--advertise",
            &advertise,
            "--secret-file",
            secret,
        ];
        let agent = start(host.command(arguments), &path(name));
        wait_for("an agent", || text(name).contains("mitosis agent ready"));
        agent
    };
    let mitosis = mitosis.display().to_string();
    let _a = agent(pair.a(), "host-a", &mitosis, &secret.display().to_string());
    let _b = agent(pair.b(), "host-b", "/bin/mitosis", "/etc/mitosis.secret");
    let on_a = |arguments: &[&str], name: &str| {
        let arguments = [mitosis.as_str()].iter().chain(arguments).copied().collect::<Vec<_>>();
        start(pair.a().command(arguments), &path(name))
    };

    let (warm, library) = (ASK.replace("PORT", "8080"), library().display().to_string());
    let warm = format!("bash -c '{}' >/dev/null", warm.replace('\'', "'\\''"));
    let handle = path("handle").display().to_string();
    let run = ["run", "--preload", &library, "--handle-file", &handle, "--warm", &warm, "--"];
    let _run = on_a(&[&run[..], &["node", "-e", NODE]].concat(), "run");
    wait_for("the handle", || path("handle").exists());
    let from = format!("@{handle}");
    let arguments = ["resume", &from, "--on", "host-b", "--listen", "8080=9090"];
    let mut child = on_a(&arguments, "child");
    let mut there = String::new();
    wait_for("an answer of the child", || {
        assert!(child.lives(), "{}{}", text("child"), text("host-b"));
        there = ask(pair.b(), 9090);
        !there.is_empty()
    });
    let here = ask(pair.a(), 8080);
    // The one request of the warming is behind both.
    assert!(there.starts_with("served 2 ") && here.starts_with("served 2 "), "{there}, {here}");
    assert_ne!(there, here);
}
