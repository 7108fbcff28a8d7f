//! What the kernel alone costs: the packets and system calls of calls with agents, and no processing. Each packet of audio becomes a message
//! of the protocol's size, each message of the agent a packet, with the frame in it copied as it is.
//!
//! No SIP, no jitter buffer, no pacing, no reports. A socket for each call, as a gateway without shared ports has, or one for many.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};

use crate::agent::Connection;
use crate::protocol::{Event, Protocol, Side};

/// Bytes of an RTP header.
pub const HEADER: usize = 12;

struct Call {
    socket: UdpSocket,
    agent: Connection,
    caller: Option<SocketAddr>,
    /// The header of the last packet to the caller.
    header: [u8; HEADER],
    sent: u64,
}

/// What to carry.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub protocol: Protocol,
    /// Where the agent listens.
    pub agent: SocketAddr,
    /// The first call's audio; each next one's port is two higher.
    pub first: SocketAddr,
    pub calls: usize,
    /// Among which the calls are shared out.
    pub threads: usize,
}

/// Carries the calls for ever. `ready` is called once all agents have agreed.
pub fn serve(plan: Plan, ready: impl FnOnce()) -> io::Result<()> {
    let (sender, agreed) = std::sync::mpsc::channel();
    let threads: Vec<_> = (0..plan.threads)
        .map(|thread| {
            let sender = sender.clone();
            std::thread::spawn(move || carry(plan, thread, &sender))
        })
        .collect();
    drop(sender);
    let count = agreed.iter().take(plan.calls).count();
    if count == plan.calls {
        ready();
    }
    for thread in threads {
        thread
            .join()
            .map_err(|_| io::Error::other("a thread failed"))??;
    }
    Ok(())
}

fn carry(plan: Plan, thread: usize, agreed: &std::sync::mpsc::Sender<()>) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut calls = Vec::new();
    for call in (thread..plan.calls).step_by(plan.threads) {
        let port = plan.first.port() + 2 * call as u16;
        let mut socket = UdpSocket::bind(SocketAddr::new(plan.first.ip(), port))?;
        let mut stream = TcpStream::connect(plan.agent)?;
        let token = 2 * calls.len();
        poll.registry()
            .register(&mut socket, Token(token), Interest::READABLE)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut stream, Token(token + 1), both)?;
        let mut header = [0; HEADER];
        header[0] = 0x80;
        header[8..].copy_from_slice(&(call as u32 + 1).to_be_bytes());
        calls.push((
            Call {
                socket,
                agent: Connection::new(stream),
                caller: None,
                header,
                sent: 0,
            },
            false,
        ));
    }
    let (mut buffer, mut ulaw, mut out) = (vec![0; 16 << 10], Vec::new(), Vec::new());
    loop {
        poll.poll(&mut events, Some(Duration::from_secs(60)))?;
        for event in &events {
            let (call, asked) = &mut calls[event.token().0 / 2];
            if event.token().0.is_multiple_of(2) {
                call.carry_in(plan.protocol, &mut buffer, &mut out)?;
                continue;
            }
            if event.is_writable() && !*asked {
                *asked = true;
                call.agent
                    .write(&plan.protocol.hello(&plan.agent.to_string()))?;
                if plan.protocol == Protocol::AudioSocket {
                    let _ = agreed.send(());
                }
            }
            let open = call.agent.reader.is_open();
            if !call.agent.read(&mut buffer) {
                return Err(io::Error::other("the agent is gone"));
            }
            call.carry_out(plan.protocol, &mut ulaw, &mut out)?;
            if plan.protocol == Protocol::Twilio && !open && call.agent.reader.is_open() {
                let _ = agreed.send(());
            }
            call.agent.flush()?;
        }
    }
}

impl Call {
    fn carry_in(
        &mut self,
        protocol: Protocol,
        buffer: &mut [u8],
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        loop {
            match self.socket.recv_from(buffer) {
                Ok((length, from)) if length > HEADER => {
                    self.caller = Some(from);
                    self.sent += 1;
                    out.clear();
                    protocol.write(&buffer[HEADER..length], Side::Caller(self.sent), out);
                    self.agent.write(out)?;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn carry_out(
        &mut self,
        protocol: Protocol,
        ulaw: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        while let Some(event) = self.agent.reader.next(protocol, ulaw) {
            match event {
                Event::Audio => {
                    let Some(caller) = self.caller else { continue };
                    let next = |field: &[u8], step: u32| {
                        u32::from_be_bytes(field.try_into().unwrap_or_default()).wrapping_add(step)
                    };
                    let sequence =
                        u16::from_be_bytes([self.header[2], self.header[3]]).wrapping_add(1);
                    let timestamp = next(&self.header[4..8], 160);
                    self.header[2..4].copy_from_slice(&sequence.to_be_bytes());
                    self.header[4..8].copy_from_slice(&timestamp.to_be_bytes());
                    out.clear();
                    out.extend_from_slice(&self.header);
                    out.extend_from_slice(ulaw);
                    // A full buffer loses a packet, as the network might.
                    let _ = self.socket.send_to(out, caller);
                }
                Event::Reply(reply) => self.agent.write(&reply)?,
                Event::Closed => return Err(io::Error::other("the agent closed a call")),
            }
        }
        Ok(())
    }
}
