//! Audio of a test's own phone: packets out every 20 ms, what comes back kept in order.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringwire_media::compare::{self, Comparison};
use ringwire_media::g711;

const FRAME: Duration = Duration::from_millis(20);

/// Each exchange is a stream of its own, as with phones that start anew after hold.
static NEXT_SSRC: AtomicU32 = AtomicU32::new(0x1234_5678);

/// From here on what came back is what was said: other words than those that were said have 0.1, seldom 0.3. Beside other work on a small
/// machine frames come late and are left out. How good the sound is, is judged where nothing else runs.
pub const IS_ECHO: f64 = 0.6;

/// A packet that came.
pub struct Packet {
    /// When, since the start.
    pub at: Duration,
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Time stamp.
    pub timestamp: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

/// Sends these samples (8 kHz) as G.711 of `payload_type` 0 or 8 for `length`, silence behind them, and gives back what came meanwhile.
/// Without samples nothing is sent.
pub fn exchange(
    socket: &UdpSocket,
    remote: SocketAddr,
    payload_type: u8,
    samples: &[i16],
    length: Duration,
) -> Vec<Packet> {
    let encode = if payload_type == 8 {
        g711::encode_alaw
    } else {
        g711::encode_ulaw
    };
    let ssrc = NEXT_SSRC.fetch_add(1, Ordering::Relaxed);
    let start = Instant::now();
    let mut received = Vec::new();
    let mut frame = 0u32;
    let mut buffer = [0; 2048];
    while start.elapsed() < length {
        if !samples.is_empty() && start.elapsed() >= FRAME * frame {
            let mut packet = vec![0x80, payload_type];
            packet.extend((1000u16.wrapping_add(frame as u16)).to_be_bytes());
            packet.extend((frame * 160).to_be_bytes());
            packet.extend(ssrc.to_be_bytes());
            let at = frame as usize * 160;
            packet.extend((at..at + 160).map(|at| encode(samples.get(at).copied().unwrap_or(0))));
            let _ = socket.send_to(&packet, remote);
            frame += 1;
        }
        socket
            .set_read_timeout(Some(Duration::from_millis(2)))
            .unwrap();
        if let Ok((length, _)) = socket.recv_from(&mut buffer)
            && length >= 12
        {
            let bytes = &buffer[..length];
            received.push(Packet {
                at: start.elapsed(),
                payload_type: bytes[1] & 0x7f,
                sequence: u16::from_be_bytes([bytes[2], bytes[3]]),
                timestamp: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
                payload: bytes[12..].to_vec(),
            });
        }
    }
    received
}

/// Throws away what has come so far.
pub fn drain(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    while socket.recv_from(&mut [0; 2048]).is_ok() {}
    socket.set_nonblocking(false).unwrap();
}

/// The samples of packets of G.711, one behind the other.
pub fn decode(packets: &[Packet]) -> Vec<i16> {
    let voice = packets
        .iter()
        .filter(|packet| matches!(packet.payload_type, 0 | 8));
    voice
        .flat_map(|packet| {
            let decode = if packet.payload_type == 8 {
                g711::decode_alaw
            } else {
                g711::decode_ulaw
            };
            packet.payload.iter().map(move |code| decode(*code))
        })
        .collect()
}

/// How alike they are; panics if nothing can be compared.
#[track_caller]
pub fn compare(sent: &[i16], heard: &[i16]) -> Comparison {
    compare::compare(sent, heard, 2000).expect("what was heard is silence or too short")
}

/// The same sound at another sample rate.
pub fn resample(samples: &[i16], from: u32, to: u32) -> Vec<i16> {
    if from == to {
        return samples.to_vec();
    }
    let mut resampler = ringwire_media::resample::Resampler::new(from, to).unwrap();
    let mut out = vec![0; samples.len() * to as usize / from as usize + 1];
    let made = resampler.process(samples, &mut out);
    out.truncate(made);
    out
}

/// The samples of a WAV file at 8 kHz.
pub fn read_wav(path: &std::path::Path) -> Vec<i16> {
    ringwire_media::wav::read(&std::fs::read(path).unwrap()).unwrap()
}
