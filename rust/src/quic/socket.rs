//! One UDP socket: batches in (recvmmsg, GRO), batches out (GSO), and the kernel's reports of unreachable ports.

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSliceMut};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

/// One buffer takes what the kernel coalesces (GRO), which is never more than one IP packet of 64 KiB.
const BUFFER: usize = 65_536;
const BUFFERS: usize = 8;
/// How many buffers one `Socket::receive` can fill.
pub const ARENA: usize = BUFFERS;

/// The most that one GSO send may carry: the IP length field covers all segments and the headers.
pub const MAX_SEND: usize = 65_000;

pub struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    /// Sends that the kernel had no room for.
    blocked: VecDeque<Blocked>,
    /// Peers that the kernel called unreachable since the last look.
    unreachable: Vec<SocketAddr>,
    /// Where its packets go, if to one address alone; a socket of our own is connected there.
    connected_to: Option<SocketAddr>,
    /// What QUIC knows the peer by, where packets go by another address, that of a relay.
    known_as: Option<SocketAddr>,
}

struct Blocked {
    transmit: quinn_proto::Transmit,
    data: Vec<u8>,
}

/// Room for one batch of datagrams, shared by all sockets of an endpoint.
pub struct Arena {
    memory: Vec<u8>,
    meta: [RecvMeta; BUFFERS],
}

impl Default for Arena {
    fn default() -> Self {
        Self {
            memory: vec![0; BUFFER * BUFFERS],
            meta: [RecvMeta::default(); BUFFERS],
        }
    }
}

impl Arena {
    /// The datagrams of the last `Socket::receive`.
    pub fn datagrams(&self, count: usize) -> impl Iterator<Item = (&RecvMeta, &[u8])> {
        let buffers = self.memory.chunks_exact(BUFFER);
        self.meta[..count]
            .iter()
            .zip(buffers)
            .flat_map(|(meta, buffer)| {
                let stride = meta.stride.max(1);
                buffer[..meta.len].chunks(stride).map(move |d| (meta, d))
            })
    }
}

impl Socket {
    pub fn bind(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        Self::new(UdpSocket::bind(address)?, None, buffer)
    }

    /// A socket whose packets go to `to` and come from there, while QUIC speaks of `peer`: a new one, or the caller's,
    /// bound and perhaps connected.
    pub fn dial(
        given: Option<UdpSocket>,
        to: SocketAddr,
        peer: SocketAddr,
        buffer: usize,
    ) -> io::Result<Self> {
        let io = match given {
            Some(io) => {
                io.set_nonblocking(true)?;
                io
            }
            None => {
                let any: IpAddr = match to {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                let io = UdpSocket::bind((any, 0))?;
                io.connect(to)?;
                io
            }
        };
        let mut socket = Self::new(io, Some(to), buffer)?;
        socket.known_as = (to != peer).then_some(peer);
        Ok(socket)
    }

    /// Where packets go, if to one place alone.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.connected_to
    }

