//! The host-wide lease on a cluster number: two clusters on one number would share ports silently.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::addresses::ClusterNumber;

/// A held cluster number. The kernel frees it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lease {
    number: ClusterNumber,
    _socket: UnixListener,
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The number that this cluster's stored objects are bound to belongs to another one now.
    #[error(
        "cluster number {number} (addresses 127.{}.0.0/16) is in use by another local cluster on this machine; \
         end that one (`lateen down --name NAME`), or give this one up with `lateen down --purge` and start again",
        10 + number.get()
    )]
    Taken {
        /// The number.
        number: ClusterNumber,
    },
    /// Every number is taken.
    #[error("all {} cluster numbers of this machine are in use: end a cluster with `lateen down --name NAME`", ClusterNumber::MAX + 1)]
    None,
    /// The kernel refused for another reason.
    #[error("cannot lease a cluster number (abstract socket @{name}): {source}")]
    Socket {
        /// The socket's name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Lease {
    /// Leases the number a cluster had before, or else the lowest free one, those of `others` last: clusters that do
    /// not run now, but have objects with addresses of theirs.
    ///
    /// # Errors
    /// [`LeaseError`], when the former number is somebody else's now or none is free.
    pub fn acquire(former: Option<ClusterNumber>, others: &[ClusterNumber]) -> Result<Self, LeaseError> {
        if let Some(number) = former {
            return Self::try_number(number)?.ok_or(LeaseError::Taken { number });
        }
        let (theirs, free): (Vec<_>, Vec<_>) =
            ClusterNumber::all().partition(|number| others.contains(number));
        for number in free.into_iter().chain(theirs) {
            if let Some(lease) = Self::try_number(number)? {
                return Ok(lease);
            }
        }
        Err(LeaseError::None)
    }

    /// The leased number.
    pub fn number(&self) -> ClusterNumber {
        self.number
    }

    fn try_number(number: ClusterNumber) -> Result<Option<Self>, LeaseError> {
        let name = format!("lateen/cluster/{number}");
        let bound =
            SocketAddr::from_abstract_name(&name).and_then(|address| UnixListener::bind_addr(&address));
        match bound {
            Ok(socket) => Ok(Some(Self { number, _socket: socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(source) => Err(LeaseError::Socket { name, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clusters_never_share_a_number() {
        let first = Lease::acquire(None, &[]).unwrap();
        let second = Lease::acquire(None, &[]).unwrap();
        assert_ne!(first.number(), second.number());
        let error = Lease::acquire(Some(first.number()), &[]).unwrap_err().to_string();
        assert!(error.contains("in use by another local cluster"), "{error}");
        let number = second.number();
        drop(second);
        assert_eq!(Lease::acquire(Some(number), &[]).unwrap().number(), number);
        assert_ne!(Lease::acquire(None, &[number]).unwrap().number(), number);
    }
}
