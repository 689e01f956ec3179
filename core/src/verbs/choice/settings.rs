//! What the user asks for: `MITOSIS_FABRIC`, `MITOSIS_DEV`, `MITOSIS_DEV_DENY`, `MITOSIS_GID_INDEX`.
//!
//! ```text
//! MITOSIS_FABRIC     auto | dc | rc | tcp, and ",require" behind it: fail rather than fall back
//! MITOSIS_DEV        mlx5_0:1,mlx5_2     these, a port or all ports of each     ^mlx5_bond_0   all but these
//! MITOSIS_DEV_DENY   mlx5_bond_0         never these, whatever MITOSIS_DEV says
//! MITOSIS_GID_INDEX  3                   this place of the port's GID table
//! ```
//! The lists are those of UCX_NET_DEVICES and NCCL_IB_HCA: `all` is all, `=` in front is taken and means
//! nothing more, as names match whole (NCCL without `=` takes them as beginnings: `mlx5_1` is not
//! `mlx5_10` here).

use std::fmt;
use std::str::FromStr;

/// Longest list that is read: more is a mistake.
const MAX_RULES: usize = 64;

/// A transport for READs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FabricName {
    /// RDMA, dynamically connected.
    Dc,
    /// RDMA, a connection a host.
    Rc,
    /// The agent's page service over TCP.
    Tcp,
}

impl fmt::Display for FabricName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Dc => "dc",
            Self::Rc => "rc",
            Self::Tcp => "tcp",
        })
    }
}

/// Which fabric is wanted, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// This one; none: the best there is.
    pub fabric: Option<FabricName>,
    /// It or nothing. With none above: some RDMA or nothing.
    pub required: bool,
}

/// A setting that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value}: {fault}")]
pub struct SettingError {
    /// The variable.
    pub variable: &'static str,
    /// What it holds.
    pub value: String,
    /// What is wrong, and what is right.
    pub fault: String,
}

impl FromStr for Wish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, required) = match text.split_once(',') {
            Some((name, "require")) => (name, true),
            Some(_) => ("", false),
            None => (text, false),
        };
        let fabric = match name {
            "auto" => None,
            "dc" => Some(FabricName::Dc),
            "rc" => Some(FabricName::Rc),
            "tcp" => Some(FabricName::Tcp),
            _ => return Err("give auto, dc, rc or tcp, or one of them with ',require'".to_owned()),
        };
        Ok(Self { fabric, required })
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fabric {
            Some(fabric) => fabric.fmt(out)?,
            None => out.write_str("auto")?,
        }
        out.write_str(if self.required { ",require" } else { "" })
    }
}

/// A device, or one port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Its name.
    pub device: String,
    /// The port; none: all.
    pub port: Option<u8>,
}

impl DeviceRule {
    pub(super) fn matches(&self, device: &str, port: u8) -> bool {
        self.device == device && self.port.is_none_or(|own| own == port)
    }
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(out, "{}:{port}", self.device),
            None => out.write_str(&self.device),
        }
    }
}

/// A list of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceList {
    /// All but these.
    pub inverted: bool,
    /// What it names.
    pub rules: Vec<DeviceRule>,
}

impl DeviceList {
    /// Whether it names this port.
    pub(super) fn names(&self, device: &str, port: u8) -> bool {
        self.rules.iter().any(|rule| rule.matches(device, port))
    }

    /// Its place in the list; what is not named comes last.
    pub(super) fn place(&self, device: &str, port: u8) -> usize {
        let found = self.rules.iter().position(|rule| rule.matches(device, port));
        found.filter(|_| !self.inverted).unwrap_or(self.rules.len())
    }
}

impl FromStr for DeviceList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (inverted, rest) = match text.strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let rest = rest.strip_prefix('=').unwrap_or(rest);
        if rest == "all" && !inverted {
            return Ok(Self::default());
        }
        let rules = rest.split(',').map(rule).collect::<Result<Vec<_>, _>>()?;
        if rules.len() > MAX_RULES {
            return Err(format!("it names {} devices, at most {MAX_RULES} are taken", rules.len()));
        }
        Ok(Self { inverted, rules })
    }
}

