//! The value of a header field: a piece of the head that it was read from, or text of its own.

use std::fmt;
use std::sync::Arc;

/// Text without line ends. What was read shares one copy of its message's head, so that reading and copying headers
/// allocates nothing; that head stays in memory as long as any of its values.
#[derive(Clone)]
pub(super) enum Text {
    /// A piece of a head.
    Shared {
        head: Arc<str>,
        /// Where it begins and ends, in bytes.
        start: usize,
        end: usize,
    },
    /// Text that was made here, or put together from several lines.
    Own(String),
}

impl Text {
    /// A piece of the head, found by its address; text from elsewhere is copied.
    pub(super) fn part_of(head: &Arc<str>, part: &str) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
        let end = start.wrapping_add(part.len());
        // Whatever lies inside of the head is the head's.
        if head.get(start..end).is_some() {
            let head = Arc::clone(head);
            Self::Shared { head, start, end }
        } else {
            Self::Own(part.to_owned())
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Shared { head, start, end } => &head[*start..*end],
            Self::Own(text) => text,
        }
    }

    pub(super) fn into_string(self) -> String {
        match self {
            Self::Shared { .. } => self.as_str().to_owned(),
            Self::Own(text) => text,
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}
