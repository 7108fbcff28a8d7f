//! Who a caller proves to be, where a provider asks for it (RFC 3261 section 22).
//!
//! A nonce says when it was made, is made for one call, and is signed together with the address it was made for, so that any registrar of the gateway can check
//! it, and whoever gives it back has really received it: its source is not forged. Which nonces were used how often is known to the
//! registrar that took them only; elsewhere an answer that was overheard could be repeated from the same address until its nonce is old.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ringwire_config::ObjectRef;
use ringwire_config::gateway::RegistrarConfig;
use ringwire_config::token::TokenKey;
use ringwire_sip::digest::server::{self, Answer};
use ringwire_sip::message::{HeaderName, Request};

use super::RefusedCall;
use super::limits::counted;
use crate::registrar::guard::MAX_GUESSES;

/// What PBXes may want to know before they answer.
pub const REALM: &str = "ringwire";

/// Seconds in which a nonce may be used.
const FRESH: u64 = 60;

/// Seconds by which the clocks of two registrars may differ.
const SKEW: u64 = 30;

/// Used nonces that are remembered; the oldest goes first.
const MAX_USED: usize = 65_536;

/// A caller that was asked has so long to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Callers that were asked and have not answered yet.
const MAX_ASKED: usize = 1_024;

/// A source that has given [`MAX_GUESSES`] wrong passwords has to wait so long after the last. This is for those whom the guard never shuts
/// out as well: carriers, and everybody where everybody may call.
const COOLING: Duration = Duration::from_secs(60);

/// Sources whose guesses are counted; beyond it all counts are forgotten.
const MAX_GUESSERS: usize = 16_384;

/// What a request proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: it does not answer a challenge of ours.
    None,
    /// Nothing: its nonce is not ours for this address, is too old, or was used before. Whether the password is right is not told, or a
    /// nonce that somebody made up would let him try passwords that nobody counts.
    Stale,
    /// That its sender does not know the password.
    Wrong,
    /// Nothing: so many wrong passwords came from its source that none is looked at for a while.
    TooOften,
    /// That its sender knows the password of these providers.
    Of(Vec<ObjectRef>),
}

/// See the module.
#[derive(Default)]
pub struct Proofs {
    /// The highest count of each nonce.
    used: HashMap<String, u32>,
    /// Its keys, the oldest first.
    order: VecDeque<String>,
    /// Calls whose callers were asked, the oldest first.
    asked: VecDeque<(Instant, RefusedCall)>,
    /// Wrong passwords of each source, and when the last came, in seconds since 1970.
    guesses: HashMap<IpAddr, (u32, u64)>,
}

impl Proofs {
    /// What a request from `source` proves; `time` is in seconds since 1970.
    pub fn check(
        &mut self,
        config: &RegistrarConfig,
        request: &Request,
        source: IpAddr,
        time: u64,
    ) -> Proof {
        let Some(answer) = Answer::from_request(request, REALM) else {
            return Proof::None;
        };
        let keys = &config.settings.token_keys;
        let is_fresh = made_at(keys, &answer.nonce, source)
            .is_some_and(|made| made <= time + SKEW && time <= made + FRESH);
        if !is_fresh {
            return Proof::Stale;
        }
        let guesser = counted(source);
        if self.has_guessed_too_often(guesser, time) {
            return Proof::TooOften;
        }
        let all = config.providers.values();
        let proved = all.filter(|provider| {
            let mut accounts = provider.incoming.iter().flatten();
            accounts.any(|account| {
                account.username == answer.username
                    && answer.proves(account.password.expose(), request)
            })
        });
        let proved: Vec<ObjectRef> = proved.map(|provider| provider.id.clone()).collect();
        // A guess uses the nonce up as well.
        let is_unused = self.take(&answer);
        match (is_unused, proved.is_empty()) {
            (false, _) => Proof::Stale,
            (true, true) => {
                self.note_guess(guesser, time);
                Proof::Wrong
            }
            (true, false) => Proof::Of(proved),
        }
    }

    fn has_guessed_too_often(&mut self, guesser: IpAddr, time: u64) -> bool {
        let Some((count, last)) = self.guesses.get(&guesser) else {
            return false;
        };
        let is_cool = last + COOLING.as_secs() <= time;
        let too_often = *count >= MAX_GUESSES && !is_cool;
        if is_cool {
            self.guesses.remove(&guesser);
        }
        too_often
    }

    fn note_guess(&mut self, guesser: IpAddr, time: u64) {
        if self.guesses.len() >= MAX_GUESSERS && !self.guesses.contains_key(&guesser) {
            self.guesses.clear();
        }
        let (count, last) = self.guesses.entry(guesser).or_default();
        (*count, *last) = (*count + 1, time);
    }

    /// Uses a nonce once more; `false`: it was used as often before.
    fn take(&mut self, answer: &Answer) -> bool {
        if let Some(count) = self.used.get_mut(&answer.nonce) {
            let is_next = answer.count > *count;
            *count = answer.count.max(*count);
            return is_next;
        }
        if self.order.len() >= MAX_USED
            && let Some(oldest) = self.order.pop_front()
        {
            self.used.remove(&oldest);
        }
        self.used.insert(answer.nonce.clone(), answer.count);
        self.order.push_back(answer.nonce.clone());
        true
    }

