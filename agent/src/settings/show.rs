//! `mitosis info -c`: every setting, what it is, whence, and what it does.

use mitosis::client::AgentAddress;
use serde_json::{Value, json};

use super::table::Reader;
use super::{Held, Origin, Settled};

impl Settled {
    /// Whether all values are right.
    pub fn is_right(&self) -> bool {
        self.file_fault.is_none() && self.held.iter().all(|held| held.fault.is_none())
    }

    /// For people, and for whoever writes a file: all but the values is behind a `#`.
    pub fn as_text(&self) -> String {
        let file = match &self.file {
            Some(path) if self.file_is_there => path.display().to_string(),
            Some(path) => format!("{} (not there, or not to be read)", path.display()),
            None => "no file".to_owned(),
        };
        let mut text = format!("# flags over MITOSIS_* variables over {file}\n");
        for held in &self.held {
            text.push_str(&as_text(held));
        }
        if let Some(fault) = &self.file_fault {
            text.push_str(&format!("\n# WRONG: {fault}\n"));
        }
        for warning in &self.warnings {
            text.push_str(&format!("\n# warning: {warning}\n"));
        }
        text
    }

    /// The same.
    pub fn as_value(&self) -> Value {
        json!({
            "file": self.file.as_ref().map(|path| json!({
                "path": path.display().to_string(),
                "there": self.file_is_there,
            })),
            "settings": self.held.iter().map(as_value).collect::<Vec<_>>(),
            "error": self.file_fault,
            "warnings": self.warnings,
        })
    }
}

/// What holds; the socket is looked for where nobody names one.
fn value(held: &Held) -> Option<String> {
    let found = || (held.setting.name == "socket").then(|| AgentAddress::find().to_string());
    held.value.clone().or_else(found)
}

fn as_text(held: &Held) -> String {
    let setting = held.setting;
    let (name, sign) =
        if setting.is_in_file() { (setting.name, "") } else { (setting.variable, "# ") };
    let origin = match &held.origin {
        Origin::Flag => format!("--{}", setting.flag.unwrap_or_default()),
        Origin::Variable => setting.variable.to_owned(),
        Origin::File(path, line) => format!("{}:{line}", path.display()),
        Origin::Default => "default".to_owned(),
    };
    // A default that is not there is no line that one could keep.
    let value = value(held);
    let sign = if value.is_none() { "# " } else { sign };
    let value = value.unwrap_or_default();
    // Nor is one that would be read as another, or as two.
    let is_a_lines = !value.contains('\n') && !value.contains(" #") && !value.contains("\t#");
    let (sign, value) = if is_a_lines { (sign, value) } else { ("# ", format!("{value:?}")) };
    let flag = setting.flag.map_or(String::new(), |flag| format!("--{flag}, "));
    let mut text = format!("\n# {}\n", setting.doc);
    text.push_str(&format!("# {flag}{}; read by {}\n", setting.variable, setting.reader.words()));
    text.push_str(&format!("{sign}{name} = {value}"));
    text = format!("{}  # {origin}\n", text.trim_end());
    if let Some(complaint) = held.complaint() {
        text.push_str(&format!("# WRONG: {complaint}\n"));
    }
    text
}

fn as_value(held: &Held) -> Value {
    let setting = held.setting;
    let origin = match &held.origin {
        Origin::Flag => json!({ "kind": "flag" }),
        Origin::Variable => json!({ "kind": "variable" }),
        Origin::File(path, line) => {
            json!({ "kind": "file", "path": path.display().to_string(), "line": line })
        }
        Origin::Default => json!({ "kind": "default" }),
    };
    let read_by = match setting.reader {
        Reader::Agent => "agent",
        Reader::Command => "command",
        Reader::Other(_) => "other",
    };
    json!({
        "name": setting.is_in_file().then_some(setting.name),
        "variable": setting.variable,
        "flag": setting.flag.map(|flag| format!("--{flag}")),
        "value": value(held),
        "origin": origin,
        "default": setting.default,
        "read_by": read_by,
        "readers": setting.reader.words(),
        "documentation": setting.doc,
        "error": held.complaint(),
    })
}
