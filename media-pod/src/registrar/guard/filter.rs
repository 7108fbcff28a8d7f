//! A program for the kernel's packet filter (classic BPF) that drops what comes from banned sources before it reaches the socket's
//! buffer, where it would push out what others send.
//!
//! The program only reads the IP header. IPv4 addresses are found by halving, so that a packet costs a dozen steps, not one for each
//! ban; IPv6 networks one after the other.

use std::net::Ipv4Addr;

use super::Banned;

/// One instruction, as `struct sock_filter` of `<linux/filter.h>` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip if a comparison holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// So many IPv4 addresses fit into a program of 4,096 instructions, which the kernel takes at most (`BPF_MAXINSNS`); the others are
/// dropped by the guard itself.
pub const MAX_V4: usize = 2_048;

/// So many IPv6 networks.
const MAX_V6: usize = 128;

/// Addresses that are compared one after the other at the end of the halving.
const LEAF: usize = 8;

const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets from here on are relative to the IP header (`SKF_NET_OFF`).
const IP_HEADER: u32 = 0xfff0_0000;

const DROP: Instruction = instruction(RETURN, 0, 0, 0);
const ACCEPT: Instruction = instruction(RETURN, 0, 0, u32::MAX);

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// The program that drops these sources, but no more than so many IPv4 addresses; `None`: there are none.
pub fn program(banned: &Banned, room: usize) -> Option<Vec<Instruction>> {
    let v4: Vec<u32> = banned
        .v4
        .iter()
        .take(room.min(MAX_V4))
        .copied()
        .map(Ipv4Addr::to_bits)
        .collect();
    let v6 = &banned.v6[..banned.v6.len().min(MAX_V6)];
    if v4.is_empty() && v6.is_empty() {
        return None;
    }
    let mut v4_part = vec![instruction(LOAD_WORD, 0, 0, IP_HEADER + 12)];
    halve(&v4, &mut v4_part);
    let mut program = vec![
        instruction(LOAD_BYTE, 0, 0, IP_HEADER),
        instruction(AND, 0, 0, 0xf0),
        instruction(JUMP_EQUAL, 0, 1, 0x60),
        instruction(JUMP, 0, 0, v4_part.len() as u32),
    ];
    program.extend(v4_part);
    for network in v6 {
        let (high, low) = ((network >> 32) as u32, *network as u32);
        program.extend([
            instruction(LOAD_WORD, 0, 0, IP_HEADER + 12),
            instruction(JUMP_EQUAL, 0, 3, low),
            instruction(LOAD_WORD, 0, 0, IP_HEADER + 8),
            instruction(JUMP_EQUAL, 0, 1, high),
            DROP,
        ]);
    }
    program.push(ACCEPT);
    Some(program)
}

/// Compares the loaded word with sorted addresses.
fn halve(addresses: &[u32], out: &mut Vec<Instruction>) {
    if addresses.len() <= LEAF {
        for (at, address) in addresses.iter().enumerate() {
            // Over the comparisons that are left and the return between.
            let to_drop = (addresses.len() - at) as u8;
            out.push(instruction(JUMP_EQUAL, to_drop, 0, *address));
        }
        out.push(ACCEPT);
        out.push(DROP);
        return;
    }
    let (lower, upper) = addresses.split_at(addresses.len() / 2);
    let mut first = Vec::new();
    halve(lower, &mut first);
    // Jumps of comparisons are short, so a long one follows.
    out.push(instruction(JUMP_AT_LEAST, 0, 1, upper[0]));
    out.push(instruction(JUMP, 0, 0, first.len() as u32));
    out.extend(first);
    halve(upper, out);
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const MAX_INSTRUCTIONS: usize = 4_096;

    /// What the kernel would do with a packet that begins with this IP header.
    fn accepts(program: &[Instruction], header: &[u8]) -> bool {
        let (mut at, mut word) = (0, 0u32);
        let byte = |offset: u32| u32::from(header[(offset - IP_HEADER) as usize]);
        for _ in 0..MAX_INSTRUCTIONS {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { jt } else { jf });
            match code {
                LOAD_BYTE => word = byte(k),
                LOAD_WORD => word = (0..4).fold(0, |word, step| word << 8 | byte(k + step)),
                AND => word &= k,
                JUMP => at += k as usize,
                JUMP_EQUAL => at += jump(word == k),
                JUMP_AT_LEAST => at += jump(word >= k),
                RETURN => return k > 0,
                other => panic!("code {other:#x}"),
            }
        }
        panic!("no end");
    }

    fn header(source: IpAddr) -> Vec<u8> {
        match source {
            IpAddr::V4(address) => {
                let mut header = vec![0; 20];
                header[0] = 0x45;
                header[12..16].copy_from_slice(&address.octets());
                header
            }
            IpAddr::V6(address) => {
                let mut header = vec![0; 40];
                header[0] = 0x6a;
                header[8..24].copy_from_slice(&address.octets());
                header
            }
        }
    }

    #[test]
    fn drops_the_banned_and_nobody_else_however_many_there_are() {
        for count in [1usize, 2, 8, 9, 17, 100, 1_000, MAX_V4] {
            let mut v4: Vec<Ipv4Addr> = (0..count as u32)
                .map(|at| Ipv4Addr::from_bits(at.wrapping_mul(2_654_435_761)))
                .collect();
            v4.sort_unstable();
            let banned = Banned { v4, v6: Vec::new() };
            let program = program(&banned, MAX_V4).unwrap();
            assert!(program.len() <= MAX_INSTRUCTIONS, "{count}");
            for address in &banned.v4 {
                assert!(!accepts(&program, &header((*address).into())), "{address}");
                for next in [
                    address.to_bits().wrapping_add(1),
                    address.to_bits().wrapping_sub(1),
                ] {
                    let next = Ipv4Addr::from_bits(next);
                    let is_banned = banned.v4.contains(&next);
                    assert_eq!(accepts(&program, &header(next.into())), !is_banned);
                }
            }
        }
    }

    #[test]
    fn networks_of_ipv6_are_dropped_as_a_whole() {
        let banned = Banned {
            v4: vec![Ipv4Addr::new(192, 0, 2, 1)],
            v6: vec![0x2001_0db8_0000_0001, 0x2001_0db8_0001_0001],
        };
        let program = program(&banned, MAX_V4).unwrap();
        for (source, passes) in [
            ("2001:db8:0:1::5", false),
            ("2001:db8:0:1:ffff::", false),
            ("2001:db8:1:1::1", false),
            ("2001:db8:0:2::1", true),
            ("2001:db9:0:1::1", true),
            ("192.0.2.1", false),
            ("192.0.2.2", true),
        ] {
            let source: IpAddr = source.parse().unwrap();
            assert_eq!(accepts(&program, &header(source)), passes, "{source}");
        }
    }

    #[test]
    fn more_bans_than_fit_make_a_program_that_fits() {
        let banned = Banned {
            v4: (0..100_000).map(Ipv4Addr::from_bits).collect(),
            v6: (0..100_000).collect(),
        };
        let whole = program(&banned, usize::MAX).unwrap();
        assert!(whole.len() <= MAX_INSTRUCTIONS);
        assert!(program(&banned, 16).unwrap().len() < whole.len() / 2);
        assert_eq!(program(&Banned::default(), MAX_V4), None);
    }
}
