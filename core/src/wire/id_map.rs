//! How the ids of children's user namespace are their host's: user_namespaces(7). `0:100000:65536`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Parts of a map at most; the kernel takes 340.
pub const MAX_ID_MAPS: usize = 32;

/// Users and groups alike: as many ids, from one on in the namespace, are those from another one on in the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// The first, as children see it.
    pub inside: u32,
    /// The first, as their agent does.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// A text is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no part of an id map: give INSIDE:OUTSIDE:COUNT, as 0:100000:65536")]
pub struct IdMapError(String);

impl IdMap {
    /// Whether children can have this id.
    pub fn has(&self, id: u32) -> bool {
        id.checked_sub(self.inside).is_some_and(|behind| behind < self.count)
    }
}

impl FromStr for IdMap {
    type Err = IdMapError;

    fn from_str(text: &str) -> Result<Self, IdMapError> {
        let bad = || IdMapError(text.chars().take(200).collect());
        let numbers: Result<Vec<u32>, _> = text.split(':').map(str::parse).collect();
        match numbers.map_err(|_| bad())?[..] {
            // The last id of all is none.
            [inside, outside, count]
                if count > 0
                    && [inside, outside].iter().all(|first| first.checked_add(count).is_some()) =>
            {
                Ok(IdMap { inside, outside, count })
            }
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.inside, self.outside, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_others_are_refused() {
        for text in ["0:100000:65536", "7:7:1", "0:0:4294967295"] {
            assert_eq!(text.parse::<IdMap>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "0",
            "0:1",
            "0:1:0",
            "0:1:2:3",
            "a:1:2",
            "-1:1:2",
            "4294967295:0:1",
            "1:0:4294967295",
        ] {
            let error = text.parse::<IdMap>().unwrap_err().to_string();
            assert!(error.contains("0:100000:65536"), "{error}");
        }
    }

    #[test]
    fn it_has_what_lies_in_it() {
        let map: IdMap = "10:100:5".parse().unwrap();
        let has = [9, 10, 14, 15, u32::MAX].map(|id| map.has(id));
        assert_eq!(has, [false, true, true, false, false]);
    }
}
