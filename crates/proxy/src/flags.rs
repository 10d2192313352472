//! Response flags: in two letters, what went wrong with a request.

use std::fmt;

macro_rules! flags {
    ($( $(#[$doc:meta])* $name:ident = $short:literal / $long:literal ),* $(,)?) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, missing_docs)]
        #[repr(u8)]
        #[derive(Clone, Copy)]
        enum Bit { $( $name, )* }

        impl Flags {
            $( $(#[$doc])* pub(crate) const $name: Self = Self(1 << Bit::$name as u8); )*
            const ALL: &'static [(Self, &'static str, &'static str)] = &[$( (Self::$name, $short, $long), )*];
        }
    };
}

/// A set of response flags. They are written in the order in which Envoy comes to set them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flags(u32);

flags! {
    /// Delayed by fault injection.
    DELAY_INJECTED = "DI" / "DelayInjected",
    /// Retries are used up.
    RETRIES_EXCEEDED = "URX" / "UpstreamRetryLimitExceeded",
    /// No healthy upstream host.
    NO_HEALTHY_UPSTREAM = "UH" / "NoHealthyUpstream",
    /// The upstream did not answer in time.
    UPSTREAM_TIMEOUT = "UT" / "UpstreamRequestTimeout",
    /// We reset the stream.
    LOCAL_RESET = "LR" / "LocalReset",
    /// The upstream reset the stream.
    UPSTREAM_RESET = "UR" / "UpstreamRemoteReset",
    /// The upstream could not be connected to.
    UPSTREAM_FAILURE = "UF" / "UpstreamConnectionFailure",
    /// The upstream closed the connection.
    UPSTREAM_TERMINATION = "UC" / "UpstreamConnectionTermination",
    /// A circuit breaker is open.
    UPSTREAM_OVERFLOW = "UO" / "UpstreamOverflow",
    /// No route, or no filter chain.
    NO_ROUTE = "NR" / "NoRouteFound",
    /// Aborted by fault injection.
    FAULT_INJECTED = "FI" / "FaultInjected",
    /// Rate limited.
    RATE_LIMITED = "RL" / "RateLimited",
    /// Denied by external authorization.
    UNAUTHORIZED = "UAEX" / "UnauthorizedExternalService",
    /// The client went away.
    DOWNSTREAM_TERMINATION = "DC" / "DownstreamConnectionTermination",
    /// Nothing moved for too long.
    STREAM_IDLE = "SI" / "StreamIdleTimeout",
    /// The client broke the protocol.
    DOWNSTREAM_PROTOCOL = "DPE" / "DownstreamProtocolError",
    /// The stream lasted too long.
    MAX_DURATION = "UMSDR" / "UpstreamMaxStreamDurationReached",
    /// The whole exchange took longer than allowed.
    DURATION_TIMEOUT = "DT" / "DurationTimeout",
    /// The upstream broke the protocol.
    UPSTREAM_PROTOCOL = "UPE" / "UpstreamProtocolError",
    /// The route names a cluster that does not exist.
    NO_CLUSTER = "NC" / "NoClusterFound",
    /// A name of a dynamic forward did not resolve.
    DNS_FAILURE = "DF" / "DnsResolutionFailed",
}

impl Flags {
    /// No flag.
    pub(crate) const NONE: Self = Self(0);

    /// Adds flags.
    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether all of `other` are set.
    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether none is set.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Writes the short names, joined by commas.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        self.join(out, |entry| entry.1);
    }

    /// Writes the long names, joined by commas.
    pub(crate) fn write_long(self, out: &mut Vec<u8>) {
        self.join(out, |entry| entry.2);
    }

    fn join(self, out: &mut Vec<u8>, name: impl Fn(&(Self, &'static str, &'static str)) -> &'static str) {
        let mut first = true;
        for entry in Self::ALL.iter().filter(|entry| self.has(entry.0)) {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.extend_from_slice(name(entry).as_bytes());
        }
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_in_the_order_in_which_envoy_meets_them() {
        let mut flags = Flags::RETRIES_EXCEEDED;
        flags.add(Flags::UPSTREAM_FAILURE);
        assert_eq!(format!("{flags:?}"), "URX,UF");
        assert_eq!(format!("{:?}", Flags::NONE), "");
    }
}
