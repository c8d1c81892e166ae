//! Numbers of items and streams: `count × 4 + class × 2 + side`, so that neither the two sides nor the two classes wait
//! for each other. Each class ascends on the wire; a number may be skipped when what had it was given up before it left.

use crate::Code;

/// What a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A request or message.
    Item = 0,
    /// A stream.
    Stream = 1,
}

/// Which numbers are used up, by side and class.
#[derive(Debug)]
pub(super) struct Numbers {
    side: u64,
    own: [u64; 2],
    theirs: [u64; 2],
}

impl Numbers {
    /// Counting begins at 1: number 0 stands for the inbox.
    pub(super) fn new(initiator: bool) -> Self {
        let side = u64::from(!initiator);
        let first = |side: u64| [4 + side, 6 + side];
        Self {
            side,
            own: first(side),
            theirs: first(1 - side),
        }
    }

    /// The next number of our own.
    pub(super) fn take(&mut self, class: Class) -> u64 {
        let next = &mut self.own[class as usize];
        let id = *next;
        *next += 4;
        id
    }

    /// Uses up a number of the peer's, and with it every lower one of its class.
    pub(super) fn claim(&mut self, id: u64, class: Class) -> Result<(), Code> {
        let next = &mut self.theirs[class as usize];
        if id % 4 != *next % 4 || id < *next {
            return Err(Code::FrameUnexpected);
        }
        *next = id.checked_add(4).ok_or(Code::FrameUnexpected)?;
        Ok(())
    }

    /// Frames may still speak of what is over, but not of what never was.
    pub(super) fn check_used(&self, id: u64) -> Result<(), Code> {
        let next = if id % 2 == self.side {
            &self.own
        } else {
            &self.theirs
        };
        if id < 4 || id >= next[usize::from(id % 4 >= 2)] {
            return Err(Code::FrameUnexpected);
        }
        Ok(())
    }

    /// Whether a number is one that our side gives.
    pub(super) const fn is_own(&self, id: u64) -> bool {
        id % 2 == self.side
    }

    /// The same for numbers of our own.
    pub(super) fn check_own(&self, id: u64) -> Result<(), Code> {
        if self.is_own(id) {
            self.check_used(id)
        } else {
            Err(Code::FrameUnexpected)
        }
    }

    /// The same for numbers of the peer's.
    pub(super) fn check_theirs(&self, id: u64) -> Result<(), Code> {
        if self.is_own(id) {
            Err(Code::FrameUnexpected)
        } else {
            self.check_used(id)
        }
    }
}
