//! Session timers (RFC 4028): what is asked, what is granted, who refreshes, and when a call counts as dead.
//!
//! This knows headers and instants only; the refreshes themselves are sent by [`super::refresh`].

use std::fmt;
use std::time::{Duration, Instant};

use crate::message::{HeaderName, Headers, Params, Request, Response, saturating_number};

/// The option tag.
pub(crate) const TIMER: &str = "timer";
/// The shortest interval that we take, in seconds, and the least that anybody may ask for (section 5).
const MIN_SE: u32 = 90;
/// The longest interval that we grant, and the one that we ask for, in seconds.
const LONGEST: u32 = 1_800;
/// The call is ended that long before it expires, or a third of the interval if that is less (section 10).
const MARGIN: Duration = Duration::from_secs(32);
/// Most 422 in a row that are followed.
const MAX_RAISES: u32 = 3;
/// With less time than this left there is no other try at a refresh that failed.
const LAST_TRY: Duration = Duration::from_secs(10);

/// Who refreshes: the sender of the request that says so, or its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresher {
    Uac,
    Uas,
}

/// The header `Session-Expires` (section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionExpires {
    pub seconds: u32,
    pub refresher: Option<Refresher>,
}

impl SessionExpires {
    /// What the headers say; nothing if it can't be read.
    pub fn of(headers: &Headers) -> Option<Self> {
        let text = headers.get(&HeaderName::SessionExpires)?;
        let (seconds, params) = text.split_at(text.find(';').unwrap_or(text.len()));
        let params = Params::parse_header("Session-Expires", params).ok()?;
        let refresher = params.get("refresher").and_then(|who| {
            [("uac", Refresher::Uac), ("uas", Refresher::Uas)]
                .into_iter()
                .find(|(name, _)| who.eq_ignore_ascii_case(name))
                .map(|(_, refresher)| refresher)
        });
        Some(Self {
            seconds: saturating_number(seconds)?,
            refresher,
        })
    }
}

impl fmt::Display for SessionExpires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seconds)?;
        match self.refresher {
            Some(Refresher::Uac) => f.write_str(";refresher=uac"),
            Some(Refresher::Uas) => f.write_str(";refresher=uas"),
            None => Ok(()),
        }
    }
}

/// `Min-SE`, in seconds; parameters mean nothing.
fn min_se(headers: &Headers) -> Option<u32> {
    let text = headers.get(&HeaderName::MinSe)?;
    saturating_number(text.split(';').next().unwrap_or(text))
}

/// Whether the sender knows session timers.
fn knows_timers(headers: &Headers) -> bool {
    headers.lists(&HeaderName::Supported, TIMER) || headers.lists(&HeaderName::Require, TIMER)
}

/// 422, if a request asks for less than we take. A sender that does not know timers would not know what to make of it.
pub(crate) fn refuse_short(request: &Request) -> Option<Response> {
    let asked = SessionExpires::of(&request.headers)?;
    (asked.seconds < MIN_SE && knows_timers(&request.headers)).then(|| {
        let mut response = Response::to_request(request, 422, None);
        response.headers.push(HeaderName::MinSe, MIN_SE.to_string());
        response
    })
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Our refresh.
    Refresh,
    /// The end of the call: no refresh came, or none of ours was taken.
    Expiry,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    seconds: u32,
    ours: bool,
    /// When the call is ended: at the expiry, or slightly before it if the refreshes are the peer's.
    end: Instant,
    /// When we refresh; `None` when the peer does, or while a refresh of ours is on its way.
    refresh: Option<Instant>,
}

/// The timer of one session. It does not run unless it was agreed on.
#[derive(Clone, Debug)]
pub(crate) struct SessionTimer {
    running: Option<Running>,
    /// The largest `Min-SE` that somebody on the path has named.
    min_se: u32,
    /// How many 422 were followed since the timer was agreed on.
    raises: u32,
}

impl Default for SessionTimer {
    fn default() -> Self {
        Self {
            running: None,
            min_se: MIN_SE,
            raises: 0,
        }
    }
}

impl SessionTimer {
    /// Writes into our 2xx to an INVITE or UPDATE what we grant (section 9, table 2), and runs by that from now on.
    pub fn grant(&mut self, request: &Request, response: &mut Response, now: Instant) {
        let headers = &request.headers;
        let known = knows_timers(headers);
        let least = min_se(headers).unwrap_or(MIN_SE).max(MIN_SE);
        self.min_se = self.min_se.max(least);
        let asked = SessionExpires::of(headers).filter(|asked| asked.seconds >= MIN_SE);
        let (seconds, refresher) = match (asked, self.running) {
            (Some(asked), _) => (
                asked.seconds.min(LONGEST.max(least)),
                asked.refresher.unwrap_or(Refresher::Uac),
            ),
            // A request that is about something else leaves the timer as it is.
            (None, Some(running)) if running.ours => (running.seconds, Refresher::Uas),
            (None, Some(running)) => (running.seconds, Refresher::Uac),
            (None, None) => return,
        };
        // Who does not know timers is not forced: a proxy asked, and the refreshes are ours.
        let refresher = if known { refresher } else { Refresher::Uas };
        if known {
            response.headers.push(HeaderName::Require, TIMER);
        }
        let header = SessionExpires {
            seconds,
            refresher: Some(refresher),
        };
        response
            .headers
            .push(HeaderName::SessionExpires, header.to_string());
        self.run(seconds, refresher == Refresher::Uas, now);
    }

