//! How a call begins: its sockets, its dialog and its record, or the refusal.

use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ringwire_config::gateway::MediaConfig;
use ringwire_config::{Reason, address};
use ringwire_sip::message::{CallerIdentity, HeaderName, Host, Request, Response};
use ringwire_sip::sdp::LocalMedia;

use super::decision::Decision;
use super::succession::TakeOver;
use super::{Call, Leg, NewCall};
use crate::media::caller;
use crate::media::exchange::{CallKey, FromCall};
use crate::media::shared::Shared;
use crate::private;
use crate::record::CallRecord;

/// Why a call does not begin.
struct Refusal {
    response: Response,
    reason: Reason,
    detail: String,
    /// Another media pod may take it: its record is written there.
    another: bool,
}

impl Refusal {
    /// This pod cannot take the call, another may.
    fn here(invite: &Request, key: &CallKey, reason: Reason, detail: String) -> Self {
        let mut response = Response::to_request(invite, 503, None);
        response.set_to_tag(&key.local_tag);
        let marker = private::name(private::TRY_ANOTHER);
        response.headers.push(marker, "1");
        Self {
            response,
            reason,
            detail,
            another: true,
        }
    }

    /// The INVITE cannot be answered as it is.
    fn of(invite: &Request, response: Response) -> Self {
        let warning = response.headers.get(&HeaderName::Warning);
        let detail = warning.unwrap_or(&response.reason).to_owned();
        let encrypted = String::from_utf8_lossy(&invite.body).contains("RTP/SAVP");
        let reason = match response.status {
            488 if encrypted => Reason::EncryptionRequired,
            488 => Reason::CodecMismatch,
            _ => Reason::CallRefused,
        };
        Self {
            response,
            reason,
            detail,
            another: false,
        }
    }
}

/// Takes a call, or refuses it.
pub(super) async fn begin(
    call: NewCall,
    shared: &Shared,
) -> Option<(Box<Call<'_>>, Option<TakeOver>)> {
    let server = call.server;
    let decision = &call.decision;
    let mut record = CallRecord {
        call_id: call.key.call_id.clone(),
        start: Some(jiff::Timestamp::now()),
        to: decision.called.clone(),
        provider: Some(decision.provider.to_string()),
        number: Some(decision.number.to_string()),
        agent: Some(decision.agent.to_string()),
        source: decision.source.to_string(),
        ended_by: "gateway",
        ..CallRecord::default()
    };
    let caller = CallerIdentity::of(&call.invite.headers);
    caller::note(&caller, &mut record);
    let about = caller::parameters(&caller, &decision.called);
    match take(call, shared) {
        Ok((mut call, takes_over)) => {
            call.about = about;
            call.record = record;
            Some((call, takes_over))
        }
        Err(refusal) => {
            let Refusal {
                response,
                reason,
                detail,
                another,
            } = refusal;
            (record.reason, record.status, record.detail) = (Some(reason), response.status, detail);
            record.end = Some(jiff::Timestamp::now());
            if !another {
                record.write();
            }
            shared.tell(FromCall::Respond { server, response }).await;
            None
        }
    }
}

fn take(call: NewCall, shared: &Shared) -> Result<(Box<Call<'_>>, Option<TakeOver>), Refusal> {
    let NewCall {
        key,
        invite,
        server,
        decision,
        takes_over,
        inbox,
    } = call;
    let elsewhere = |reason, detail| Refusal::here(&invite, &key, reason, detail);
    let config = shared.config.borrow().clone();
    let config = config.ok_or_else(|| elsewhere(Reason::InternalError, String::new()))?;
    let mut rng = StdRng::from_os_rng();
    let media = open_media(shared, &config, &decision, &mut rng);
    let (rtp, reports, local) = media.map_err(|error| {
        tracing::warn!(%error, "no RTP port for a call");
        elsewhere(Reason::AtCapacity, error.to_string())
    })?;
    let now = Instant::now();
    let leg = Leg::new(key.clone(), invite.clone(), server, &decision, local, now)
        .map_err(|response| Refusal::of(&invite, response))?;
    let call = Box::new(Call {
        shared,
        key,
        inbox,
        leg,
        rng,
        sockets: Some((rtp, reports)),
        signalling_ip: decision.source.ip(),
        agent: decision.agent.clone(),
        about: BTreeMap::new(),
        line: None,
        media: None,
        media_events: None,
        ears: None,
        agent_proved: false,
        stats: None,
        record: CallRecord::default(),
        cushion_millis: 0,
        limit: now,
        succeeded: None,
        succeeds: None,
        confirmed: false,
        ended: false,
        on_hold: false,
        overflowed: false,
        probed: None,
    });
    Ok((call, takes_over))
}

/// The call's sockets for RTP and RTCP, and what our SDP says about them.
fn open_media(
    shared: &Shared,
    config: &MediaConfig,
    decision: &Decision,
    rng: &mut StdRng,
) -> io::Result<(UdpSocket, UdpSocket, LocalMedia)> {
    let settings = &config.settings;
    let identity = &shared.identity;
    let node = identity
        .node
        .as_ref()
        .and_then(|node| settings.nodes.get(node));
    let by_contact = match decision.contact.host {
        Host::Ip(address) => Some(address),
        Host::Name(_) => None,
    };
    // Without cluster the registrar found the address that leads to the caller; media leave from the same machine.
    let address = address::advertised(&settings.rtp, node, identity.pod_ip).or(by_contact);
    let address = address.ok_or_else(|| io::Error::other("no address to advertise"))?;
    let (socket, reports) = shared.ports.bind(identity.bind, settings.rtp_ports)?;
    let rtp_port = socket.local_addr()?.port();
    let session_id = u64::from(rng.random::<u32>());
    Ok((
        socket,
        reports,
        LocalMedia {
            address,
            rtp_port,
            session_id,
            version: 1,
        },
    ))
}
