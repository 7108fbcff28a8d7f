//! What of the peer's datagrams the DTLS library gets to see, and in what form.
//!
//! Until there are keys, anybody who can send to the port can send records. The library keeps all handshake messages that come, joins their fragments one within the
//! other, begins anew with each one that it has read already, stops repeating its own flight once something has come, and answers what it cannot read with a fatal
//! alert. So each message is put together here first and given to it once, whole and in order; what cannot be read is dropped, as RFC 6347
//! section 4.1.2.7 asks for; and there is an end to all that is kept.

use std::collections::BTreeMap;

use super::records::{self, CHANGE_CIPHER_SPEC, Fragment, HANDSHAKE, Record};

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY_REQUEST: u8 = 3;
const CERTIFICATE: u8 = 11;
const SERVER_KEY_EXCHANGE: u8 = 12;
const CERTIFICATE_REQUEST: u8 = 13;
const SERVER_HELLO_DONE: u8 = 14;
const CERTIFICATE_VERIFY: u8 = 15;
const CLIENT_KEY_EXCHANGE: u8 = 16;

/// What servers and clients say in the clear (RFC 5246 section 7.4).
const OF_SERVER: [u8; 6] = [
    SERVER_HELLO,
    HELLO_VERIFY_REQUEST,
    CERTIFICATE,
    SERVER_KEY_EXCHANGE,
    CERTIFICATE_REQUEST,
    SERVER_HELLO_DONE,
];
const OF_CLIENT: [u8; 4] = [
    CLIENT_HELLO,
    CERTIFICATE,
    CERTIFICATE_VERIFY,
    CLIENT_KEY_EXCHANGE,
];

/// Bytes of the longest message: a chain of certificates, and of the others.
const LONGEST: usize = 16 << 10;
const LONG: usize = 4 << 10;
/// Messages in the clear that a side sends: none has more than seven.
const MESSAGES: u16 = 16;
/// Bytes of a list of certificates without any.
const EMPTY_LIST: usize = 3;
/// Pieces of a message that wait for those between them.
const PIECES: usize = 64;
/// Repetitions of the first hello, changes of the cipher, and records under the new one: a handshake has a few, and repeats them for 15 s.
const HELLOS: u32 = 32;
const CHANGES: u32 = 32;
const SEALED: u32 = 64;
/// Bytes of a sealed record of a handshake: a Finished has 40 beside its header, an alert 26 or 18; nonce and tag alone are 16.
const SEALED_BYTES: std::ops::RangeInclusive<usize> = 17..=128;

/// What a datagram brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Records for the library; empty if there is nothing.
    pub records: Vec<u8>,
    /// The client begins anew, and so has the library to, before it gets these.
    pub anew: bool,
    /// Why it is over.
    pub refusal: Option<String>,
}

/// A message that is not whole yet.
#[derive(Debug)]
struct Message {
    kind: u8,
    body: Vec<u8>,
    /// What of it is there, in order, nothing touching.
    have: Vec<(usize, usize)>,
}

impl Message {
    fn new(fragment: &Fragment<'_>) -> Self {
        Self {
            kind: fragment.kind,
            body: vec![0; fragment.whole],
            have: Vec::new(),
        }
    }

    fn is_of(&self, fragment: &Fragment<'_>) -> bool {
        self.kind == fragment.kind && self.body.len() == fragment.whole
    }

    fn add(&mut self, fragment: &Fragment<'_>) {
        let (mut begin, mut end) = (fragment.offset, fragment.offset + fragment.data.len());
        let Some(place) = self.body.get_mut(begin..end) else {
            return;
        };
        if self.have.len() >= PIECES {
            // Nobody cuts a message into so many: what is there is none.
            self.have.clear();
        }
        place.copy_from_slice(fragment.data);
        self.have.retain(|&(first, last)| {
            let touches = first <= end && begin <= last;
            if touches {
                (begin, end) = (begin.min(first), end.max(last));
            }
            !touches
        });
        self.have.push((begin, end));
    }

