//! What comes in over UDP, TCP and TLS before the edge sees it: the guards of datagrams and streams, and whom they know.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringwire_config::ObjectRef;
use ringwire_config::gateway::{AllowedSource, RegistrarConfig};
use ringwire_config::state::UdpReport;
use ringwire_control::Reporter;
use ringwire_sip::transaction::Flow;
use tokio::sync::watch;

use super::guard::known::{Known, Learned, Standing};
use super::guard::sight::Sight;
use super::guard::{Banned, Guard, Verdict, Why};
use super::udp::{self, Dropped, Inbox, Udp};

/// How often what was dropped is reported: a flood must not be one of reports.
const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// When one more address is learned than this, all carriers are gone through, which forgets those that were learned long ago.
const MAX_SINCE: usize = 256;

/// See the module.
pub struct Intake {
    pub udp: Udp,
    /// Of the streams; datagrams have their own where they are read.
    guard: Guard,
    /// Who may not connect.
    banned: watch::Sender<Banned>,
    known: Arc<Known>,
    config: Arc<RegistrarConfig>,
    resolved: Arc<BTreeMap<ObjectRef, Vec<IpAddr>>>,
    learned: Learned,
    /// What the streams' guard dropped.
    dropped: [u64; Why::ALL.len()],
    /// What was reported of it and of the socket.
    reported: [u64; Why::ALL.len()],
    report_at: Instant,
}

impl Intake {
    /// Begins to read the socket. Carriers' names are known when they are looked up.
    pub fn start(socket: UdpSocket, config: Arc<RegistrarConfig>) -> io::Result<(Self, Inbox)> {
        let (resolved, learned) = (Arc::default(), Learned::default());
        let known = Arc::new(Known::new(&config, &resolved, learned.iter()));
        let (udp, inbox) = Udp::start(socket, Arc::clone(&known))?;
        let now = Instant::now();
        let intake = Self {
            udp,
            guard: Guard::new(Arc::clone(&known), now),
            banned: watch::Sender::default(),
            known,
            config,
            resolved,
            learned,
            dropped: Default::default(),
            reported: Default::default(),
            report_at: now,
        };
        Ok((intake, inbox))
    }

    /// Takes a configuration.
    pub fn configure(&mut self, config: Arc<RegistrarConfig>) {
        self.config = config;
        self.publish();
    }

    /// Takes the addresses of the carriers' names.
    pub fn set_resolved(&mut self, resolved: Arc<BTreeMap<ObjectRef, Vec<IpAddr>>>) {
        self.resolved = resolved;
        self.publish();
    }

    /// Names of carriers were found to stand for these addresses, as [`Self::set_resolved`] will say: they are no strangers from now on.
    pub fn found<'a>(&mut self, addresses: impl Iterator<Item = &'a IpAddr>) {
        if let Some(known) = self.known.with(addresses) {
            self.use_known(known);
        }
    }

    /// A call from there was let in, or a carrier has us ask something there: it is no stranger any more.
    pub fn learn(&mut self, address: IpAddr) {
        let is_stranger = self.known.standing(address.to_canonical()) == Standing::Stranger;
        if is_stranger && !address.is_unspecified() && self.learned.note(address) {
            if self.known.found_since() < MAX_SINCE {
                self.found([address].iter());
            } else {
                self.publish();
            }
        }
    }

    fn publish(&mut self) {
        self.use_known(Known::new(
            &self.config,
            &self.resolved,
            self.learned.iter(),
        ));
    }

    fn use_known(&mut self, known: Known) {
        self.known = Arc::new(known);
        self.guard.set_known(Arc::clone(&self.known));
        self.udp.set_known(Arc::clone(&self.known));
    }

    /// Whether a message on a stream is for the edge. Media pods, whose streams have no address, are always heard.
    pub fn hears(&mut self, flow: &Flow, message: &impl Sight, now: Instant) -> bool {
        if flow.remote.ip().is_unspecified() {
            return true;
        }
        let verdict = self.guard.judge(flow.remote.ip(), message, now);
        if let Verdict::Drop(why) = verdict {
            self.dropped[why as usize] += 1;
            self.tell_ban(now);
        }
        !matches!(verdict, Verdict::Drop(_))
    }

    /// Somebody at this address, which is not forged, gave a wrong user name or password.
    pub fn offended(&mut self, source: IpAddr, now: Instant) {
        self.udp.offended(source);
        self.guard.offended(source, now);
        self.tell_ban(now);
    }

    /// Who may not connect at present. Nobody can forge the source of a connection, so nobody is in there for what another sent.
    pub fn banned(&self) -> watch::Receiver<Banned> {
        self.banned.subscribe()
    }

    /// The providers that take calls from everybody.
    pub fn open_to_everybody(&self) -> impl Iterator<Item = &ObjectRef> {
        let all = self.config.providers.values();
        let open = all.filter(|provider| {
            let mut allowed = provider.allowed_sources.iter();
            allowed.any(|source| matches!(source, AllowedSource::Net(net) if net.prefix_len() == 0))
        });
        open.map(|provider| &provider.id)
    }

    fn tell_ban(&mut self, now: Instant) {
        self.tell_banned(now);
        if let Some(ban) = self.guard.take_ban() {
            udp::log_ban(ban, 0);
        }
    }

    fn tell_banned(&mut self, now: Instant) {
        if let Some(banned) = self.guard.take_banned(now) {
            self.banned.send_replace(banned);
        }
    }

    /// Reports what was dropped, if there is news and it is time. Gives how much of it came from where a provider takes calls from
    /// everybody.
    pub fn report(&mut self, reporter: &Reporter, now: Instant) -> u64 {
        if now < self.report_at {
            return 0;
        }
        self.report_at = now + REPORT_PAUSE;
        self.tell_banned(now);
        let Dropped {
            guard,
            overflow,
            kernel,
        } = self.udp.dropped();
        let udp = Some(UdpReport {
            receive_buffer: self.udp.receive_buffer() as u64,
            dropped_by_kernel: kernel,
            overflow,
        });
        let total = Why::ALL.map(|why| guard[why as usize] + self.dropped[why as usize]);
        let news = Why::ALL.map(|why| total[why as usize] - self.reported[why as usize]);
        self.reported = total;
        if news.iter().any(|count| *count > 0) || reporter.read(|state| state.udp != udp) {
            reporter.update(|state| {
                state.udp = udp;
                for why in Why::ALL.into_iter().filter(|why| news[*why as usize] > 0) {
                    *state.refusals.entry(why.reason()).or_default() += news[why as usize];
                }
            });
        }
        news[Why::Share as usize]
    }
}
