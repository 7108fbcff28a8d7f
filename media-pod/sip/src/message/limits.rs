//! How large anything that arrives may be. Beyond these a message is refused before it costs memory.

/// Largest UDP datagram that is read, in bytes.
pub const MAX_DATAGRAM: usize = 65_535;
/// Largest start line and header section together, in bytes.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;
/// Most header fields in one message, counted after comma lists of `Via`, `Route` and the like are split.
pub const MAX_HEADERS: usize = 128;
/// Largest body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Most parameters of one URI or header value; those beyond it are an error.
pub const MAX_PARAMS: usize = 64;
/// Most unread bytes that a stream may hold back: one whole message and one read more.
pub const MAX_STREAM_BUFFER: usize = MAX_HEADER_BYTES + MAX_BODY + 64 * 1024;

/// How large the header section of a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderLimits {
    /// Start line and header section together, in bytes.
    pub bytes: usize,
    /// Header fields.
    pub fields: usize,
}

impl HeaderLimits {
    /// For what comes from strangers.
    pub const STRANGERS: Self = Self {
        bytes: MAX_HEADER_BYTES,
        fields: MAX_HEADERS,
    };
    /// For what our own pass on among themselves: a message that was just small enough when it came in has their headers as well by
    /// then.
    pub const OWN: Self = Self {
        bytes: MAX_HEADER_BYTES + 16 * 1024,
        fields: MAX_HEADERS + 64,
    };
}

impl Default for HeaderLimits {
    fn default() -> Self {
        Self::STRANGERS
    }
}
