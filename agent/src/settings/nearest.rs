//! The known name that an unknown one may have been meant for.

/// More wrong letters than this, or half of the name, are no slip of the finger.
const MOST_EDITS: usize = 4;

/// The nearest of the known names, if one is near; of equals the first.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = MOST_EDITS.min(unknown.len() / 2);
    let measured = known.map(|name| (edits(unknown, name), name));
    measured
        .filter(|(edits, _)| *edits <= most)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Letters to put in, take out or change (Levenshtein, one row of the table at a time).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, own) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in to.iter().enumerate() {
            let changed = diagonal + usize::from(own != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (from, to, count) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!((edits(from, to), edits(to, from)), (count, count), "{from} {to}");
        }
    }

    #[test]
    fn the_nearest_is_named_if_it_is_near() {
        let known = ["linger_s", "listen", "log"];
        let find = |unknown| nearest(unknown, known.into_iter());
        assert_eq!(find("lingers"), Some("linger_s"));
        assert_eq!(find("liste"), Some("listen"));
        assert_eq!(find("lg"), Some("log"));
        assert_eq!(find("arena_max_mib"), None);
        assert_eq!(find("x"), None);
    }
}
