//! A slab that grows by pages: no entry moves, and at most one page stands empty beyond the most that there ever were.

/// How many entries a page has.
const PAGE: usize = 64;

/// Values under indices that stay the same; an index is used again when its value was removed.
///
/// Invariant: `free` begins a chain through all vacant entries.
pub(super) struct Pages<T> {
    pages: Vec<Box<[Entry<T>]>>,
    free: Option<u32>,
    len: usize,
}

enum Entry<T> {
    /// And the next one that is vacant.
    Vacant(Option<u32>),
    Occupied(T),
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Pages { pages: Vec::new(), free: None, len: 0 }
    }
}

impl<T> Pages<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where the next value will lie; makes room for it.
    #[inline]
    pub(super) fn vacant(&mut self) -> u32 {
        match self.free {
            Some(index) => index,
            None => self.add_page(),
        }
    }

    #[cold]
    fn add_page(&mut self) -> u32 {
        let first = u32::try_from(self.pages.len() * PAGE).expect("fewer entries than memory");
        let last = first + PAGE as u32 - 1;
        let entries = (first..=last).map(|index| Entry::Vacant((index < last).then_some(index + 1)));
        self.pages.push(entries.collect());
        self.free = Some(first);
        first
    }

    /// Puts a value where [`vacant`](Self::vacant) said.
    #[inline]
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let index = self.vacant();
        let entry = self.entry(index).expect("there is room at the index that is vacant");
        let before = std::mem::replace(entry, Entry::Occupied(value));
        self.len += 1;
        self.free = match before {
            Entry::Vacant(next) => next,
            Entry::Occupied(_) => unreachable!("the chain of vacant entries holds no others"),
        };
        index
    }

    #[inline]
    fn entry(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let index = index as usize;
        self.pages.get_mut(index / PAGE)?.get_mut(index % PAGE)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entry(index)? {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let free = self.free;
        let entry = self.entry(index)?;
        if let Entry::Vacant(_) = entry {
            return None;
        }
        let before = std::mem::replace(entry, Entry::Vacant(free));
        self.free = Some(index);
        self.len -= 1;
        match before {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter()).filter_map(|entry| match entry {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn an_index_is_used_again_when_its_value_is_gone() {
        let mut pages = Pages::default();
        let indices = ["a", "b", "c"].map(|value| pages.insert(value));
        assert_eq!(pages.remove(indices[1]), Some("b"));
        assert_eq!((pages.remove(indices[1]), pages.get_mut(indices[1])), (None, None));
        assert_eq!(pages.vacant(), indices[1]);
        assert_eq!(pages.insert("d"), indices[1]);
        assert_eq!((pages.len(), pages.get_mut(indices[1])), (3, Some(&mut "d")));
        assert_eq!(pages.iter().copied().collect::<Vec<_>>(), ["a", "d", "c"]);
        assert_eq!(pages.get_mut(1_000_000), None);
    }

    #[test]
    fn whatever_happens_it_is_as_a_plain_map_says() {
        let (mut pages, mut map) = (Pages::default(), HashMap::new());
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for number in 0..20_000_u32 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let index = (random >> 8) as u32 % 500;
            match random % 3 {
                0 | 1 if map.len() < 400 => {
                    let at = pages.vacant();
                    assert_eq!(pages.insert(number), at);
                    assert_eq!(map.insert(at, number), None);
                }
                _ => assert_eq!(pages.remove(index), map.remove(&index)),
            }
            assert_eq!(pages.len(), map.len());
            assert_eq!(pages.get_mut(index), map.get_mut(&index));
        }
        assert_eq!(pages.iter().count(), map.len());
    }
}
