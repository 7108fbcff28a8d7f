//! What an agent asks for, whatever protocol it speaks.

use std::borrow::Cow;

/// What the agent asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// Play this, µ-law at 8 kHz, behind what is queued.
    Audio(&'a [u8]),
    /// Send the mark back when the audio before it has been played.
    Mark(Cow<'a, str>),
    /// Drop the queued audio; its marks come back at once.
    Clear,
}
