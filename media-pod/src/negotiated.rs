//! From what offer and answer agreed on to what the RTP stream is told: the SIP and the media crate know nothing of each other.

use std::sync::Arc;

use ringwire_media::codec::{
    AmrWbParameters, G7221Rate, HAS_AMR_WB, HAS_G7221, HAS_ILBC, IlbcMode, OpusParameters,
};
use ringwire_media::cover::Protection;
use ringwire_media::dtls;
use ringwire_media::ice;
use ringwire_media::srtp::{MasterKey, Profile};
use ringwire_media::stream::{self, TelephoneEvent};
use ringwire_sip::sdp::{
    AmrWb, Codec, Fingerprint, Negotiated, SdesKeys, Security, Suite, ilbc_millis,
};

/// The RTP session that was agreed on.
pub fn session(negotiated: &Negotiated) -> stream::Session {
    stream::Session {
        codec: codec(negotiated),
        send_payload_type: negotiated.payload_type,
        receive_payload_type: negotiated.receive_payload_type,
        telephone_event: negotiated
            .telephone_event
            .map(|(send, receive)| TelephoneEvent {
                send,
                receive,
                clock_rate: negotiated.telephone_event_clock,
            }),
        remote: negotiated.remote,
        remote_rtcp: negotiated.remote_rtcp,
        send: negotiated.local_direction.sends(),
        receive: negotiated.local_direction.receives(),
    }
}

/// The codec, with what the peer asks of our encoder.
fn codec(negotiated: &Negotiated) -> stream::Codec {
    match negotiated.codec {
        Codec::Pcmu => stream::Codec::Pcmu,
        Codec::Pcma => stream::Codec::Pcma,
        Codec::G722 => stream::Codec::G722,
        Codec::L16 { rate } => stream::Codec::L16 { rate },
        Codec::Opus => {
            let asked = &negotiated.parameters;
            let most = OpusParameters::default().max_playback_rate;
            stream::Codec::Opus(OpusParameters {
                fec: asked.is_set("useinbandfec"),
                dtx: asked.is_set("usedtx"),
                constant: asked.is_set("cbr"),
                max_playback_rate: asked.number("maxplaybackrate").unwrap_or(most).min(most),
                max_bitrate: asked.number("maxaveragebitrate"),
            })
        }
        Codec::AmrWb { octet_aligned } => {
            let asked = AmrWb::of(&negotiated.parameters);
            stream::Codec::AmrWb(AmrWbParameters {
                octet_aligned,
                modes: asked.and_then(|asked| asked.modes).unwrap_or(0x1ff),
                every_second: asked.is_some_and(|asked| asked.every_second),
                neighbors_only: asked.is_some_and(|asked| asked.neighbors_only),
            })
        }
        Codec::Ilbc => stream::Codec::Ilbc(match ilbc_millis(&negotiated.parameters) {
            Some(20) => IlbcMode::Millis20,
            _ => IlbcMode::Millis30,
        }),
        Codec::G7221 { bitrate: 24_000 } => stream::Codec::G7221(G7221Rate::Kilobits24),
        Codec::G7221 { .. } => stream::Codec::G7221(G7221Rate::Kilobits32),
    }
}

/// Whether its packets have 10 ms in place of 20.
pub fn has_short_packets(negotiated: &Negotiated) -> bool {
    negotiated.ptime_millis < 20
}

/// Whether this build has the codec.
pub fn is_built(codec: Codec) -> bool {
    match codec {
        Codec::Pcmu | Codec::Pcma | Codec::G722 | Codec::L16 { .. } | Codec::Opus => true,
        Codec::AmrWb { .. } => HAS_AMR_WB,
        Codec::Ilbc => HAS_ILBC,
        Codec::G7221 { .. } => HAS_G7221,
    }
}

