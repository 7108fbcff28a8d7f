//! How a call begins: its sockets, its dialog and its record, or the refusal.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ringwire_config::gateway::MediaConfig;
use ringwire_config::{Reason, address};
use ringwire_media::ports::Wanted;
use ringwire_sip::message::{CallerIdentity, HeaderName, Host, Request, Response};
use ringwire_sip::sdp::LocalMedia;

use super::decision::Decision;
use super::succession::TakeOver;
use super::{Call, Leg, NewCall, Timing};
use crate::media::agent_link::Hearing;
use crate::media::caller;
use crate::media::exchange::{CallKey, FromCall};
use crate::media::shared::Shared;
use crate::private;
use crate::record::CallRecord;

/// Why a call is refused that all would be heard late with.
const BUSY: &str = "the threads for media have been too slow for two seconds";
/// How often that is said.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// In place of a port that is not known yet; nobody is told of it.
const DISCARD: u16 = 9;

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
    fn of(response: Response) -> Self {
        let warning = response.headers.get(&HeaderName::Warning);
        let detail = warning.unwrap_or(&response.reason).to_owned();
        // RFC 3261 section 20.43: the transport does not fit.
        let encryption = warning.is_some_and(|warning| warning.starts_with("302 "));
        let reason = match response.status {
            488 if encryption => Reason::EncryptionRequired,
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

/// Says why the pod takes no calls: their records are written by those that do.
fn warn_of_slowness(now: Instant) {
    static TOLD: Mutex<Option<Instant>> = Mutex::new(None);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.is_none_or(|at| now.saturating_duration_since(at) >= TELL_AGAIN) {
        *told = Some(now);
        tracing::warn!("{BUSY}: no new calls are taken");
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
    // One that takes over another's place makes no more of them.
    if takes_over.is_none() && shared.plane.is_full() {
        warn_of_slowness(Instant::now());
        return Err(elsewhere(Reason::AtCapacity, BUSY.to_owned()));
    }
    let mut rng = StdRng::from_os_rng();
    let local = local_media(shared, &config, &decision, &mut rng);
    let local = local.map_err(|error| {
        tracing::warn!(%error, "no RTP port for a call");
        elsewhere(Reason::AtCapacity, error.to_string())
    })?;
    let now = Instant::now();
    let leg = Leg::new(
        key.clone(),
        invite.clone(),
        server,
        &decision,
        local,
        &shared.certificate,
        now,
    )
    .map_err(Refusal::of)?;
    let remote = leg
        .uas
        .negotiated()
        .and_then(|negotiated| negotiated.remote);
    let wanted = Wanted {
        bind: shared.identity.bind,
        range: config.settings.rtp_ports,
        remote,
        signalling: Some(decision.source.ip()),
        networks: decision.media_sources.clone(),
        thread: None,
    };
    // The port is chosen with the answer; by then it may be another one, but not none.
    shared.plane.has_seat(&wanted).map_err(|error| {
        tracing::warn!(%error, "no RTP port for a call");
        elsewhere(Reason::AtCapacity, error.to_string())
    })?;
    let call = Box::new(Call {
        shared,
        key,
        inbox,
        leg,
        rng,
        local,
        seat: None,
        signalling_ip: decision.source.ip(),
        media_sources: decision.media_sources.clone(),
        provider: decision.provider.clone(),
        agent: decision.agent.clone(),
        media_timeout: decision.media_timeout,
        about: BTreeMap::new(),
        line: None,
        media: None,
        media_events: None,
        ears: None,
        agent_proved: false,
        stats: None,
        record: CallRecord::default(),
        timing: Timing::NONE,
        hearing: Hearing::default(),
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

/// What our SDP says about us; the port is not known yet.
fn local_media(
    shared: &Shared,
    config: &MediaConfig,
    decision: &Decision,
    rng: &mut StdRng,
) -> io::Result<LocalMedia> {
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
    Ok(LocalMedia {
        address: address.ok_or_else(|| io::Error::other("no address to advertise"))?,
        rtp_port: DISCARD,
        session_id: u64::from(rng.random::<u32>()),
        version: 1,
    })
}
