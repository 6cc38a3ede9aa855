//! Whether a connection owes an answer, and whether anything has moved in it since somebody looked.

/// What has come and gone, for who looks from time to time: the lowest bit is set while the last to move came in, and the
/// others count.
///
/// ```text
/// Answered --received--> Unanswered --written--> Answered
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Activity(u32);

impl Activity {
    /// Something was received.
    #[inline]
    pub(crate) fn received(self) -> Self {
        Activity(self.0.wrapping_add(2) | 1)
    }

    /// Something was written.
    #[inline]
    pub(crate) fn written(self) -> Self {
        Activity(self.0.wrapping_add(2) & !1)
    }

    /// Whether something has been received since what was written last.
    pub(crate) fn is_unanswered(self) -> bool {
        self.0 & 1 == 1
    }
}

/// How a connection stands, for a server that drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Of the descriptor.
    pub(crate) activity: Activity,
    /// Something has been received since what was written last.
    pub(crate) unanswered: bool,
    /// Something waits: to be written, for the protocol to go on reading, for a handshake.
    pub(crate) waits: bool,
}

impl Standing {
    /// Nothing is owed, as far as it can be seen.
    pub(crate) fn is_idle(self) -> bool {
        !self.unanswered && !self.waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_received_is_unanswered_until_something_is_written() {
        let fresh = Activity::default();
        assert!(!fresh.is_unanswered());
        assert!(fresh.received().is_unanswered());
        assert!(fresh.received().received().is_unanswered());
        assert!(!fresh.received().written().is_unanswered());
        assert!(!fresh.written().is_unanswered());
        assert!(fresh.written().received().is_unanswered());
    }

    #[test]
    fn whatever_moves_can_be_seen() {
        let start = Activity(u32::MAX - 1);
        for first in [Activity::received, Activity::written] {
            assert_ne!(first(start), start);
            for second in [Activity::received, Activity::written] {
                assert_ne!(second(first(start)), start);
                assert_ne!(second(first(start)), first(start));
            }
        }
        assert!(start.received().is_unanswered() && !start.received().written().is_unanswered());
    }
}