    /// A 2xx to an INVITE or UPDATE of ours came: without `Session-Expires` there is no timer (section 7.2).
    pub fn answered(&mut self, response: &Response, now: Instant) {
        match SessionExpires::of(&response.headers) {
            Some(expires) => {
                let ours = expires.refresher != Some(Refresher::Uas);
                // Nobody may ask for less, and a tiny number is not to make us send without end.
                self.run(expires.seconds.max(MIN_SE), ours, now);
            }
            None => self.stop(),
        }
    }

    fn run(&mut self, seconds: u32, ours: bool, now: Instant) {
        let interval = Duration::from_secs(u64::from(seconds));
        let margin = if ours {
            Duration::ZERO
        } else {
            MARGIN.min(interval / 3)
        };
        self.raises = 0;
        self.running = Some(Running {
            seconds,
            ours,
            end: now + interval.saturating_sub(margin),
            refresh: ours.then(|| now + interval / 2),
        });
    }

    /// Writes into an INVITE or UPDATE of ours what we ask for (section 7.4).
    pub fn ask(&self, request: &mut Request) {
        let header = SessionExpires {
            seconds: self
                .running
                .map_or(LONGEST, |running| running.seconds)
                .max(self.min_se),
            refresher: self.running.map(|running| {
                if running.ours {
                    Refresher::Uac
                } else {
                    Refresher::Uas
                }
            }),
        };
        request
            .headers
            .push(HeaderName::SessionExpires, header.to_string());
        if self.min_se > MIN_SE {
            request
                .headers
                .push(HeaderName::MinSe, self.min_se.to_string());
        }
    }

    /// Takes a 422: whether there is a larger interval to try (section 7.3).
    pub fn raise(&mut self, response: &Response) -> bool {
        let asked = self
            .running
            .map_or(LONGEST, |running| running.seconds)
            .max(self.min_se);
        match min_se(&response.headers) {
            Some(least) if least > asked && self.raises < MAX_RAISES => {
                self.raises += 1;
                self.min_se = least;
                true
            }
            _ => false,
        }
    }

    /// Our refresh is on its way.
    pub fn refreshing(&mut self) {
        self.refresh_at(None);
    }

    /// Our refresh goes again then.
    pub fn retry_at(&mut self, at: Instant) {
        self.refresh_at(Some(at));
    }

    /// Our refresh failed for now: the next try is half-way to the end.
    pub fn retry_later(&mut self, now: Instant) {
        if let Some(running) = &mut self.running {
            let left = running.end.saturating_duration_since(now);
            running.refresh = (left > LAST_TRY).then(|| now + left / 2);
        }
    }

    fn refresh_at(&mut self, at: Option<Instant>) {
        if let Some(running) = &mut self.running {
            running.refresh = at;
        }
    }

    /// There is no timer any more.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// When something is due; `may_refresh` says whether a refresh may go out at all.
    pub fn poll(&self, may_refresh: bool) -> Option<Instant> {
        let Running { end, refresh, .. } = self.running?;
        let refresh = refresh.filter(|_| may_refresh);
        Some(refresh.map_or(end, |refresh| refresh.min(end)))
    }

    /// What is due.
    pub fn due(&self, may_refresh: bool, now: Instant) -> Option<Due> {
        let running = self.running?;
        if running.end <= now {
            Some(Due::Expiry)
        } else {
            running
                .refresh
                .is_some_and(|at| may_refresh && at <= now)
                .then_some(Due::Refresh)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<SessionExpires> {
        let mut headers = Headers::new();
        headers.push(HeaderName::from("x"), text);
        SessionExpires::of(&headers)
    }

    #[test]
    fn reads_the_compact_form_and_large_numbers() {
        let expires = |seconds, refresher| Some(SessionExpires { seconds, refresher });
        assert_eq!(
            read("1800 ;refresher=UAS;y"),
            expires(1800, Some(Refresher::Uas))
        );
        assert_eq!(read("90;refresher=proxy"), expires(90, None));
        assert_eq!(read("99999999999"), expires(u32::MAX, None));
        assert_eq!(read("-1"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn the_largest_interval_does_not_overflow() {
        let now = Instant::now();
        let mut response = Response::to_headers(&Headers::new(), 200, None);
        response
            .headers
            .push(HeaderName::SessionExpires, u32::MAX.to_string());
        let mut timer = SessionTimer::default();
        timer.answered(&response, now);
        let due = timer.poll(true).expect("a refresh");
        assert_eq!(due.duration_since(now).as_secs(), u64::from(u32::MAX / 2));
    }

    proptest::proptest! {
        #[test]
        fn noise_never_panics(noise in "\\PC{0,100}") {
            let _ = read(&noise);
        }
    }
}