fn rule(text: &str) -> Result<DeviceRule, String> {
    let (device, port) = match text.split_once(':') {
        Some((device, port)) => {
            let number = port.parse::<u8>().ok().filter(|number| *number > 0);
            (
                device,
                Some(number.ok_or_else(|| format!("'{port}' is no port: ports count from 1"))?),
            )
        }
        None => (text, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if device.is_empty() || !device.chars().all(plain) {
        return Err(format!(
            "'{text}' is no device: give NAME or NAME:PORT, with commas between, and ^ before the first for all but these"
        ));
    }
    Ok(DeviceRule { device: device.to_owned(), port })
}

/// All that the user asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `MITOSIS_FABRIC`.
    pub fabric: Wish,
    /// `MITOSIS_DEV`.
    pub devices: DeviceList,
    /// `MITOSIS_DEV_DENY`.
    pub denied: DeviceList,
    /// `MITOSIS_GID_INDEX`.
    pub gid_index: Option<u8>,
}

impl Settings {
    /// From this process's environment; empty is as good as unset.
    ///
    /// # Errors
    /// [`SettingError`] for the first that cannot be read.
    pub fn from_environment() -> Result<Self, SettingError> {
        Self::from_variables(|name| {
            std::env::var_os(name).map(|v| v.to_string_lossy().into_owned())
        })
    }

    /// As [`Settings::from_environment`], from anywhere.
    ///
    /// # Errors
    /// As there.
    pub fn from_variables(
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, SettingError> {
        fn read<T: Default>(
            variable: &'static str,
            value: Option<String>,
            parse: impl FnOnce(&str) -> Result<T, String>,
        ) -> Result<T, SettingError> {
            let Some(value) = value.filter(|value| !value.is_empty()) else {
                return Ok(T::default());
            };
            parse(&value).map_err(|fault| SettingError { variable, value, fault })
        }
        const DENIED: &str = "MITOSIS_DEV_DENY";
        let list = |name| read(name, variable(name), str::parse::<DeviceList>);
        let denied = list(DENIED)?;
        if denied.inverted {
            let value = variable(DENIED).unwrap_or_default();
            let fault = "this list denies already: leave the ^ out".to_owned();
            return Err(SettingError { variable: DENIED, value, fault });
        }
        const INDEX: &str = "MITOSIS_GID_INDEX";
        Ok(Self {
            fabric: read("MITOSIS_FABRIC", variable("MITOSIS_FABRIC"), str::parse)?,
            devices: list("MITOSIS_DEV")?,
            denied,
            gid_index: read(INDEX, variable(INDEX), |text| {
                let number = text.parse::<u8>();
                number.map(Some).map_err(|_| "give a place in the table, 0 to 255".to_owned())
            })?,
        })
    }

    /// Whether a port may be used.
    pub(super) fn allows(&self, device: &str, port: u8) -> bool {
        let listed = self.devices.rules.is_empty()
            || self.devices.names(device, port) != self.devices.inverted;
        listed && !self.denied.names(device, port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, SettingError> {
        Settings::from_variables(|name| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_asks_for_nothing() {
        let none = settings(&[]).unwrap();
        assert_eq!(none, settings(&[("MITOSIS_DEV", ""), ("MITOSIS_FABRIC", "auto")]).unwrap());
        assert!(none.allows("mlx5_0", 1));
        assert_eq!(none.fabric.to_string(), "auto");
    }

    #[test]
    fn fabrics_and_what_is_required() {
        for text in ["auto", "dc", "rc", "tcp", "auto,require", "dc,require", "rc,require"] {
            assert_eq!(text.parse::<Wish>().unwrap().to_string(), text);
        }
        assert!("rc,require".parse::<Wish>().unwrap().required);
        for text in ["RC", "rc,", "rc,required", "rc,dc", "require", " rc"] {
            let error = settings(&[("MITOSIS_FABRIC", text)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("MITOSIS_FABRIC={text}: give auto")), "{error}");
        }
    }

    #[test]
    fn a_list_names_devices_and_ports() {
        let some = settings(&[("MITOSIS_DEV", "mlx5_0:1,mlx5_2")]).unwrap();
        assert!(some.allows("mlx5_0", 1) && !some.allows("mlx5_0", 2));
        assert!(some.allows("mlx5_2", 1) && some.allows("mlx5_2", 2));
        // A name is not the beginning of another's.
        assert!(!some.allows("mlx5_20", 1));
        assert_eq!((some.devices.place("mlx5_2", 1), some.devices.place("mlx5_9", 1)), (1, 2));
    }

    #[test]
    fn a_caret_turns_the_list_around() {
        for text in ["^mlx5_bond_0,mlx5_1:2", "^=mlx5_bond_0,mlx5_1:2"] {
            let some = settings(&[("MITOSIS_DEV", text)]).unwrap();
            assert!(!some.allows("mlx5_bond_0", 1) && !some.allows("mlx5_1", 2));
            assert!(some.allows("mlx5_1", 1) && some.allows("mlx5_0", 1));
        }
    }

    #[test]
    fn what_is_denied_is_denied() {
        let some =
            settings(&[("MITOSIS_DEV", "all"), ("MITOSIS_DEV_DENY", "mlx5_bond_0")]).unwrap();
        assert!(!some.allows("mlx5_bond_0", 1) && some.allows("mlx5_0", 1));
        let twice = settings(&[("MITOSIS_DEV_DENY", "^mlx5_0")]).unwrap_err();
        assert!(twice.to_string().contains("leave the ^ out"), "{twice}");
    }

    #[test]
    fn what_is_no_list_is_told_with_its_variable() {
        for text in ["mlx5_0,,mlx5_1", "mlx5_0:0", "mlx5_0:x", "mlx5_0:256", "a b", ":1", "^"] {
            let error = settings(&[("MITOSIS_DEV", text)]).unwrap_err();
            assert_eq!((error.variable, error.value.as_str()), ("MITOSIS_DEV", text));
        }
        let many = vec!["mlx5_0"; MAX_RULES + 1].join(",");
        assert!(settings(&[("MITOSIS_DEV", &many)]).is_err());
        assert!(settings(&[("MITOSIS_DEV", &many["mlx5_0,".len()..])]).is_ok());
    }

    #[test]
    fn a_gid_index_is_a_place_in_a_table() {
        assert_eq!(settings(&[("MITOSIS_GID_INDEX", "3")]).unwrap().gid_index, Some(3));
        for text in ["-1", "256", "one"] {
            assert!(settings(&[("MITOSIS_GID_INDEX", text)]).is_err());
        }
    }
}
