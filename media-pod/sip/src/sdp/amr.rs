//! The parameters of AMR-WB (RFC 4867 section 8.2).

use super::Parameters;

/// The modes that there are, 0 (6.60 kbit/s) to 8 (23.85 kbit/s).
const MODES: u8 = 9;

/// What the peer says of its packets and of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmrWb {
    /// `octet-align`: frames begin on octets.
    pub octet_aligned: bool,
    /// `mode-set`: bit n is set if mode n may be used. None: all may.
    pub modes: Option<u16>,
    /// `mode-change-period=2`: modes change with every second frame only.
    pub every_second: bool,
    /// `mode-change-neighbor`: only to the next mode of the set.
    pub neighbors_only: bool,
}

impl AmrWb {
    /// Reads them. None for what we do not do: checksums, sorting by importance, interleaving, several channels, a set without a mode.
    pub fn of(parameters: &Parameters) -> Option<Self> {
        let wants = |name| parameters.is_set(name);
        let channels = parameters.get("channels");
        if wants("crc")
            || wants("robust-sorting")
            || parameters.get("interleaving").is_some()
            || channels.is_some_and(|channels| channels != "1")
        {
            return None;
        }
        let modes = match parameters.get("mode-set") {
            None => None,
            Some(list) => Some(set(list)?),
        };
        Some(Self {
            octet_aligned: wants("octet-align"),
            modes,
            every_second: parameters.number("mode-change-period") == Some(2),
            neighbors_only: wants("mode-change-neighbor"),
        })
    }

    /// What we say: the format and the set of modes as they were offered, that we can keep to changes with every second frame, and that nothing
    /// is sent twice.
    pub(super) fn say(octet_aligned: bool, modes: Option<u16>) -> String {
        let mut text = String::new();
        if octet_aligned {
            text.push_str("octet-align=1;");
        }
        if let Some(modes) = modes {
            let modes: Vec<String> = (0..MODES)
                .filter(|mode| modes >> mode & 1 == 1)
                .map(|mode| mode.to_string())
                .collect();
            text.push_str("mode-set=");
            text.push_str(&modes.join(","));
            text.push(';');
        }
        text.push_str("mode-change-capability=2;max-red=0");
        text
    }
}

/// `0,1,2`.
fn set(list: &str) -> Option<u16> {
    let mut modes = 0;
    for mode in list.trim_matches('"').split(',') {
        let mode: u8 = mode.trim().parse().ok()?;
        modes |= (mode < MODES).then_some(1 << mode)?;
    }
    Some(modes)
}
