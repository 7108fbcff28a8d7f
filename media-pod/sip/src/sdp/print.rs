//! Writing session descriptions, lines in the order of RFC 8866 section 5.

use std::fmt;
use std::net::IpAddr;

use super::{Attribute, MediaDescription, SessionDescription};

impl SessionDescription {
    /// The body as it goes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

/// Text without line ends, so that a value never starts a line of its own.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.split(['\r', '\n']).enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(part)?;
        }
        Ok(())
    }
}

/// `IP4` or `IP6`.
fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IP4" } else { "IP6" }
}

fn write_attributes(f: &mut fmt::Formatter<'_>, attributes: &[Attribute]) -> fmt::Result {
    for (name, value) in attributes {
        match value {
            Some(value) => write!(f, "a={}:{}\r\n", OneLine(name), OneLine(value))?,
            None => write!(f, "a={}\r\n", OneLine(name))?,
        }
    }
    Ok(())
}

impl fmt::Display for SessionDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = &self.origin;
        let family_of_origin = if origin.address.contains(':') {
            "IP6"
        } else {
            "IP4"
        };
        write!(
            f,
            "v=0\r\no={} {} {} IN {family_of_origin} {}\r\ns={}\r\n",
            OneLine(&origin.username),
            OneLine(&origin.session_id),
            OneLine(&origin.version),
            OneLine(&origin.address),
            OneLine(&self.session_name)
        )?;
        if let Some(address) = self.connection {
            write!(f, "c=IN {} {address}\r\n", family(address))?;
        }
        for bandwidth in &self.bandwidth {
            write!(f, "b={}\r\n", OneLine(bandwidth))?;
        }
        write!(f, "t={}\r\n", OneLine(&self.timing))?;
        write_attributes(f, &self.attributes)?;
        self.media.iter().try_for_each(|media| media.fmt(f))
    }
}

impl fmt::Display for MediaDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "m={} {} {}",
            OneLine(&self.kind),
            self.port,
            OneLine(&self.protocol)
        )?;
        for format in &self.formats {
            write!(f, " {}", OneLine(format))?;
        }
        f.write_str("\r\n")?;
        if let Some(address) = self.connection {
            write!(f, "c=IN {} {address}\r\n", family(address))?;
        }
        for bandwidth in &self.bandwidth {
            write!(f, "b={}\r\n", OneLine(bandwidth))?;
        }
        write_attributes(f, &self.attributes)?;
        // A refused stream has no direction.
        if self.port != 0 {
            write!(f, "a={}\r\n", self.direction)
        } else {
            Ok(())
        }
    }
}
