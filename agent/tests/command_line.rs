//! The program as a shell runs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Without any variable of ours.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mitosis"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MITOSIS_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

fn mitosis(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    command(arguments).envs(variables.iter().copied()).output().unwrap()
}

fn said(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

fn file(folder: &Path, text: &str) -> String {
    let path = folder.join("mitosis.conf");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A setting as `info -c --json` has it: its value, and whence.
fn setting(output: &Output, name: &str) -> (String, String, Option<u64>) {
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let own = all["settings"].as_array().unwrap().iter().find(|own| own["name"] == name).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    (text(&own["value"]), text(&own["origin"]["kind"]), own["origin"]["line"].as_u64())
}

#[test]
fn info_tells_every_setting_and_whence_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(folder.path(), "# ours\nlinger_s = 7\nclones_ahead = 3\nlog = info\n");
    let variables = [("MITOSIS_CONFIG", config.as_str()), ("MITOSIS_CLONES_AHEAD", "4")];
    let output = mitosis(&["info", "-c", "--json", "--", "--log", "debug"], &variables);
    assert!(output.status.success(), "{output:?}");
    let own = |name| setting(&output, name);
    assert_eq!(own("linger_s"), ("7".to_owned(), "file".to_owned(), Some(2)));
    assert_eq!(own("clones_ahead"), ("4".to_owned(), "variable".to_owned(), None));
    assert_eq!(own("log"), ("debug".to_owned(), "flag".to_owned(), None));
    assert_eq!(own("busy_poll_us"), ("0".to_owned(), "default".to_owned(), None));
    // The named file goes before the variable's.
    let none = mitosis(&["info", "-c", "--config", "/nonexistent/x.conf"], &variables);
    assert!(!none.status.success());
    assert!(said(&none.stderr).contains("/nonexistent/x.conf: No such file"), "{none:?}");
}

#[test]
fn a_wrong_value_ends_the_agent_and_the_error_says_where_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(folder.path(), "\nlinger_s = soon\n");
    let output = mitosis(&["agent", "--config", &config], &[]);
    assert_eq!(output.status.code(), Some(1));
    let expected =
        format!("mitosis: {config}:2: linger_s = soon: give a whole number, 0 to 31536000\n");
    assert_eq!(said(&output.stderr), expected);
    let shown = mitosis(&["info", "-c", "--config", &config], &[]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(said(&shown.stdout).contains("# WRONG: "), "{shown:?}");
}

#[test]
fn unknown_names_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(folder.path(), "lingers = 3\nlinger_s = x\n");
    let output = mitosis(&["info", "-c", "--config", &config], &[("MITOSIS_FABRICS", "tcp")]);
    let shown = said(&output.stdout);
    assert!(
        shown.contains("MITOSIS_FABRICS is no setting of Mitosis; is MITOSIS_FABRIC meant?"),
        "{shown}"
    );
    assert!(
        shown
            .contains(&format!("{config}:1: lingers is no setting of Mitosis; is linger_s meant?")),
        "{shown}"
    );
}