    fn new(io: UdpSocket, connected_to: Option<SocketAddr>, buffer: usize) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        // The kernel clamps these to what the administrator allows.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&io), buffer);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&io), buffer);
        // Without it a dead local peer is found by the idle timeout only.
        let _ = state.enable_transport_errors(UdpSockRef::from(&io));
        Ok(Self {
            io,
            state,
            blocked: VecDeque::new(),
            unreachable: Vec::new(),
            connected_to,
            known_as: None,
        })
    }

    pub fn fd(&self) -> RawFd {
        self.io.as_raw_fd()
    }

    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    pub fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// The receive buffer that the kernel granted, in payload bytes (it doubles the number for its own overhead).
    pub fn receive_buffer(&self) -> usize {
        let doubled = self.state.recv_buffer_size(UdpSockRef::from(&self.io));
        doubled.unwrap_or(425_984) / 2
    }

    /// Receives up to one arena of datagrams; fewer than `ARENA` of them means that the socket is empty.
    pub fn receive(&mut self, arena: &mut Arena) -> io::Result<usize> {
        let mut buffers = arena.memory.chunks_exact_mut(BUFFER).map(IoSliceMut::new);
        let mut buffers: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| buffers.next().unwrap_or(IoSliceMut::new(&mut [])));
        // Each pending ICMP error fails one call; more than a few in a row means there is nothing else.
        for _ in 0..4 {
            match self
                .state
                .recv(UdpSockRef::from(&self.io), &mut buffers, &mut arena.meta)
            {
                Ok(count) => {
                    if let (Some(peer), Some(relay)) = (self.known_as, self.connected_to) {
                        let from_relay = arena.meta[..count].iter_mut();
                        from_relay
                            .filter(|m| m.addr == relay)
                            .for_each(|m| m.addr = peer);
                    }
                    return Ok(count);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if is_icmp(&e) => self.read_errors(),
                Err(e) => return Err(e),
            }
        }
        // Readable without a datagram: something may be left in the error queue, and would wake the loop for ever.
        self.read_errors();
        Ok(0)
    }

    /// Sends one transmit; what the kernel has no room for is kept and sent later by `send_blocked`.
    pub fn send(&mut self, transmit: quinn_proto::Transmit, data: &[u8]) {
        if !self.blocked.is_empty() || !self.try_send(&transmit, data) {
            let data = data.to_vec();
            self.blocked.push_back(Blocked { transmit, data });
        }
    }

    /// Whether sends wait for room in the kernel.
    pub fn is_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    pub fn send_blocked(&mut self) {
        while let Some(next) = self.blocked.pop_front() {
            if !self.try_send(&next.transmit, &next.data) {
                self.blocked.push_front(next);
                return;
            }
        }
    }

    /// False if the kernel has no room. Any other failure is a lost packet, which QUIC repairs.
    fn try_send(&mut self, transmit: &quinn_proto::Transmit, data: &[u8]) -> bool {
        let packet = Transmit {
            destination: match (self.known_as, self.connected_to) {
                (Some(_), Some(to)) => to,
                _ => transmit.destination,
            },
            ecn: None,
            contents: data,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        for _ in 0..4 {
            match self.state.try_send(UdpSockRef::from(&self.io), &packet) {
                Ok(()) => return true,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                // The error of an earlier packet; this one was not sent.
                Err(e) if is_icmp(&e) => self.read_errors(),
                Err(_) => return true,
            }
        }
        true
    }

    /// The peers that the kernel called unreachable since the last call.
    pub fn take_unreachable(&mut self) -> Vec<SocketAddr> {
        if self.unreachable.is_empty() {
            return Vec::new();
        }
        mem::take(&mut self.unreachable)
    }

    /// Empties the error queue, which also ends the POLLERR that would wake the loop for ever.
    pub fn read_errors(&mut self) {
        for _ in 0..64 {
            match next_error(self.fd()) {
                Some(Report::Unreachable(peer)) => {
                    let peer = self.known_as.or(peer).or(self.connected_to);
                    self.unreachable.extend(peer);
                }
                Some(Report::Other) => {}
                None => break,
            }
        }
        self.unreachable.sort_unstable();
        self.unreachable.dedup();
    }
}

fn is_icmp(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN)
    )
}

#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
enum Report {
    Unreachable(Option<SocketAddr>),
    Other,
}

/// Other systems have no error queue: there a dead peer is found by the idle timeout.
#[cfg(not(target_os = "linux"))]
fn next_error(_fd: RawFd) -> Option<Report> {
    None
}

/// Reads one entry of the error queue. quinn-udp's own reader drops the destination that failed, and on a listening
/// socket with many peers the destination is what matters.
#[cfg(target_os = "linux")]
fn next_error(fd: RawFd) -> Option<Report> {
    let mut data = [0u8; 64];
    let mut control = [0u64; 64]; // u64 for the alignment of cmsghdr
                                  // SAFETY: plain C structs of integers and pointers, for which all zeroes is a valid value.
    let (mut name, mut header): (libc::sockaddr_storage, libc::msghdr) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    let mut vector = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = mem::size_of_val(&name) as _;
    header.msg_iov = &mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = mem::size_of_val(&control) as _;
    // SAFETY: every pointer in `header` points to a live local of the length given beside it.
    let read = unsafe { libc::recvmsg(fd, &mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if read < 0 {
        return None;
    }
    // SAFETY: the kernel filled `header`; CMSG_* stay inside msg_controllen; reads are unaligned-safe.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&header);
        while !message.is_null() {
            let kind = ((*message).cmsg_level, (*message).cmsg_type);
            let v4 = kind == (libc::SOL_IP, libc::IP_RECVERR);
            let v6 = kind == (libc::SOL_IPV6, libc::IPV6_RECVERR);
            if v4 || v6 {
                let error: libc::sock_extended_err =
                    std::ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                let icmp = matches!(
                    error.ee_origin,
                    libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6
                );
                if icmp && error.ee_errno == libc::ECONNREFUSED as u32 {
                    return Some(Report::Unreachable(socket_address(&name)));
                }
            }
            message = libc::CMSG_NXTHDR(&header, message);
        }
    }
    Some(Report::Other)
}

#[cfg(target_os = "linux")]
fn socket_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage holds a sockaddr_in.
            let v4: &libc::sockaddr_in = unsafe { &*(&raw const *storage).cast() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some((ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the storage holds a sockaddr_in6.
            let v6: &libc::sockaddr_in6 = unsafe { &*(&raw const *storage).cast() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some((ip, u16::from_be(v6.sin6_port)).into())
        }
        _ => None,
    }
}
