//! Maps and sets in order, of any size.
//!
//! Sorted vectors of at most `CHUNK` entries, in order themselves: whatever their number, an entry is found by two binary
//! searches, and putting one in or taking one out moves a kilobyte at most. And the order is the same in every run.
//!
//! A tab downloads the code, so that there is little of it for one more type of entries: these are boxed, and what deals with
//! boxes alone is the same for all types, because it drops none, and stays out of line. Of functions that are the same, the
//! compiler and the optimiser keep one.

use alloc::{boxed::Box, vec, vec::Vec};
use core::{
    borrow::Borrow,
    cmp::Ordering,
    mem::{self, ManuallyDrop},
    slice,
};

/// Entries that stand in one vector at most.
const CHUNK: usize = 64;

/// A map, in the order of its keys.
#[derive(Clone, Debug)]
pub struct Map<K, V>(Chunks<Entry<K, V>>);

/// Dropped by the map, and by whoever takes it out.
type Entry<K, V> = ManuallyDrop<Box<(K, V)>>;

fn entry<K, V>(key: K, value: V) -> Entry<K, V> {
    ManuallyDrop::new(Box::new((key, value)))
}

fn inner<K, V>(entry: Entry<K, V>) -> (K, V) {
    *ManuallyDrop::into_inner(entry)
}

impl<K, V> Drop for Map<K, V> {
    fn drop(&mut self) {
        while let Some(entry) = self.0.remove_at((0, 0)) {
            drop(inner(entry));
        }
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(Chunks {
            chunks: Vec::new(),
            len: 0,
        })
    }
}

impl<K: Ord, V> Map<K, V> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let place = self.find(key).ok()?;
        self.0.at(place).map(|entry| &entry.1)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let place = self.find(key).ok()?;
        self.value_at(place)
    }

    /// Whether there is an entry for a key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    /// Puts an entry in and returns the value that it replaces.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(place) => self
                .value_at(place)
                .map(|former| mem::replace(former, value)),
            Err(place) => {
                self.0.insert_at(place, entry(key, value));
                None
            }
        }
    }

    /// The value of a key, which is put in if there is none.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let place = match self.find(&key) {
            Ok(place) => place,
            Err(place) => self.0.insert_at(place, entry(key, make())),
        };
        self.value_at(place).expect("it is there")
    }

    /// Takes an entry out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let place = self.find(key).ok()?;
        self.0.remove_at(place).map(|entry| inner(entry).1)
    }

    /// The first entry.
    pub fn first(&self) -> Option<(&K, &V)> {
        self.iter().next()
    }

    /// Takes the first entry out.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        self.0.remove_at((0, 0)).map(inner)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Takes all entries out.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes out all entries but those to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let mut former = mem::take(self);
        while let Some(mut entry) = former.0.remove_at((0, 0)) {
            let (key, value) = &mut **entry;
            if keep(key, value) {
                self.0.push(entry);
            } else {
                drop(inner(entry));
            }
        }
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let (chunks, entries) = (self.0.chunks.iter(), [].iter());
        Iter { chunks, entries }.map(|entry| (&entry.0, &entry.1))
    }

    /// All entries, to change their values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.0.chunks.iter_mut().flatten().map(|entry| {
            let (key, value) = &mut ***entry;
            (&*key, value)
        })
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// All values, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.iter_mut().map(|(_, value)| value)
    }

    /// Where the entry of a key is, or else belongs.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<Place, Place>
    where
        K: Borrow<Q>,
    {
        self.0.find(&|entry| entry.0.borrow().cmp(key))
    }

    fn value_at(&mut self, place: Place) -> Option<&mut V> {
        self.0.at_mut(place).map(|entry| &mut entry.1)
    }
}

impl<K: Ord, V> IntoIterator for Map<K, V> {
    type Item = (K, V);
    type IntoIter = IntoIter<K, V>;

    fn into_iter(self) -> Self::IntoIter {
        IntoIter(self)
    }
}

/// The entries of a map, taken out.
#[derive(Debug)]
pub struct IntoIter<K, V>(Map<K, V>);

impl<K: Ord, V> Iterator for IntoIter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.pop_first()
    }
}

/// What maps consist of. `T` is a box, whatever is in it, and need not be dropped.
#[derive(Clone, Debug)]
struct Chunks<T> {
    /// None is empty. Of two neighbours, one at least is a quarter full.
    chunks: Vec<Vec<T>>,
    len: usize,
}

/// Which chunk, and where in it.
type Place = (usize, usize);

impl<T> Chunks<T> {
    fn at(&self, (chunk, at): Place) -> Option<&T> {
        self.chunks.get(chunk)?.get(at)
    }

