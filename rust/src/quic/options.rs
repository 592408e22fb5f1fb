//! Options of an endpoint with their defaults, and the transport settings that follow from them.

use super::congestion::{LocalWindow, Observed};
use super::gate;
use crate::budget::{ADDRESS_BURST, ADDRESS_PER_SECOND};
use quinn_proto::{congestion, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::time::Duration;

macro_rules! options {
    ($($(#[doc = $doc:literal])* $name:ident = $default:expr;)*) => {
        /// Every knob of an endpoint; all are non-negative integers, units stand last in the name.
        #[derive(Debug, Clone)]
        pub struct Options { $($(#[doc = $doc])* pub $name: u64,)* }

        impl Default for Options {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Options {
            /// Sets one option by its name; false if there is none of that name.
            #[must_use]
            pub fn set(&mut self, name: &str, value: u64) -> bool {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => return false,
                }
                true
            }

            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)*];
        }
    };
}

options! {
    /// A connection without any packet for this long is dead. 60 s: Erlang's own net_ticktime.
    idle_timeout_ms = 60_000;
    /// A PING after this long without a packet. A third of Erlang's tick interval at most.
    keep_alive_ms = 10_000;
    /// The same for peers on this host, where a killed process is to be noticed within a second.
    local_keep_alive_ms = 650;
    /// How long the kernel must say "port unreachable" before a peer on this host is dead. A guess: it
    /// leaves room for a peer that moves to a new socket, and keeps detection below a second.
    unreachable_ms = 250;
    /// Unread bytes accepted per stream. Erlang advertises 4 MiB and slides up to 8.
    stream_receive_window = 8 << 20;
    /// Unread bytes accepted per connection, all streams together.
    receive_window = 16 << 20;
    /// The same before the distribution starts; more than one frame of an Erlang peer (64 KiB).
    unauthenticated_window = 256 << 10;
    /// Bytes read from a peer before the distribution starts. A full authentication takes less than 1 KiB.
    unauthenticated_bytes = 64 << 10;
    /// Inbound connections that have not started the distribution; beyond half of it peers must prove their
    /// address (Retry), beyond it they are refused or take the place of another (gate.rs).
    max_unauthenticated = 256;
    /// TLS handshakes begun for dialers, of all together. Each takes 150 us of CPU, and some 2 ms in Python if the dialer
    /// goes on: half a core at the most.
    handshakes_per_second = 256;
    /// Packets that may begin a connection and are looked at, and answered if need be. Some 10 us each, so a quarter of
    /// a core at the most.
    first_packets_per_second = 25_000;
    /// Dialers that are told that they are refused; the others get no answer. A guess.
    refusals_per_second = 64;
    /// Handshakes that an address may have begun at once without success.
    address_burst = ADDRESS_BURST;
    /// Handshakes of an address that may fail for long.
    address_per_second = ADDRESS_PER_SECOND;
    /// Bytes of messages given to QUIC and not acknowledged, and the same for each user stream. Not above Erlang's stream window (4 MiB): so a stream is never
    /// blocked before its first frame was acknowledged, which Erlang's stack would not survive.
    send_window = 4 << 20;
    /// The same for all user streams of a connection together: a share of its own, or bulk would keep messages out.
    streams_send_window = 8 << 20;
    /// The same for a peer on this host, where nothing is gained by more than the loops take in a turn, and a message
    /// waits behind all of it. Measured, see docs/internals/data-plane.md.
    local_streams_send_window = 128 << 10;
    /// Bytes queued on a user stream at which its writers wait.
    stream_high_water = 1 << 20;
    /// Bytes queued at which they go on.
    stream_low_water = 256 << 10;
    /// User streams up to this number each widen the receive window of their connection by one of a stream: so many
    /// may lie unread without taking credit from the messages. A guess: Erlang lets 100 streams be opened, 17 of them
    /// for itself.
    roomy_streams = 64;
    /// User streams of a peer whose tag is not complete; more are refused. Upstream's number.
    max_preambles = 64;
    /// A tag has to be complete in this time. Upstream has no limit; this is its auth_handshake_timeout.
    preamble_timeout_ms = 10_000;
    /// How long the socket that a connection moved away from is still read, after the new path is proven: what was
    /// sent to the old address is on its way. A guess: several round trips round the world.
    linger_ms = 1_000;
    /// 1: tell peers not to move (RFC 9000's disable_active_migration); for tests.
    refuse_migration = 0;
    /// `queued` above which a connection counts as congested (then `Writable` follows).
    send_high_water = 1 << 20;
    /// `queued` at which a congested connection is writable again.
    send_low_water = 256 << 10;
    /// A peer that dialed us has to finish the TLS handshake in this time. Upstream's auth_handshake_timeout.
    handshake_timeout_ms = 10_000;
    /// Streams a peer may have open. Erlang opens 17 at once, and user streams come on top.
    max_bidi_streams = 256;
    /// One is used, for authentication.
    max_uni_streams = 4;
    /// Bytes of unfinished frames and fragmented messages per connection.
    max_unfinished = 256 << 20;
    /// Fragmented messages in progress per connection; Erlang has one per sending process.
    max_sequences = 4096;
    /// Messages per batch, so that the loop stays fair to others.
    batch_messages = 1000;
    /// Bytes of messages per batch, for the same reason.
    batch_bytes = 1 << 20;
    /// Asked of the kernel for sockets; it may give less (net.core.rmem_max).
    socket_buffer = 4 << 20;
    /// UDP payload for peers on this host: what loopback takes whole. Erlang's stack advertises 1452 and gets that.
    local_mtu = 64_000;
    /// Bytes in flight to a peer on this host, but at most a quarter of the socket's buffer: a loop that
    /// stalls takes that much per turn.
    local_window = 1 << 20;
    /// How often the watcher looks whether an idle event loop comes round; 0: no watcher.
    watcher_ms = 50;
}

impl Options {
    pub fn gate(&self) -> gate::Limits {
        gate::Limits {
            max_unauthenticated: self.max_unauthenticated,
            first_packets_per_second: self.first_packets_per_second,
            handshakes_per_second: self.handshakes_per_second,
            refusals_per_second: self.refusals_per_second,
            address_burst: self.address_burst,
            address_per_second: self.address_per_second,
        }
    }

    /// The transport settings for peers on this host (`local`) or elsewhere.
    pub fn transport(&self, local: bool, socket_buffer: usize) -> TransportConfig {
        let mut config = TransportConfig::default();
        let idle = self.idle_timeout_ms.max(1);
        let keep_alive = if local {
            self.local_keep_alive_ms.min(self.keep_alive_ms)
        } else {
            self.keep_alive_ms
        };
        config
            .max_concurrent_bidi_streams(varint(self.max_bidi_streams))
            .max_concurrent_uni_streams(varint(self.max_uni_streams))
            .stream_receive_window(varint(self.stream_receive_window))
            .receive_window(varint(self.unauthenticated_window))
            // quinn has one for all streams. Each share is kept below it by its own meter; the rest is slack.
            .send_window(self.send_window + self.streams_send_window + (1 << 20))
            .max_idle_timeout(Some(IdleTimeout::from(varint(idle))))
            .keep_alive_interval(match keep_alive {
                0 => None,
                ms => Some(Duration::from_millis(ms.min(idle / 3).max(1))),
            })
            // Erlang's stack loses a retransmitted frame that overlaps delivered data, so a spurious loss is worse
            // than a late retransmission: 3 packets and 9/8 RTT are too eager.
            .packet_threshold(32)
            .time_threshold(2.0)
            .datagram_receive_buffer_size(None);
        let mut mtu = MtuDiscoveryConfig::default();
        if local {
            let size = self.local_mtu.clamp(1200, 65_000) as u16;
            config.initial_mtu(size);
            mtu.upper_bound(size.max(1452));
            let window = self.local_window.min(socket_buffer as u64 / 4);
            config.congestion_controller_factory(Observed::factory(LocalWindow {
                max: window.max(4 * u64::from(size)),
            }));
        } else {
            let mut cubic = congestion::CubicConfig::default();
            cubic.initial_window(128 << 10); // Erlang's initial window
            config.congestion_controller_factory(Observed::factory(cubic));
        }
        config.mtu_discovery_config(Some(mtu));
        config
    }
}

pub fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}
