//! What an agent asks for, whatever protocol it speaks.

/// What the agent asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Play this, µ-law at 8 kHz, behind what is queued.
    Audio(Vec<u8>),
    /// Send the mark back when the audio before it has been played.
    Mark(String),
    /// Drop the queued audio; its marks come back at once.
    Clear,
}