/// What bash offers behind these words, by the script alone: no file of the host's is read.
fn offered(words: &[&str]) -> Vec<String> {
    let script = said(&mitosis(&["completion", "bash"], &[]).stdout);
    let line: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    let last = words.len() - 1;
    let (word, before) = (words[last], words[last - 1]);
    let asked = format!(
        "{script}\ncomplete -p mitosis >&2 || exit 3\nCOMP_WORDS=({}); COMP_CWORD={last}\n\
         _mitosis mitosis '{word}' '{before}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        line.join(" ")
    );
    let bash = Command::new("bash").args(["--norc", "--noprofile", "-c", &asked]).output().unwrap();
    assert!(bash.status.success(), "{bash:?}");
    assert!(said(&bash.stderr).contains("-F _mitosis"), "{bash:?}");
    said(&bash.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_verbs_and_the_flags_of_the_table() {
    let verbs = offered(&["mitosis", "re"]);
    assert_eq!(verbs, ["resume"]);
    assert_eq!(offered(&["mitosis", "agent", "--linge"]), ["--linger-s"]);
    assert_eq!(offered(&["mitosis", "completion", "f"]), ["fish"]);
    let everybodys = offered(&["mitosis", "ls", "--"]);
    assert!(everybodys.contains(&"--config".to_owned()), "{everybodys:?}");
    assert!(!everybodys.contains(&"--linger-s".to_owned()), "{everybodys:?}");
}

#[test]
fn each_shell_that_is_here_accepts_its_script() {
    for (shell, mark) in [
        ("bash", "complete -F _mitosis"),
        ("zsh", "#compdef mitosis"),
        ("fish", "complete -c mitosis"),
    ] {
        // A file of settings that is not there is no matter of theirs.
        let output = mitosis(&["completion", shell], &[("MITOSIS_CONFIG", "/nonexistent")]);
        assert!(output.status.success(), "{output:?}");
        let script = said(&output.stdout);
        assert!(script.contains(mark), "{shell}: {script}");
        assert!(!script.contains("keeper") && !script.contains("proxy-vdso"), "{shell}: {script}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        std::fs::write(&path, &script).unwrap();
        match Command::new(shell).arg("-n").arg(&path).output() {
            Ok(checked) => assert!(checked.status.success(), "{shell}: {checked:?}"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && shell != "bash" => {
                println!("{shell} is not here: its script was not tried");
            }
            Err(error) => panic!("{shell}: {error}"),
        }
    }
    let other = mitosis(&["completion", "tcsh"], &[]);
    assert!(said(&other.stderr).contains("bash, zsh, fish"), "{other:?}");
}

/// An agent of this host alone, with a socket of its own.
struct Agent {
    process: Child,
    config: String,
    socket: String,
    ready: String,
    _folder: TempDir,
}

impl Agent {
    fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock").display().to_string();
        let config = file(folder.path(), &format!("socket = {socket}\nfabric = tcp\n"));
        let mut process = command(&["agent", "--config", &config])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        Agent { process, config, socket, ready, _folder: folder }
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let output = mitosis(arguments, &[("MITOSIS_CONFIG", &self.config)]);
        assert!(output.status.success(), "{output:?}");
        output
    }

    fn end(mut self) {
        self.ask(&["shutdown"]);
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn stats_are_what_prometheus_reads() {
    let agent = Agent::start(&[]);
    let text = said(&agent.ask(&["stats", "--prometheus"]).stdout);
    let plain = agent.ask(&["stats", "--json"]);
    assert_eq!(agent.ready, format!("mitosis agent ready on {}\n", agent.socket));
    agent.end();
    let plain: serde_json::Value = serde_json::from_slice(&plain.stdout).unwrap();
    let (text, misses) = text.split_once("# HELP mitosis_miss_seconds ").unwrap();
    assert!(misses.ends_with("\nmitosis_miss_seconds_count 0\n"), "{misses}");
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    // Beside these are two percentiles and their histogram.
    assert_eq!(samples.len(), plain.as_object().unwrap().len() - 3, "{text}");
    for sample in samples {
        let (name, value) = sample.split_once(' ').unwrap();
        let counter = name.strip_prefix("mitosis_").unwrap();
        let counter = counter.strip_suffix("_total").unwrap_or(counter);
        assert_eq!(plain[counter].to_string(), value, "{name}");
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
}

/// Asks as a program would; prints what came, a line each.
const CLIENT: &str = r#"
import http.client, sys
method, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
connection.request(method, path, body=b"x" * 100_000 if method == "POST" else None)
answer = connection.getresponse()
print(answer.status, answer.reason)
print(answer.getheader("Content-Type"))
print(answer.getheader("Allow"))
sys.stdout.write(answer.read().decode())
"#;

/// Status, kind, what is allowed, and the body.
fn asked(method: &str, port: u16, path: &str) -> [String; 4] {
    let output =
        Command::new("python3").args(["-c", CLIENT, method, &port.to_string(), path]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = said(&output.stdout);
    let parts: Vec<_> = text.splitn(4, '\n').map(str::to_owned).collect();
    parts.try_into().unwrap()
}

/// What is answered to these bytes, up to the end of the connection.
fn answered(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn metrics_port(agent: &Agent) -> u16 {
    let (_, address) = agent.ready.split_once("; counters at http://127.0.0.1:").unwrap();
    address.strip_suffix("/metrics\n").unwrap().parse().unwrap()
}

#[test]
fn counters_are_told_over_http() {
    let agent = Agent::start(&["--metrics", "0"]);
    let port = metrics_port(&agent);
    let [status, kind, _, body] = asked("GET", port, "/metrics");
    assert_eq!((&*status, &*kind), ("200 OK", "text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(body, said(&agent.ask(&["stats", "--prometheus"]).stdout));
    let [status, .., body] = asked("HEAD", port, "/metrics");
    assert_eq!((&*status, &*body), ("200 OK", ""));
    assert_eq!(asked("GET", port, "/")[0], "404 Not Found");
    let [status, _, allow, _] = asked("POST", port, "/metrics");
    assert_eq!((&*status, &*allow), ("405 Method Not Allowed", "GET, HEAD"));
    agent.end();
}

#[test]
fn whoever_talks_garbage_or_nothing_is_answered_and_keeps_nobody() {
    let agent = Agent::start(&["--metrics", "127.0.0.1:0"]);
    let port = metrics_port(&agent);
    let starts = |answer: &str, line: &str| assert!(answer.starts_with(line), "{answer}");
    starts(&answered(port, b"\x16\x03\x01\0\xff\r\n\r\n"), "HTTP/1.1 400 Bad Request\r\n");
    let long = [&b"GET /metrics HTTP/1.1\r\nX: "[..], &[b'x'; 9000]].concat();
    starts(&answered(port, &long), "HTTP/1.1 431 ");
    // All eight places are taken by clients that say nothing more; the agent serves its socket meanwhile.
    let connect = |_| TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut silent: Vec<_> = (0..20).map(connect).collect();
    silent.iter_mut().for_each(|stream| drop(stream.write_all(b"GET /met")));
    agent.ask(&["stats"]);
    let (mut late, mut unheard) = (0, 0);
    for mut stream in silent {
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
        *(if answer.is_empty() { &mut unheard } else { &mut late }) += 1;
    }
    assert!(late > 0 && unheard > 0, "{late} were waited for, {unheard} closed");
    // Their threads give their places back behind the answers.
    let until = Instant::now() + Duration::from_secs(60);
    while !matches!(again(port), Ok(answer) if answer.starts_with("HTTP/1.1 200 OK")) {
        assert!(Instant::now() < until, "no place is free again");
        std::thread::sleep(Duration::from_millis(10));
    }
    agent.end();
}

/// One that found no place was closed unheard, or reset.
fn again(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn an_address_of_metrics_that_cannot_be_is_refused_before_there_is_an_agent() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock").display().to_string();
    let of = |metrics: &str| {
        let output = mitosis(&["agent", "--socket", &socket, "--metrics", metrics], &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(!Path::new(&socket).exists());
        said(&output.stderr)
    };
    let expected = "mitosis: --metrics localhost: give ADDR:PORT, as 127.0.0.1:9464 or [::]:9464, \
                    or PORT for programs of this host\n";
    assert_eq!(of("localhost"), expected);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let told = of(&address);
    let expected = format!(
        "mitosis: the agent cannot tell its counters at {address}; give another address with --metrics: "
    );
    assert!(told.starts_with(&expected) && told.contains("in use"), "{told}");
}