    fn at_mut(&mut self, (chunk, at): Place) -> Option<&mut T> {
        self.chunks.get_mut(chunk)?.get_mut(at)
    }

    /// Where an entry is that compares as equal, or else belongs.
    #[inline(never)]
    fn find(&self, compare: &dyn Fn(&T) -> Ordering) -> Result<Place, Place> {
        // What comes is mostly put behind all others, and what goes is mostly the first.
        if let Some(newest) = self.chunks.last()
            && let (chunk, Some((last, before))) = (self.chunks.len() - 1, newest.split_last())
        {
            match compare(last) {
                Ordering::Less => return Err((chunk, newest.len())),
                Ordering::Equal => return Ok((chunk, before.len())),
                Ordering::Greater => {}
            }
        }
        let oldest = self.chunks.first().and_then(|chunk| chunk.first());
        match oldest.map(compare) {
            Some(Ordering::Equal) => return Ok((0, 0)),
            Some(Ordering::Greater) => return Err((0, 0)),
            _ => {}
        }
        // The first chunk that does not end before the key, or the last.
        let chunk = search(self.chunks.len().saturating_sub(1), |chunk| {
            let last = self.chunks.get(chunk).and_then(|chunk| chunk.last());
            last.map_or(Ordering::Less, compare)
        });
        let chunk = chunk.unwrap_or_else(|chunk| chunk);
        let entries = self.chunks.get(chunk).map_or(&[][..], |chunk| chunk);
        let at = search(entries.len(), |at| {
            entries.get(at).map_or(Ordering::Less, compare)
        });
        at.map(|at| (chunk, at)).map_err(|at| (chunk, at))
    }

    /// Puts an entry where it belongs, and returns where that is now.
    #[inline(never)]
    fn insert_at(&mut self, (chunk, at): Place, entry: T) -> Place {
        self.len += 1;
        let Some(entries) = self.chunks.get_mut(chunk) else {
            self.chunks.push(vec![entry]);
            return (chunk, 0);
        };
        if entries.len() < CHUNK {
            entries.insert(at, entry);
            return (chunk, at);
        }
        // Keys that only grow fill each chunk before the next.
        let cut = if at == CHUNK { CHUNK } else { CHUNK / 2 };
        let mut second = entries.split_off(cut);
        let place = if at <= cut && at < CHUNK {
            entries.insert(at, entry);
            (chunk, at)
        } else {
            second.insert(at - cut, entry);
            (chunk + 1, at - cut)
        };
        self.chunks.insert(chunk + 1, second);
        place
    }

    /// Puts an entry behind all others.
    fn push(&mut self, entry: T) {
        let end = self.find(&|_| Ordering::Less);
        self.insert_at(end.unwrap_or_else(|end| end), entry);
    }

    #[inline(never)]
    fn remove_at(&mut self, (chunk, at): Place) -> Option<T> {
        let entries = self.chunks.get_mut(chunk)?;
        let entry = (at < entries.len()).then(|| entries.remove(at))?;
        self.len -= 1;
        if entries.is_empty() {
            self.chunks.remove(chunk);
        } else if entries.len() < CHUNK / 4 {
            self.join(chunk);
            self.join(chunk.saturating_sub(1));
        }
        Some(entry)
    }

    /// Makes one of a chunk and the next if they are small.
    #[inline(never)]
    fn join(&mut self, chunk: usize) {
        if let [first, second, ..] = self.chunks.get_mut(chunk..).unwrap_or_default()
            && first.len() + second.len() <= CHUNK / 2
        {
            first.append(second);
            self.chunks.remove(chunk + 1);
        }
    }
}

/// What `Flatten` does, in a third of its code.
struct Iter<'a, T> {
    chunks: slice::Iter<'a, Vec<T>>,
    entries: slice::Iter<'a, T>,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(entry);
            }
            self.entries = self.chunks.next()?.iter();
        }
    }
}

/// Where, among the first `length`, what is equal stands, or else belongs.
fn search(length: usize, compare: impl Fn(usize) -> Ordering) -> Result<usize, usize> {
    let (mut low, mut high) = (0, length);
    while low < high {
        let middle = low.midpoint(high);
        match compare(middle) {
            Ordering::Less => low = middle + 1,
            Ordering::Equal => return Ok(middle),
            Ordering::Greater => high = middle,
        }
    }
    Err(low)
}

/// A set, in order.
#[derive(Clone, Debug)]
pub struct Set<T>(Map<T, ()>);

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self(Map::default())
    }
}

impl<T: Ord> Set<T> {
    /// Whether an item is there.
    pub fn contains(&self, item: &T) -> bool {
        self.0.contains_key(item)
    }

    /// Puts an item in; false when it was there.
    pub fn insert(&mut self, item: T) -> bool {
        self.0.insert(item, ()).is_none()
    }