/// How its packets are protected; in handshakes we have that certificate.
pub fn protection(
    negotiated: &Negotiated,
    certificate: Option<&Arc<dtls::Identity>>,
) -> Protection {
    match &negotiated.security {
        None => Protection::None,
        Some(Security::Sdes(keys)) => sdes(keys),
        Some(Security::Dtls(terms)) => certificate.map_or(Protection::Closed, |identity| {
            Protection::Handshake(dtls::Terms {
                identity: Arc::clone(identity),
                active: terms.active,
                fingerprints: terms.fingerprints.iter().filter_map(fingerprint).collect(),
            })
        }),
    }
}

/// How the peer checks which way leads to us, if it does.
pub fn ice(negotiated: &Negotiated) -> Option<ice::Terms> {
    let terms = negotiated.ice.as_ref()?;
    Some(ice::Terms {
        ufrag: terms.ufrag.clone(),
        password: terms.password.clone(),
        muxed: terms.muxed,
    })
}

/// What the peer is told of our certificate.
pub fn told(certificate: &dtls::Identity) -> Fingerprint {
    let dtls::Fingerprint { hash, value } = certificate.fingerprint();
    let hash = name(hash);
    Fingerprint { hash, value }
}

fn name(hash: dtls::Hash) -> &'static str {
    match hash {
        dtls::Hash::Sha256 => "sha-256",
        dtls::Hash::Sha384 => "sha-384",
        dtls::Hash::Sha512 => "sha-512",
    }
}

fn fingerprint(told: &Fingerprint) -> Option<dtls::Fingerprint> {
    let hashes = [dtls::Hash::Sha256, dtls::Hash::Sha384, dtls::Hash::Sha512];
    Some(dtls::Fingerprint {
        hash: hashes.into_iter().find(|hash| name(*hash) == told.hash)?,
        value: told.value.clone(),
    })
}

fn sdes(keys: &SdesKeys) -> Protection {
    let profile = match keys.suite {
        Suite::Aes128Sha1_80 => Profile::Aes128Sha1_80,
        Suite::Aes128Sha1_32 => Profile::Aes128Sha1_32,
        Suite::Aes256Sha1_80 => Profile::Aes256Sha1_80,
        Suite::Aes256Sha1_32 => Profile::Aes256Sha1_32,
        Suite::Aes128Gcm => Profile::Aes128Gcm,
        Suite::Aes256Gcm => Profile::Aes256Gcm,
    };
    let keys = MasterKey::new(profile, keys.send.bytes())
        .zip(MasterKey::new(profile, keys.receive.bytes()));
    // The lengths are right by now; were they not, nothing would go out in the clear.
    keys.map_or(Protection::Closed, |(send, receive)| Protection::Keys {
        send,
        receive,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwire_sip::sdp::{Capabilities, Encryption, LocalMedia, Secret, answer, offer};

    #[test]
    fn every_suite_is_known_by_both_crates() {
        let local = LocalMedia {
            address: "192.0.2.1".parse().unwrap(),
            rtp_port: 4000,
            session_id: 1,
            version: 1,
        };
        let caps = |random| Capabilities {
            codecs: vec![Codec::Pcmu],
            telephone_event: true,
            ptime_millis: 20,
            encryption: Encryption::Sdes {
                required: true,
                secret: Secret::new([random; 32]),
            },
            ice: None,
        };
        for suite in Suite::ALL {
            let mut offer = offer(&caps(1), &local);
            let attributes = &mut offer.media[0].attributes;
            attributes.retain(|(name, _)| name != "crypto");
            // 28, 30, 44 or 46 bytes.
            let digits = suite.keying_bytes() * 8 / 6 + 1;
            let digits = if suite.keying_bytes() % 3 == 0 {
                digits - 1
            } else {
                digits
            };
            let value = format!("1 {} inline:{}", suite.name(), "A".repeat(digits));
            attributes.push(("crypto".to_owned(), Some(value)));
            let (_, negotiated) = answer(&offer, &caps(2), &local).unwrap();
            let Protection::Keys { send, receive } = protection(&negotiated, None) else {
                panic!("{suite:?}");
            };
            assert!(send != receive && format!("{:?}", send.profile()) == format!("{suite:?}"));
        }
    }
}
