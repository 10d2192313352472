//! The addresses of a cluster in loopback isolation.
//!
//! Cluster N owns three /16 of 127/8: `127.(10+N)` for pods and the node, `127.(110+N)` for what applications
//! behind a sidecar bind, `127.(210+N)` for services. A pod and its application share the last two octets.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The number of a cluster on this machine, 0 to [`ClusterNumber::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterNumber(u8);

impl ClusterNumber {
    /// The last number whose service addresses still fit into 127/8.
    pub const MAX: u8 = 45;

    /// Cluster `number`, if it is one.
    pub fn new(number: u8) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    /// Every number, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=Self::MAX).map(Self)
    }

    /// The number itself.
    pub fn get(self) -> u8 {
        self.0
    }

    /// The node's address: hostIP of its pods, where NodePorts, the API server and DNS listen.
    pub fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(127, 10 + self.0, 0, 1)
    }

    /// The address of the `index`-th pod.
    pub fn pod(self, index: u16) -> Ipv4Addr {
        let [x, y] = index.to_be_bytes();
        Ipv4Addr::new(127, 10 + self.0, x, y)
    }

    /// The address that the application of a pod with a sidecar binds: the pod's own, a hundred networks on.
    pub fn app(self, pod: Ipv4Addr) -> Ipv4Addr {
        let [_, _, x, y] = pod.octets();
        Ipv4Addr::new(127, 110 + self.0, x, y)
    }

    /// The `index`-th service address.
    pub fn service(self, index: u16) -> Ipv4Addr {
        let [x, y] = index.to_be_bytes();
        Ipv4Addr::new(127, 210 + self.0, x, y)
    }

    /// An address of the outside: of what the mesh takes for the internet.
    pub fn outside(self, host: u8) -> Ipv4Addr {
        let [x, y] = (Pool::OUTSIDE + u16::from(host)).to_be_bytes();
        Ipv4Addr::new(127, 10 + self.0, x, y)
    }

    /// The range of the outside's addresses.
    pub fn outside_range(self) -> String {
        format!("{}/24", self.outside(0))
    }

    /// Addresses for load balancers, outside of what pods get.
    pub fn balancers(self) -> impl Iterator<Item = Ipv4Addr> {
        (Pool::LAST + 1..Pool::OUTSIDE).filter(|index| index % 256 != 0).map(move |index| self.pod(index))
    }

    /// The index of a pod address of this cluster.
    pub fn pod_index(self, address: Ipv4Addr) -> Option<u16> {
        index_in(10 + self.0, address)
    }

    /// The range of pod addresses, as a node's `podCIDR` has it.
    pub fn pod_range(self) -> String {
        format!("127.{}.0.0/16", 10 + self.0)
    }
}

impl fmt::Display for ClusterNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn index_in(second: u8, address: Ipv4Addr) -> Option<u16> {
    let [first, network, x, y] = address.octets();
    (first == 127 && network == second).then_some(u16::from_be_bytes([x, y]))
}

/// Parses an address written in a Kubernetes object; none for `None`, the empty string or IPv6.
pub(crate) fn parse(text: Option<&str>) -> Option<Ipv4Addr> {
    text.and_then(|text| Ipv4Addr::from_str(text).ok())
}

/// Indices of pods given out in turn, so that a freed address rests before somebody else gets it.
#[derive(Debug)]
pub(crate) struct Pool {
    taken: std::collections::BTreeSet<u16>,
    next: u16,
}

impl Pool {
    const FIRST: u16 = 10;
    /// `x.y` = 239.255: above are the load balancers.
    const LAST: u16 = 0xefff;
    /// `x.y` = 254.0: from here on is the outside.
    const OUTSIDE: u16 = 0xfe00;

    pub(crate) fn new(taken: impl IntoIterator<Item = u16>) -> Self {
        let taken: std::collections::BTreeSet<u16> = taken.into_iter().collect();
        let next = taken.last().map_or(Self::FIRST, |last| last.saturating_add(1)).max(Self::FIRST);
        Self { taken, next }
    }

    /// A free index; none when all are taken.
    pub(crate) fn take(&mut self) -> Option<u16> {
        for _ in Self::FIRST..=Self::LAST {
            if self.next > Self::LAST {
                self.next = Self::FIRST;
            }
            let index = self.next;
            self.next += 1;
            if self.taken.insert(index) {
                return Some(index);
            }
        }
        None
    }

    /// Takes this very index; false when somebody has it.
    pub(crate) fn claim(&mut self, index: u16) -> bool {
        self.taken.insert(index)
    }

    pub(crate) fn release(&mut self, index: u16) {
        self.taken.remove(&index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_and_its_application_share_the_last_octets() {
        let cluster = ClusterNumber::new(3).unwrap();
        let pod = cluster.pod(0x0205);
        assert_eq!(pod.to_string(), "127.13.2.5");
        assert_eq!(cluster.app(pod).to_string(), "127.113.2.5");
        assert_eq!(cluster.pod_index(pod), Some(0x0205));
        assert_eq!(cluster.node().to_string(), "127.13.0.1");
    }

    #[test]
    fn the_outside_is_apart_from_pods_and_balancers() {
        let cluster = ClusterNumber::new(3).unwrap();
        assert_eq!(cluster.outside(1).to_string(), "127.13.254.1");
        assert_eq!(cluster.outside_range(), "127.13.254.0/24");
        assert!(cluster.balancers().all(|address| address < cluster.outside(0)));
    }

    #[test]
    fn numbers_end_where_127_ends() {
        assert_eq!(ClusterNumber::new(45).unwrap().service(1).to_string(), "127.255.0.1");
        assert_eq!(ClusterNumber::new(46), None);
    }

    #[test]
    fn a_freed_index_rests_before_it_is_given_again() {
        let mut pool = Pool::new([10, 12]);
        assert_eq!(pool.take(), Some(13));
        pool.release(13);
        assert_eq!(pool.take(), Some(14));
        assert!(pool.claim(11));
        assert!(!pool.claim(12));
    }

    #[test]
    fn a_full_pool_says_so() {
        let mut pool = Pool::new(Pool::FIRST..=Pool::LAST);
        assert_eq!(pool.take(), None);
        pool.release(77);
        assert_eq!(pool.take(), Some(77));
    }
}
