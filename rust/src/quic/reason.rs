//! Why a connection ended, in words.

use quinn_proto::ConnectionError;

/// Why a connection ended; `kind` is one of the words of `CloseReason.kind` in net/connection.py.
#[derive(Debug, Clone)]
pub struct CloseReason {
    pub kind: &'static str,
    pub code: u64,
    pub text: String,
}

impl CloseReason {
    pub fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            kind,
            code: 0,
            text: text.into(),
        }
    }
}

/// Says what ended a connection in the words of net/connection.py.
pub fn close_reason(error: ConnectionError) -> CloseReason {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseReason {
            kind: "application",
            code: close.error_code.into(),
            text: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        ConnectionError::ConnectionClosed(close) => CloseReason {
            kind: "transport",
            code: close.error_code.into(),
            text: transport_text("the peer closed", close.error_code.into(), &close.reason),
        },
        ConnectionError::TransportError(error) => CloseReason {
            kind: "transport",
            code: error.code.into(),
            text: transport_text("closed", error.code.into(), error.reason.as_bytes()),
        },
        ConnectionError::VersionMismatch => {
            CloseReason::new("transport", "the peer speaks no common QUIC version")
        }
        ConnectionError::Reset => {
            CloseReason::new("reset", "the peer restarted and lost the connection")
        }
        ConnectionError::TimedOut => {
            CloseReason::new("timeout", "no packet within the idle timeout")
        }
        ConnectionError::LocallyClosed => CloseReason::new("local", ""),
        ConnectionError::CidsExhausted => CloseReason::new("transport", "out of connection ids"),
    }
}

fn transport_text(who: &str, code: u64, reason: &[u8]) -> String {
    let reason = String::from_utf8_lossy(reason);
    let what = match code {
        0x02 => "connection refused: too many handshakes are under way there, or too many from our address have failed"
            .to_owned(),
        0x178 => "no common ALPN; a distribution node offers erlang-dist".to_owned(),
        0x100..=0x1ff => format!("TLS alert {}", code & 0xff),
        _ => format!("QUIC error {code:#x}"),
    };
    match reason.is_empty() {
        true => format!("{who}: {what}"),
        false => format!("{who}: {what} ({reason})"),
    }
}