    /// A caller was asked. Gives the call of another that takes too long, if there are too many of them.
    pub fn asked(&mut self, call: RefusedCall, now: Instant) -> Option<RefusedCall> {
        self.answered(&call.call_id);
        self.asked.push_back((now + PATIENCE, call));
        if self.asked.len() <= MAX_ASKED {
            return None;
        }
        self.asked.pop_front().map(|(_, call)| call)
    }

    /// A caller has answered.
    pub fn answered(&mut self, call_id: &str) {
        self.asked.retain(|(_, call)| call.call_id != call_id);
    }

    /// A call whose caller has not answered in time.
    pub fn unanswered(&mut self, now: Instant) -> Option<RefusedCall> {
        let is_due = self.asked.front().is_some_and(|(due, _)| *due <= now);
        is_due
            .then(|| self.asked.pop_front())?
            .map(|(_, call)| call)
    }

    /// When to ask for the next such.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.asked.front().map(|(due, _)| *due)
    }
}

/// The challenges for a caller at `source`. `unique` tells the nonces of one second apart: most callers use each once, with a count of 1.
pub fn challenges(
    keys: &[TokenKey],
    source: IpAddr,
    stale: bool,
    (time, unique): (u64, u32),
) -> Vec<(HeaderName, String)> {
    let Some(key) = keys.first() else {
        return Vec::new();
    };
    let nonce = nonce(key, source, time, unique);
    let challenge = |algorithm| {
        let text = server::challenge(REALM, &nonce, algorithm, stale);
        (HeaderName::WwwAuthenticate, text)
    };
    server::OFFERED.iter().map(challenge).collect()
}

/// What the signature is for.
const PURPOSE: &str = "nonce";

/// Digits of the key's number, of the time, and of what is unique.
const PREFIX: usize = 2 + 8 + 8;

fn nonce(key: &TokenKey, source: IpAddr, time: u64, unique: u32) -> String {
    let made = format!("{time:08x}{unique:08x}");
    let signature = key.derive(PURPOSE, &subject(&made, source));
    format!("{}{made}{signature}", key_text(key))
}

fn key_text(key: &TokenKey) -> String {
    format!("{:02x}", key.id)
}

fn subject(made: &str, source: IpAddr) -> String {
    format!("{made} {}", source.to_canonical())
}

