//! Who has how many of something, against a limit for each.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts by key; a key that has none takes no room.
#[derive(Debug)]
pub(crate) struct Tally<K> {
    counts: Mutex<HashMap<K, usize>>,
}

/// Some that are counted, until dropped.
#[derive(Debug)]
pub(crate) struct Counted<K: Copy + Debug + Eq + Hash> {
    tally: Arc<Tally<K>>,
    key: K,
    count: usize,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Tally { counts: Mutex::default() }
    }
}

impl<K: Copy + Debug + Eq + Hash> Tally<K> {
    /// Counts `count` more of `key`, if it then has no more than `most`.
    pub(crate) fn enter(self: &Arc<Self>, key: K, count: usize, most: usize) -> Option<Counted<K>> {
        let mut counts = self.counts.lock();
        let has = counts.get(&key).copied().unwrap_or(0);
        if has.checked_add(count).is_none_or(|all| all > most) {
            return None;
        }
        counts.insert(key, has + count);
        Some(Counted { tally: self.clone(), key, count })
    }

    /// How many `key` has.
    #[cfg(test)]
    pub(crate) fn count(&self, key: &K) -> usize {
        self.counts.lock().get(key).copied().unwrap_or(0)
    }
}

impl<K: Copy + Debug + Eq + Hash> Counted<K> {
    /// One of them; none if there is none left.
    pub(crate) fn take_one(&mut self) -> Option<Counted<K>> {
        self.count = self.count.checked_sub(1)?;
        Some(Counted { tally: self.tally.clone(), key: self.key, count: 1 })
    }
}

impl<K: Copy + Debug + Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.tally.counts.lock();
        let Some(has) = counts.get_mut(&self.key) else { return };
        *has = has.saturating_sub(self.count);
        if *has == 0 {
            counts.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_up_to_its_limit_and_gives_it_back() {
        let tally: Arc<Tally<u8>> = Arc::default();
        let mut three = tally.enter(1, 3, 4).unwrap();
        assert!(tally.enter(1, 2, 4).is_none() && tally.enter(1, usize::MAX, 4).is_none());
        let other = tally.enter(2, 4, 4).unwrap();
        let one = three.take_one().unwrap();
        assert!(tally.enter(1, 2, 4).is_none(), "one of three is still one of three");
        drop(three);
        let more = tally.enter(1, 3, 4).unwrap();
        assert!(tally.enter(1, 1, 4).is_none());
        drop((one, more, other));
        assert!(tally.counts.lock().is_empty());
    }

    #[test]
    fn what_is_taken_one_by_one_ends() {
        let tally: Arc<Tally<u8>> = Arc::default();
        let mut two = tally.enter(1, 2, 2).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| two.take_one()).collect();
        assert_eq!(taken.len(), 2);
        drop(two);
        assert!(tally.enter(1, 1, 2).is_none());
        drop(taken);
        assert!(tally.counts.lock().is_empty());
    }
}