    /// Takes an item out; false when it was not there.
    pub fn remove(&mut self, item: &T) -> bool {
        self.0.remove(item).is_some()
    }

    /// The first item.
    pub fn first(&self) -> Option<&T> {
        self.0.first().map(|(item, ())| item)
    }

    /// Takes the first item out.
    pub fn pop_first(&mut self) -> Option<T> {
        self.0.pop_first().map(|(item, ())| item)
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all items out.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes out all items but those to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.0.retain(|item, ()| keep(item));
    }

    /// All items.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.keys()
    }

    /// What is here and not there.
    pub fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a T> {
        self.iter().filter(|item| !other.contains(item))
    }
}

impl<T: Ord> FromIterator<T> for Set<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut set = Self::default();
        set.extend(items);
        set
    }
}

impl<T: Ord> Extend<T> for Set<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        for item in items {
            self.insert(item);
        }
    }
}

impl<T: Ord> IntoIterator for Set<T> {
    type Item = T;
    type IntoIter = core::iter::Map<<Map<T, ()> as IntoIterator>::IntoIter, fn((T, ())) -> T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().map(|(item, ())| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::{BTreeMap, BTreeSet};

    /// The same operations on a tree bring the same answers, whether there are few entries or many.
    #[test]
    fn maps_and_sets_do_what_trees_do() {
        for keys in [8, 64, 700, 5000] {
            let (mut map, mut tree) = (Map::default(), BTreeMap::new());
            let (mut set, mut other) = (Set::default(), BTreeSet::new());
            let mut state = 7_u32;
            for step in 0..20_000_u32 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let key = (state >> 8) % keys;
                // Grows for a while, then shrinks.
                let grow = step / 4000 % 2 == 0;
                match (state >> 29, grow) {
                    (0 | 1, true) | (2..=5, false) => {
                        assert_eq!(map.remove(&key), tree.remove(&key));
                        assert_eq!(set.remove(&key), other.remove(&key));
                    }
                    (6, false) => {
                        assert_eq!(map.pop_first(), tree.pop_first());
                        assert_eq!(set.pop_first(), other.pop_first());
                    }
                    (2, true) => {
                        let value = *map.get_or_insert_with(key, || step);
                        assert_eq!(value, *tree.entry(key).or_insert(step));
                    }
                    _ => {
                        assert_eq!(map.insert(key, step), tree.insert(key, step));
                        assert_eq!(set.insert(key), other.insert(key));
                    }
                }
                assert_eq!(map.get(&key), tree.get(&key));
                assert_eq!(map.contains_key(&key), tree.contains_key(&key));
                assert_eq!(set.contains(&key), other.contains(&key));
                assert_eq!(map.first(), tree.first_key_value());
                assert_eq!((map.len(), set.len()), (tree.len(), other.len()));
                check(&map);
            }
            assert!(map.iter().eq(tree.iter()) && map.values().eq(tree.values()));
            assert!(map.iter_mut().eq(tree.iter_mut()) && set.iter().eq(other.iter()));
            let (odd, odd_tree): (Set<u32>, BTreeSet<u32>) = (
                (1..keys).step_by(2).collect(),
                (1..keys).step_by(2).collect(),
            );
            assert!(set.difference(&odd).eq(other.difference(&odd_tree)));
            map.retain(|key, value| (*key + *value) % 3 == 0);
            tree.retain(|key, value| (*key + *value) % 3 == 0);
            assert_eq!(map.len(), tree.len());
            assert!(map.into_iter().eq(tree) && set.into_iter().eq(other));
        }
    }

    #[test]
    fn keys_that_only_grow_fill_every_chunk_but_the_last() {
        let set: Set<u32> = (0..10 * CHUNK as u32 + 1).collect();
        let sizes: Vec<usize> = set.0.0.chunks.iter().map(Vec::len).collect();
        assert_eq!(sizes, [vec![CHUNK; 10], vec![1]].concat());
    }

    #[test]
    fn chunks_that_have_become_small_are_joined() {
        let mut set: Set<u32> = (0..100 * CHUNK as u32).collect();
        for item in (0..100 * CHUNK as u32).filter(|item| item % 32 != 0) {
            set.remove(&item);
        }
        assert_eq!(set.len(), 200);
        assert!(set.0.0.chunks.len() <= 2 * 200 / (CHUNK / 4) + 1);
    }

    fn check(map: &Map<u32, u32>) {
        assert!(
            map.0
                .chunks
                .iter()
                .all(|chunk| (1..=CHUNK).contains(&chunk.len()))
        );
        assert_eq!(map.0.len, map.0.chunks.iter().map(Vec::len).sum::<usize>());
        assert!(map.keys().is_sorted_by(|a, b| a < b));
    }
}