    fn is_whole(&self) -> bool {
        self.have == [(0, self.body.len())]
    }
}

/// The way in of one association.
#[derive(Debug)]
pub struct Inlet {
    /// We are the client.
    active: bool,
    /// The number of the message that is waited for.
    next: u16,
    pending: BTreeMap<u16, Message>,
    /// The client's first hello.
    hello: Option<Vec<u8>>,
    /// Nothing in the clear matters any more.
    over: bool,
    /// The number of the next record in the clear.
    record: u32,
    hellos: u32,
    changes: u32,
    sealed: u32,
}

impl Inlet {
    pub fn new(active: bool) -> Self {
        Self {
            active,
            next: 0,
            pending: BTreeMap::new(),
            hello: None,
            over: false,
            record: 0,
            hellos: HELLOS,
            changes: CHANGES,
            sealed: SEALED,
        }
    }

    /// The handshake is over: what repeats its end is sealed.
    pub fn close(&mut self) {
        self.over = true;
        self.pending.clear();
    }

    /// Takes a datagram.
    pub fn take(&mut self, datagram: &[u8]) -> Brought {
        let mut brought = Brought::default();
        for record in records::of(datagram) {
            match record {
                Record::Sealed(bytes) => {
                    let length = bytes.len().saturating_sub(records::HEADER);
                    if SEALED_BYTES.contains(&length) && spend(&mut self.sealed) {
                        brought.records.extend_from_slice(bytes);
                    }
                }
                _ if self.over => {}
                Record::ChangeCipherSpec => {
                    if spend(&mut self.changes) {
                        self.write(CHANGE_CIPHER_SPEC, &[&[1]], &mut brought.records);
                    }
                }
                Record::FatalAlert(description) => {
                    let refusal =
                        format!("the peer refused the DTLS handshake (alert {description})");
                    brought.refusal.get_or_insert(refusal);
                }
                Record::Handshake(body) => {
                    for fragment in records::fragments(body) {
                        self.add(&fragment);
                        self.deliver(&mut brought);
                    }
                }
            }
        }
        brought
    }

    fn add(&mut self, fragment: &Fragment<'_>) {
        let kinds: &[u8] = if self.active { &OF_SERVER } else { &OF_CLIENT };
        let longest = if fragment.kind == CERTIFICATE {
            LONGEST
        } else {
            LONG
        };
        let repeats = fragment.number == 0 && self.awaits_second_hello();
        if !kinds.contains(&fragment.kind)
            || fragment.whole > longest
            || fragment.number >= MESSAGES
            || (fragment.number < self.next && !repeats)
        {
            return;
        }
        let message = self
            .pending
            .entry(fragment.number)
            .or_insert_with(|| Message::new(fragment));
        // The peer's own comes again, so the last one counts.
        if !message.is_of(fragment) {
            *message = Message::new(fragment);
        }
        message.add(fragment);
    }

    /// A client says its first hello again if it missed what we said to that.
    fn awaits_second_hello(&self) -> bool {
        self.next == 1 && self.hello.is_some()
    }

    /// Gives away what is whole: hellos of the client and the answer to the first at once, the rest flight by flight. The library repeats its own flight
    /// until it has got something, but a part of what it waits for is nothing to go on with.
    fn deliver(&mut self, brought: &mut Brought) {
        self.repeat_hello(brought);
        while let Some(last) = self.flight(brought) {
            while self.next <= last {
                let Some(message) = self.pending.remove(&self.next) else {
                    return;
                };
                self.write_message(self.next, &message, &mut brought.records);
                self.next += 1;
            }
        }
    }

