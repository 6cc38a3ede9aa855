//! Water marks: when a protocol is to stop writing, and when it may go on.

use crate::{
    constants::HIGH_WATER,
    error::{Error, Result},
};

/// How much may wait to be written, in bytes.
///
/// ```text
/// Flowing --the buffer grows above high--> Paused --it falls to low or below--> Flowing
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Invariant: at most `high`.
    low: usize,
    high: usize,
    paused: bool,
}

impl Default for Flow {
    fn default() -> Self {
        Flow { low: HIGH_WATER / 4, high: HIGH_WATER, paused: false }
    }
}

impl Flow {
    pub(crate) fn limits(&self) -> (usize, usize) {
        (self.low, self.high)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Sets the limits: a missing low is a quarter of high, a missing high is four times low, both missing are the
    /// defaults.
    pub(crate) fn set_limits(&mut self, high: Option<usize>, low: Option<usize>) -> Result<()> {
        let high = high.unwrap_or_else(|| low.map_or(HIGH_WATER, |low| low.saturating_mul(4)));
        let low = low.unwrap_or(high / 4);
        if low > high {
            return Err(Error::Value(format!("high ({high}) must be >= low ({low})").into()));
        }
        (self.low, self.high) = (low, high);
        Ok(())
    }

    /// The buffer has grown to `size`. True if the protocol is to be told.
    pub(crate) fn grown(&mut self, size: usize) -> bool {
        let pauses = !self.paused && size > self.high;
        self.paused |= pauses;
        pauses
    }

    /// The buffer has shrunk to `size`. True if the protocol is to be told.
    pub(crate) fn shrunk(&mut self, size: usize) -> bool {
        let resumes = self.paused && size <= self.low;
        self.paused &= !resumes;
        resumes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_limit_makes_the_other() {
        let cases = [
            ((Some(100_000), None), (25_000, 100_000)),
            ((None, Some(1000)), (1000, 4000)),
            ((Some(0), None), (0, 0)),
            ((Some(1), None), (0, 1)),
            ((None, Some(0)), (0, 0)),
            ((None, None), (16_384, 65_536)),
            ((Some(7), Some(7)), (7, 7)),
            ((None, Some(usize::MAX)), (usize::MAX, usize::MAX)),
        ];
        for ((high, low), limits) in cases {
            let mut flow = Flow::default();
            flow.set_limits(high, low).unwrap();
            assert_eq!(flow.limits(), limits, "high {high:?}, low {low:?}");
        }
    }

    #[test]
    fn low_above_high_changes_nothing() {
        let mut flow = Flow::default();
        for (high, low) in [(0, 1), (10, 11)] {
            let text = flow.set_limits(Some(high), Some(low)).unwrap_err().to_string();
            assert!(text.contains("high") && text.contains("low"), "{text}");
            assert_eq!(flow, Flow::default());
        }
    }

    #[test]
    fn each_crossing_is_told_once() {
        let mut flow = Flow::default();
        flow.set_limits(Some(100), Some(10)).unwrap();
        assert_eq!([100, 101, 102, 500].map(|size| flow.grown(size)), [false, true, false, false]);
        assert_eq!([99, 11, 10, 5, 0].map(|size| flow.shrunk(size)), [false, false, true, false, false]);
        assert_eq!([50, 101].map(|size| flow.grown(size)), [false, true]);
    }
}
