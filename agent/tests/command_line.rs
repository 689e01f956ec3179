//! The program as a shell runs it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

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

#[test]
fn stats_are_what_prometheus_reads() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock").display().to_string();
    let config = file(folder.path(), &format!("socket = {socket}\nfabric = tcp\n"));
    let variables = [("MITOSIS_CONFIG", config.as_str())];
    let mut agent =
        command(&["agent", "--config", &config]).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(agent.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let output = mitosis(&["stats", "--prometheus"], &variables);
    let plain = mitosis(&["stats", "--json"], &variables);
    let ended = mitosis(&["shutdown"], &variables);
    assert!(ended.status.success() && agent.wait().unwrap().success(), "{ended:?}");
    assert_eq!(ready, format!("mitosis agent ready on {socket}\n"));
    assert!(output.status.success(), "{output:?}");
    let plain: serde_json::Value = serde_json::from_slice(&plain.stdout).unwrap();
    let text = said(&output.stdout);
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(samples.len(), plain.as_object().unwrap().len(), "{text}");
    for sample in samples {
        let (name, value) = sample.split_once(' ').unwrap();
        let counter = name.strip_prefix("mitosis_").unwrap();
        let counter = counter.strip_suffix("_total").unwrap_or(counter);
        assert_eq!(plain[counter].to_string(), value, "{name}");
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
}
