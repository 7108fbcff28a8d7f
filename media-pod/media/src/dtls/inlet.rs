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
/// Messages ahead of the one that is waited for: no flight has more.
const AHEAD: u16 = 8;
/// Pieces of a message that wait for those between them.
const PIECES: usize = 64;
/// Repetitions of the first hello, changes of the cipher, and records under the new one: a handshake has a few, and repeats them for 15 s.
const HELLOS: u32 = 32;
const CHANGES: u32 = 32;
const SEALED: u32 = 64;
/// Bytes of a sealed record of a handshake: a Finished has 40 beside its header, an alert 26.
const SEALED_BYTES: usize = 128;

/// What a datagram brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Records for the library; empty if there is nothing.
    pub records: Vec<u8>,
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
            return;
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
            record: 0,
            hellos: HELLOS,
            changes: CHANGES,
            sealed: SEALED,
        }
    }

    /// Takes a datagram.
    pub fn take(&mut self, datagram: &[u8]) -> Brought {
        let mut brought = Brought::default();
        for record in records::of(datagram) {
            match record {
                Record::Sealed(bytes) => {
                    if bytes.len() <= records::HEADER + SEALED_BYTES && spend(&mut self.sealed) {
                        brought.records.extend_from_slice(bytes);
                    }
                }
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
        let ahead = fragment.number.checked_sub(self.next);
        if !kinds.contains(&fragment.kind)
            || fragment.whole > longest
            || (ahead.is_none_or(|ahead| ahead >= AHEAD) && !repeats)
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

    /// Gives away what has its turn.
    fn deliver(&mut self, brought: &mut Brought) {
        if self.awaits_second_hello()
            && let Some(again) = self.pending.remove(&0)
        {
            if !again.is_whole() {
                self.pending.insert(0, again);
            } else if self.hello.as_ref() == Some(&again.body) && spend(&mut self.hellos) {
                self.write_message(0, &again, &mut brought.records);
            }
        }
        while let Some(message) = self.pending.remove(&self.next) {
            if !message.is_whole() {
                self.pending.insert(self.next, message);
                return;
            }
            if message.kind == CLIENT_HELLO
                && let Err(refusal) = self.check_hello(&message.body)
            {
                brought.refusal.get_or_insert(refusal.to_owned());
                return;
            }
            self.write_message(self.next, &message, &mut brought.records);
            let Some(next) = self.next.checked_add(1) else {
                return;
            };
            self.next = next;
        }
    }

    /// The library takes what is agreed on from the first hello, and what is signed has the second: they have to be alike (RFC 6347 section 4.2.1).
    fn check_hello(&mut self, body: &[u8]) -> Result<(), &'static str> {
        let Some(hello) = Hello::of(body) else {
            return Err("the peer's ClientHello cannot be read");
        };
        if !hello.session.is_empty() {
            return Err("the peer wants to resume a DTLS session, and there is none");
        }
        match &self.hello {
            None => self.hello = Some(body.to_vec()),
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
