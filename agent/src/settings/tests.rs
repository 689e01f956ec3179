use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use mitosis::agent::config::Config;

use super::*;

fn settled(
    flags: &[(&'static str, &str)],
    variables: &[(&str, &str)],
    text: &str,
) -> (Settled, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mitosis.conf");
    fs::write(&path, text).unwrap();
    let told = path.display().to_string();
    let mut flags: Flags = flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    flags.insert(CONFIG, told.clone());
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
    (Settled::from_parts(&flags, variables.collect(), false), told)
}

#[test]
fn a_flag_is_over_a_variable_a_variable_over_the_file_and_the_file_over_the_default() {
    let text = "\nlinger_s = 1\nclones_ahead = 1\nmiss_deadline_ms = 1\n";
    let variables = [("MITOSIS_LINGER_S", "2"), ("MITOSIS_CLONES_AHEAD", "2")];
    let (settled, path) = settled(&[("linger_s", "3")], &variables, text);
    let line = |line| Origin::File(path.clone().into(), line);
    for (name, number, origin) in [
        ("linger_s", 3, Origin::Flag),
        ("clones_ahead", 2, Origin::Variable),
        ("miss_deadline_ms", 1, line(4)),
        ("peer_deadline_ms", 5000, Origin::Default),
    ] {
        assert_eq!(
            (settled.number(name), &settled.held(name).origin),
            (Some(number), &origin),
            "{name}"
        );
    }
    assert_eq!(settled.warnings, [""; 0]);
}

#[test]
fn what_is_empty_is_not_set() {
    let text = "linger_s = 4\nlog =\n";
    let (settled, _) = settled(&[], &[("MITOSIS_LINGER_S", "")], text);
    assert_eq!(settled.number("linger_s"), Some(4));
    assert_eq!(settled.held("log").origin, Origin::Default);
}

#[test]
fn a_wrong_value_is_told_with_its_origin_and_what_is_taken() {
    let allowed = "give a whole number, 0 to 31536000";
    let complaint = |flags: &[(&'static str, &str)], variables: &[(&str, &str)], text: &str| {
        let (settled, path) = settled(flags, variables, text);
        settled.check(false).expect("a verb that does not read it does not mind");
        settled.check(true).unwrap_err().to_string().replace(&path, "FILE")
    };
    assert_eq!(complaint(&[("linger_s", "soon")], &[], ""), format!("--linger-s soon: {allowed}"));
    assert_eq!(
        complaint(&[], &[("MITOSIS_LINGER_S", "-1")], ""),
        format!("MITOSIS_LINGER_S=-1: {allowed}")
    );
    assert_eq!(
        complaint(&[], &[], "\nlinger_s = 31536001"),
        format!("FILE:2: linger_s = 31536001: {allowed}")
    );
    for (name, value, part) in [
        ("no_rehearsal", "maybe", "give true or false"),
        ("pager_cpus", "1,x", "give numbers, with commas between"),
        ("fabric", "bogus", "give auto, dc, rc or tcp"),
        ("dev_deny", "^mlx5_0", "leave the ^ out"),
        ("gid_index", "256", "0 to 255"),
        ("log", "mitosis=loud", "debug"),
        ("clones_ahead", "65", "0 to 64"),
    ] {
        let told = complaint(&[], &[], &format!("{name} = {value}"));
        assert!(told.starts_with(&format!("FILE:1: {name} = {value}: ")), "{told}");
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn what_the_agent_asks_of_rdma_may_come_from_anywhere() {
    let (settled, _) =
        settled(&[("fabric", "rc,require")], &[("MITOSIS_GID_INDEX", "3")], "dev = ^a");
    let rdma = settled.rdma().unwrap();
    assert!(rdma.fabric.required && rdma.devices.inverted);
    assert_eq!(rdma.gid_index, Some(3));
}

#[test]
fn who_encrypts_reads_uses_no_card_and_may_not_ask_for_one() {
    use mitosis::verbs::choice::FabricName;
    for fabric in ["", "auto", "tcp", "tcp,require"] {
        let (settled, _) = settled(&[("encrypt_reads", "true")], &[("MITOSIS_FABRIC", fabric)], "");
        assert_eq!(settled.rdma().unwrap().fabric.fabric, Some(FabricName::Tcp), "{fabric}");
    }
    for fabric in ["rc", "dc", "auto,require", "dc,require"] {
        let (settled, _) = settled(&[], &[("MITOSIS_FABRIC", fabric)], "encrypt_reads = yes");
        let told = settled.rdma().unwrap_err().to_string();
        assert!(told.starts_with(&format!("MITOSIS_FABRIC={fabric}: what an RDMA card")), "{told}");
    }
}

#[test]
fn unknown_names_are_warned_of_with_the_nearest_that_is_known() {
    let variables =
        [("MITOSIS_LINGERS", "1"), ("MITOSIS_TEST_X", "1"), ("MITOSIS_QQQQQQQQQQQ", "1")];
    let (settled, path) = settled(&[], &variables, "\nlinger-s = 1\nagent_bin = x\n");
    let told: Vec<_> = settled.warnings.iter().map(|told| told.replace(&path, "FILE")).collect();
    let starts = [
        "MITOSIS_LINGERS is no setting of Mitosis; is MITOSIS_LINGER_S meant?",
        "MITOSIS_QQQQQQQQQQQ is no setting of Mitosis ('mitosis info -c'",
        "FILE:2: linger-s is no setting of Mitosis; is linger_s meant?",
        "FILE:3: agent_bin is no setting of Mitosis",
    ];
    assert_eq!(told.len(), starts.len(), "{told:?}");
    for (told, start) in told.iter().zip(starts) {
        assert!(told.starts_with(start), "{told}");
    }
    settled.check(true).unwrap();
}

#[test]
fn the_hosts_file_is_not_for_a_programs_own_agent_unless_it_is_named() {
    let named = [("MITOSIS_CONFIG".to_owned(), "/x".into())].into();
    let none = BTreeMap::new();
    let is_named = |place: Option<Place>| place.map(|place| (place.path, place.is_named));
    let of = |variables: &BTreeMap<String, OsString>, embedded| {
        is_named(place(&Flags::new(), variables, embedded))
    };
    assert_eq!(of(&none, false), Some((file::HOST_FILE.into(), false)));
    assert_eq!(of(&none, true), None);
    assert_eq!(of(&named, true), Some(("/x".into(), true)));
}

#[test]
fn the_table_has_each_name_once_and_its_defaults_are_the_agents_own() {
    let names: Vec<_> = table::all().map(|own| own.name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    for own in table::all() {
        assert!(own.default.is_none_or(|default| own.check(default).is_ok()), "{}", own.name);
        assert!(own.variable.starts_with(PREFIX), "{}", own.name);
        assert!(own.flag.is_none_or(|flag| flag == own.name.replace('_', "-")), "{}", own.name);
    }
    let (settled, _) = settled(&[], &[], "");
    let config = Config::local("/s".into(), "/p".into());
    let number = |name| u128::from(settled.number(name).unwrap());
    assert_eq!(number("clones_ahead"), config.clones_ahead as u128);
    assert_eq!(number("miss_deadline_ms"), config.miss_deadline.as_millis());
    assert_eq!(number("peer_deadline_ms"), config.peer_deadline.as_millis());
    assert_eq!(number("linger_s"), config.linger.as_secs().into());
    assert_eq!(number("restart_grace_s"), config.restart_grace.as_secs().into());
    assert_eq!(number("busy_poll_us"), config.busy_poll.as_micros());
    let limits = config.limits;
    assert_eq!(number("max_children"), limits.children as u128);
    assert_eq!(number("max_children_of_seed"), limits.children_of_seed as u128);
    assert_eq!(number("max_children_of_peer"), limits.children_of_peer as u128);
    assert_eq!(number("max_seeds"), limits.seeds as u128);
    assert_eq!(number("max_connections_of_peer"), limits.connections_of_peer as u128);
    assert_eq!(number("max_images_of_peer"), limits.images_of_peer as u128);
    assert_eq!(number("max_streams_of_peer"), limits.streams_of_peer as u128);
    assert_eq!(!settled.switch("no_rehearsal"), config.rehearse);
    let demanded = config.encryption == mitosis::wire::seal::Encryption::Demanded;
    assert_eq!(settled.switch("encrypt_reads"), demanded);
    assert_eq!(settled.rdma().unwrap(), config.rdma.settings);
}

#[test]
fn no_verb_reads_a_variable_that_is_not_in_the_table() {
    fn walk(command: &clap::Command) {
        for argument in command.get_arguments().filter_map(|own| own.get_env()) {
            let variable = argument.to_str().unwrap();
            assert!(table::all().any(|own| own.variable == variable), "{variable}");
        }
        command.get_subcommands().for_each(walk);
    }
    let mut command = with_flags(crate::Cli::command());
    command.clone().debug_assert();
    command.build();
    walk(&command);
}

/// Variables of the sources: "MITOSIS_..." in quotes.
#[test]
fn no_program_reads_a_variable_that_is_not_in_the_table() {
    fn walk(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_str().unwrap();
            if path.is_dir() && !["node_modules", "target", "build"].contains(&name) {
                walk(&path, found);
            } else if [".rs", ".py", ".js", ".c"].iter().any(|end| name.ends_with(end)) {
                let text = fs::read_to_string(&path).unwrap();
                for quote in ["\"MITOSIS_", "'MITOSIS_"] {
                    for rest in text.split(quote).skip(1) {
                        let more = |c: char| !(c.is_ascii_uppercase() || c == '_');
                        let end = rest.find(more).unwrap_or(rest.len());
                        if rest[end..].starts_with(&quote[..1]) {
                            found.insert(format!("MITOSIS_{}", &rest[..end]));
                        }
                    }
                }
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeSet::new();
    let folders = [
        "core/src",
        "agent/src",
        "python/src",
        "python/lib",
        "runtimes/node/lib",
        "runtimes/node-preload/src",
    ];
    folders.iter().for_each(|folder| walk(&root.join(folder), &mut found));
    assert!(
        found.contains("MITOSIS_PREPARE_WHEN") && found.contains("MITOSIS_NODE_ADDON"),
        "{found:?}"
    );
    let ours = ["MITOSIS_", "MITOSIS_TEST_", "MITOSIS_STAND_IN_BYTES", "MITOSIS_LINGERS"];
    for variable in found.iter().filter(|found| !ours.contains(&found.as_str())) {
        let is_known = table::all().any(|own| own.variable == variable);
        assert!(
            is_known || variable.starts_with(TESTS_PREFIX) || variable.contains("QQQ"),
            "{variable}"
        );
    }
}

#[test]
fn flags_are_the_agents_and_no_other_verbs() {
    let of = |line: &[&str]| {
        let command = with_flags(crate::Cli::command());
        of_command(&command.try_get_matches_from(line).unwrap())
    };
    let agent =
        of(&["mitosis", "agent", "--secret-file", "a", "--secret-file", "b", "--no-rehearsal"]);
    let told = [("no_rehearsal", "true"), ("secret_file", "a,b")];
    assert_eq!(agent, told.map(|(name, value)| (name, value.to_owned())).into());
    let kill = of(&["mitosis", "--socket", "/s", "kill", "1", "--signal", "KILL"]);
    assert_eq!(kill, [("socket", "/s".to_owned())].into());
    let resume =
        of(&["mitosis", "resume", "H", "--listen", "all", "--payload", "x", "--config", "/c"]);
    assert_eq!(resume, [("config", "/c".to_owned())].into());
}

#[test]
fn the_documentation_has_every_setting() {
    let page = include_str!("../../../docs/settings.md");
    for own in table::all() {
        let names = [own.flag.map(|flag| format!("--{flag}")), Some(own.variable.to_owned())];
        let in_file = own.is_in_file().then(|| own.name.to_owned());
        for name in names.into_iter().flatten().chain(in_file) {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }
}

#[test]
fn what_is_shown_is_a_file_that_comes_to_the_same() {
    let text = "linger_s = 7\nlog = \"warn,a=info\"\ndev = ^a:1,b\n";
    let lines = "a\nlinger_s = 1";
    let variables = [("MITOSIS_CLONES_AHEAD", "2"), ("MITOSIS_PAYLOAD", lines)];
    let (settled, path) = settled(&[], &variables, text);
    let shown = settled.as_text();
    for line in ["clones_ahead = 2  # MITOSIS_CLONES_AHEAD", "peer_deadline_ms = 5000  # default"] {
        assert!(shown.contains(line), "{shown}");
    }
    assert!(shown.contains(&format!("linger_s = 7  # {path}:1\n")), "{shown}");
    let (again, _) = self::settled(&[], &[], &shown);
    assert_eq!(again.warnings, [""; 0]);
    for held in settled
        .held
        .iter()
        .filter(|held| held.setting.is_in_file() && held.setting.name != "socket")
    {
        assert_eq!(again.text(held.setting.name), held.value.as_deref(), "{}", held.setting.name);
    }
    let value = settled.as_value();
    let linger = value["settings"].as_array().unwrap().iter().find(|own| own["name"] == "linger_s");
    let linger = linger.unwrap();
    assert_eq!((&linger["value"], &linger["origin"]["line"]), (&"7".into(), &1.into()));
    assert!(linger["documentation"].as_str().unwrap().starts_with("Seconds"));
}

#[test]
fn a_file_that_cannot_be_read_ends_who_named_it_and_the_agent() {
    let (mut settled, path) = settled(&[], &[], "\n[agent]\n");
    let expected =
        format!("{path}:2: '[agent]': give NAME = VALUE, or # before what is for people");
    assert_eq!(settled.check_file(false).unwrap_err().to_string(), expected);
    assert!(!settled.is_right() && settled.as_text().contains(&format!("# WRONG: {expected}")));
    // As the host's own.
    settled.file_is_named = false;
    settled.check_file(false).expect("an agent can be ended whatever is in the file");
    assert_eq!(settled.check(true).unwrap_err().to_string(), expected);
}

#[test]
fn settings_are_as_documented() {
    let variables = [("MITOSIS_CLONES_AHEAD", "many"), ("MITOSIS_QQQ", "x")];
    let (all, _) = settled(&[("dev", "a")], &variables, "linger_s = 7\n");
    let (wrong, _) = settled(&[], &[], "[agent]\n");
    let none = Settled::from_parts(&Flags::new(), BTreeMap::new(), true);
    let values = [all.as_value(), wrong.as_value(), none.as_value()];
    crate::json_tests::assert_documented("info -c", &values);
}
