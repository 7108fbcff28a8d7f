//! Datagrams that the kernel dropped, by its own count for each UDP socket.

use std::os::fd::AsRawFd;

/// By what number the kernel's tables call a socket.
pub fn inode(socket: &impl AsRawFd) -> Option<u64> {
    let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let target = std::fs::read_link(link).ok()?;
    let inode = target.to_str()?.strip_prefix("socket:[")?;
    inode.strip_suffix(']')?.parse().ok()
}

/// The inode of each socket, and how many datagrams were dropped there: no room, or a filter did not want them. The table of IPv6 is read
/// only by who goes on after that of IPv4.
pub fn all() -> impl Iterator<Item = (u64, u64)> {
    let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"].into_iter();
    tables.flat_map(|table| of(&std::fs::read_to_string(table).unwrap_or_default()))
}

/// The tenth and the last column of each line.
fn of(table: &str) -> Vec<(u64, u64)> {
    let drops = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let inode = columns.nth(9)?.parse().ok()?;
        Some((inode, columns.next_back()?.parse().ok()?))
    };
    table.lines().filter_map(drops).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_is_the_last_column_of_the_sockets_line() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n \
             27: 00000000:13C4 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 48213 2 0000000000000000 77\n \
             28: 00000000:13C5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 48214 2 0000000000000000 5\n";
        let drops_of = |inode| {
            let found = of(table).into_iter().find(|(of, _)| *of == inode);
            found.map(|(_, drops)| drops)
        };
        assert_eq!(drops_of(48_213), Some(77));
        assert_eq!(drops_of(4_821), None);
    }
}