/// When a nonce was made, if it is one of ours for this source.
fn made_at(keys: &[TokenKey], text: &str, source: IpAddr) -> Option<u64> {
    let (id, made, signature) = (text.get(..2)?, text.get(2..PREFIX)?, text.get(PREFIX..)?);
    // As we write it and no other way, so that it counts as the same nonce.
    let key = keys.iter().find(|key| key_text(key) == id)?;
    if !key.derives(PURPOSE, &subject(made, source), signature) {
        return None;
    }
    u64::from_str_radix(made.get(..8)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use ringwire_config::Secret;
    use ringwire_config::fixture;
    use ringwire_config::gateway::{Account, Provider};
    use ringwire_sip::digest::{Challenge, Credentials, DigestClient};
    use ringwire_sip::message::{Message, Response, parse_datagram};

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const SOURCE: [u8; 4] = [192, 0, 2, 7];

    fn key(id: u8) -> TokenKey {
        TokenKey::from_bytes(id, [id; 32])
    }

    fn config(keys: Vec<TokenKey>) -> RegistrarConfig {
        let account = Account {
            username: "pbx".to_owned(),
            password: Secret::new("secret"),
        };
        let mut config = fixture::registrar([Provider {
            incoming: Some(vec![account]),
            ..fixture::provider("pbx")
        }]);
        config.settings.token_keys = keys;
        config
    }

    fn invite() -> Request {
        let text = "INVITE sip:100@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
            To: <sip:100@192.0.2.1>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
        match parse_datagram(text.as_bytes()).unwrap() {
            Message::Request(request) => request,
            Message::Response(_) => panic!(),
        }
    }

    /// A caller that was asked at some time.
    struct Caller {
        challenges: Vec<Challenge>,
        digest: DigestClient,
    }

    impl Caller {
        fn asked(keys: &[TokenKey], time: u64) -> Self {
            Self::asked_with(keys, (time, 7))
        }

        fn asked_with(keys: &[TokenKey], made: (u64, u32)) -> Self {
            let mut response = Response::to_request(&invite(), 401, None);
            for (name, value) in challenges(keys, SOURCE.into(), false, made) {
                response.headers.push(name, value);
            }
            Self {
                challenges: Challenge::from_response(&response),
                digest: DigestClient::new(),
            }
        }

        fn invites(&mut self, password: &str) -> Request {
            let mut request = invite();
            let credentials = Credentials {
                username: "pbx".into(),
                password: password.into(),
                realm: None,
            };
            let (method, uri) = (request.method.clone(), request.uri.to_string());
            let answers =
                self.digest
                    .answer(&self.challenges, &credentials, &method, &uri, b"", "c0");
            for (name, value) in answers.unwrap() {
                request.headers.push(name, value);
            }
            request
        }
    }

    fn check(proofs: &mut Proofs, request: &Request, time: u64) -> Proof {
        proofs.check(&config(vec![key(1)]), request, SOURCE.into(), time)
    }

    fn proved() -> Proof {
        Proof::Of(vec![ObjectRef::new("voice", "pbx")])
    }

    #[test]
    fn whoever_knows_the_password_is_let_in_and_nobody_else() {
        let mut proofs = Proofs::default();
        let mut caller = Caller::asked(&[key(1)], NOW);
        assert_eq!(check(&mut proofs, &invite(), NOW), Proof::None);
        let request = caller.invites("secret");
        assert_eq!(check(&mut proofs, &request, NOW), proved());
        let request = caller.invites("guess");
        assert_eq!(check(&mut proofs, &request, NOW), Proof::Wrong);
    }

    #[test]
    fn after_five_guesses_a_source_has_to_wait_whoever_it_is() {
        let (keys, mut proofs) = ([key(1)], Proofs::default());
        for unique in 0..MAX_GUESSES {
            let mut caller = Caller::asked_with(&keys, (NOW, unique));
            let guess = caller.invites("guess");
            assert_eq!(check(&mut proofs, &guess, NOW), Proof::Wrong);
            // A nonce does for one guess.
            let again = check(&mut proofs, &guess, NOW);
            assert!(matches!(again, Proof::Stale | Proof::TooOften), "{again:?}");
        }
        let mut caller = Caller::asked_with(&keys, (NOW, 99));
        let right = caller.invites("secret");
        assert_eq!(check(&mut proofs, &right, NOW + 1), Proof::TooOften);
        let later = NOW + COOLING.as_secs();
        assert_eq!(check(&mut proofs, &right, later), proved());
    }

    #[test]
    fn each_offered_algorithm_will_do() {
        for at in 0..server::OFFERED.len() {
            let mut caller = Caller::asked(&[key(1)], NOW);
            caller.challenges = vec![caller.challenges.remove(at)];
            let request = caller.invites("secret");
            let mut proofs = Proofs::default();
            assert_eq!(check(&mut proofs, &request, NOW), proved(), "{at}");
        }
    }

    #[test]
    fn an_answer_serves_once_and_the_next_count_again() {
        let mut proofs = Proofs::default();
        let mut caller = Caller::asked(&[key(1)], NOW);
        let (first, second) = (caller.invites("secret"), caller.invites("secret"));
        assert_eq!(check(&mut proofs, &first, NOW), proved());
        assert_eq!(check(&mut proofs, &first, NOW), Proof::Stale);
        assert_eq!(check(&mut proofs, &second, NOW), proved());
        assert_eq!(check(&mut proofs, &first, NOW), Proof::Stale);
    }

    #[test]
    fn a_nonce_grows_old_and_tells_nothing_of_the_password_then() {
        let mut caller = Caller::asked(&[key(1)], NOW);
        let (request, guess) = (caller.invites("secret"), caller.invites("guess"));
        for (time, right, wrong) in [
            (NOW + FRESH + 1, Proof::Stale, Proof::Stale),
            (NOW - SKEW - 1, Proof::Stale, Proof::Stale),
            (NOW + FRESH, proved(), Proof::Wrong),
        ] {
            assert_eq!(check(&mut Proofs::default(), &request, time), right);
            assert_eq!(check(&mut Proofs::default(), &guess, time), wrong);
        }
    }

    #[test]
    fn a_nonce_is_for_one_address_and_of_a_key_that_is_known() {
        let mut caller = Caller::asked(&[key(1)], NOW);
        let (request, guess) = (caller.invites("secret"), caller.invites("guess"));
        let mut proofs = Proofs::default();
        let mut check = |keys, source: [u8; 4], request: &Request| {
            proofs.check(&config(keys), request, source.into(), NOW)
        };
        for request in [&request, &guess] {
            assert_eq!(check(vec![key(1)], [192, 0, 2, 8], request), Proof::Stale);
            assert_eq!(check(vec![key(2)], SOURCE, request), Proof::Stale);
        }
        assert_eq!(check(vec![key(2), key(1)], SOURCE, &request), proved());
    }

    #[test]
    fn a_nonce_that_is_made_up_is_none() {
        let good = nonce(&key(1), SOURCE.into(), NOW, 7);
        assert_eq!(made_at(&[key(1)], &good, SOURCE.into()), Some(NOW));
        let (head, tail) = good.split_at(good.len() - 2);
        for bad in [
            String::new(),
            "0".to_owned(),
            head.to_owned(),
            format!("{good}aa"),
            format!("{head}\u{e9}"),
            format!("+1{}", &good[2..]),
            good.to_ascii_uppercase(),
            format!("01{:08x}{}", NOW + 1, &good[10..]),
            good.replacen("00000007", "00000008", 1),
            format!("{head}{}", if tail == "aa" { "ea" } else { "aa" }),
        ] {
            assert_eq!(made_at(&[key(1)], &bad, SOURCE.into()), None, "{bad}");
        }
    }
}