    /// The number of the last message of what can be given away.
    fn flight(&mut self, brought: &mut Brought) -> Option<u16> {
        let first = self.pending.get(&self.next)?;
        let last = match first.kind {
            HELLO_VERIFY_REQUEST => first.kind,
            SERVER_HELLO => SERVER_HELLO_DONE,
            CLIENT_HELLO if first.is_whole() => {
                let body = first.body.clone();
                if let Err(refusal) = self.check_hello(body) {
                    brought.refusal.get_or_insert(refusal.to_owned());
                    return None;
                }
                return Some(self.next);
            }
            CERTIFICATE if !self.active && first.body.len() > EMPTY_LIST => CERTIFICATE_VERIFY,
            CERTIFICATE | CLIENT_KEY_EXCHANGE if !self.active && first.is_whole() => {
                let refusal = "the peer has no certificate for the DTLS handshake";
                brought.refusal.get_or_insert(refusal.to_owned());
                return None;
            }
            _ => return None,
        };
        for number in self.next..MESSAGES {
            let message = self.pending.get(&number)?;
            if !message.is_whole() {
                return None;
            }
            if message.kind == last {
                return Some(number);
            }
        }
        None
    }

    /// A client that missed what was said to its first hello says it again. One that says another has begun anew: nothing was agreed on yet.
    fn repeat_hello(&mut self, brought: &mut Brought) {
        let again = self.pending.get(&0).is_some_and(Message::is_whole);
        if !again || !self.awaits_second_hello() || !spend(&mut self.hellos) {
            return;
        }
        let Some(message) = self.pending.remove(&0) else {
            return;
        };
        if self.hello.as_ref() == Some(&message.body) {
            return self.write_message(0, &message, &mut brought.records);
        }
        (self.next, self.hello) = (0, None);
        self.pending = BTreeMap::from([(0, message)]);
        brought.records.clear();
        brought.anew = true;
    }

    /// The library takes what is agreed on from the first hello, and what is signed has the second: they have to be alike (RFC 6347 section 4.2.1).
    fn check_hello(&mut self, body: Vec<u8>) -> Result<(), &'static str> {
        let Some(hello) = Hello::of(&body) else {
            return Err("the peer's ClientHello cannot be read");
        };
        if !hello.session.is_empty() {
            return Err("the peer wants to resume a DTLS session, and there is none");
        }
        match &self.hello {
            None => self.hello = Some(body),
            Some(first) => {
                let first = Hello::of(first);
                let same = |first: Hello<'_>| (first.head, first.tail) == (hello.head, hello.tail);
                if !first.is_some_and(same) {
                    return Err("the peer's second ClientHello is not like its first");
                }
            }
        }
        Ok(())
    }

    fn write_message(&mut self, number: u16, message: &Message, out: &mut Vec<u8>) {
        let header = records::message_header(message.kind, number, message.body.len());
        self.write(HANDSHAKE, &[&header, &message.body], out);
    }

    /// A record in the clear.
    fn write(&mut self, kind: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        out.extend_from_slice(&records::header(kind, self.record, length));
        self.record += 1;
        for part in parts {
            out.extend_from_slice(part);
        }
    }
}

/// Whether there is still one of these.
fn spend(left: &mut u32) -> bool {
    let more = left.checked_sub(1);
    *left = more.unwrap_or(0);
    more.is_some()
}

/// A `ClientHello` without its cookie (RFC 6347 section 4.2.1).
#[derive(Debug, PartialEq, Eq)]
struct Hello<'a> {
    /// Version and random.
    head: &'a [u8],
    session: &'a [u8],
    /// Cipher suites, compression, extensions.
    tail: &'a [u8],
}

impl<'a> Hello<'a> {
    fn of(body: &'a [u8]) -> Option<Self> {
        let (head, rest) = body.split_at_checked(2 + 32)?;
        let (session, rest) = counted(rest)?;
        let (_cookie, tail) = counted(rest)?;
        Some(Self {
            head,
            session,
            tail,
        })
    }
}

/// Bytes behind a byte that says how many, and what follows.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&count, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(count))
}

#[cfg(test)]
mod tests;
