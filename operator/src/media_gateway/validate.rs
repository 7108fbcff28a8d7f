//! What a schema cannot check of a gateway before something is built for it.

use ringwire_config::ObjectRef;
use ringwire_crds::MediaGateway;

/// Longest name: Services are called after the gateway with a suffix, and end at 63 characters.
const MAX_NAME: usize = 63 - "-registrar".len();

/// A gateway that children can be built for.
#[derive(Clone, Copy)]
pub struct ValidGateway<'a> {
    object: &'a MediaGateway,
    uid: &'a str,
}

/// Why nothing can be built for a gateway. The text is what the condition says.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    /// Its name does not do for what is called after it.
    #[error(
        "metadata.name {0:?} must have at most {MAX_NAME} characters, start with a lower-case letter and go on with \
         lower-case letters, digits and dashes, because Services are called after it; create it under another name"
    )]
    Name(String),
    /// It was not read from an API server.
    #[error("metadata.uid is missing")]
    Uid,
}

impl<'a> ValidGateway<'a> {
    /// Checks a gateway.
    pub fn new(object: &'a MediaGateway) -> Result<Self, Invalid> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let clean = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let starts = name.starts_with(|first: char| first.is_ascii_lowercase());
        if !clean || !starts || name.ends_with('-') || name.len() > MAX_NAME {
            return Err(Invalid::Name(name.to_owned()));
        }
        let uid = object.metadata.uid.as_deref().ok_or(Invalid::Uid)?;
        Ok(Self { object, uid })
    }

    /// The object.
    pub fn object(&self) -> &'a MediaGateway {
        self.object
    }

    /// Its name and namespace.
    pub fn id(&self) -> ObjectRef {
        ObjectRef::of(self.object)
    }

    /// Its UID.
    pub fn uid(&self) -> &'a str {
        self.uid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_names_that_no_service_can_have() {
        for (name, valid) in [
            ("default", true),
            ("a-1", true),
            ("1a", false),
            ("a.b", false),
            ("a-", false),
            (&"a".repeat(53), true),
            (&"a".repeat(54), false),
        ] {
            let mut gateway = MediaGateway::new(name, ringwire_crds::MediaGatewaySpec::default());
            gateway.metadata.uid = Some("uid".into());
            assert_eq!(ValidGateway::new(&gateway).is_ok(), valid, "{name}");
        }
    }
}
