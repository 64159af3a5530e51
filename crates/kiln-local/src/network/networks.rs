//! The network instances of a root: made, found and destroyed.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use kiln_netns::Namespace;

use super::error::{About, Error};
use super::measure::{self, ObservedNetwork};
use super::name::{BRIDGE, mac};
use super::netlink::{Batch, Protocol, Refused, Socket};
use super::nft::Transaction;
use super::rtnl::address::Scope;
use super::rtnl::{address, link, route};
use super::{NetworkSpec, egress, pin, rules, sysctl};

/// The longest id and label, in bytes: together with a root's id they label the bridge.
const MAX_ID_BYTES: usize = 80;
const MAX_LABEL_BYTES: usize = 150;

/// The network instances of one root.
#[derive(Debug, Clone)]
pub struct Networks {
    directory: PathBuf,
    root: String,
    host: Namespace,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkInfo {
    /// Where the namespace is pinned.
    pub path: PathBuf,
    /// The first address: the resolver's, and the instances' default route.
    pub gateway: Ipv4Addr,
    /// Where the stable addresses are.
    pub stable: Ipv4Net,
    /// Whether the host's `net.ipv4.ip_forward` was turned on for it. It is turned off again with
    /// the last network that has egress.
    pub turned_forwarding_on: bool,
}

impl Networks {
    /// The networks of the root with the id `root`, pinned below `directory` (`ROOT/run/net`);
    /// their egress goes through the calling thread's namespace.
    pub fn new(directory: impl Into<PathBuf>, root: impl Into<String>) -> Result<Self, Error> {
        let root = root.into();
        let host = Namespace::current().about(&root)?;
        Ok(Self::with_host(directory, root, host))
    }

    /// The same with another namespace as the host's.
    pub fn with_host(
        directory: impl Into<PathBuf>,
        root: impl Into<String>,
        host: Namespace,
    ) -> Self {
        Self { directory: directory.into(), root: root.into(), host }
    }

    /// Where a network instance is pinned.
    pub fn path(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }

    /// Makes a network instance. On failure nothing of it is left.
    pub fn create(&self, spec: &NetworkSpec) -> Result<NetworkInfo, Error> {
        check(spec)?;
        let path = self.path(&spec.id);
        if !spec.egress.is_empty() {
            egress::check_overlap(&self.host, spec)?;
        }
        match self.build(spec, &path) {
            Ok(turned_forwarding_on) => Ok(NetworkInfo {
                path,
                gateway: spec.gateway(),
                stable: spec.stable(),
                turned_forwarding_on,
            }),
            // What exists is not ours to be undone.
            Err(error @ Error::Exists { .. }) => Err(error),
            Err(error) => {
                // Nothing to be done about a second failure; the first one is what is reported.
                let _ = self.destroy(&spec.id);
                Err(error)
            }
        }
    }

    fn build(&self, spec: &NetworkSpec, path: &Path) -> Result<bool, Error> {
        let namespace = Namespace::create().about(&spec.id)?;
        // Pinned first: what a crash leaves is found by its file.
        pin::pin(&namespace, &spec.id, path)?;
        let (mut route, mut filter) = namespace
            .enter(|| {
                sysctl::write_all(&spec.id, sysctl::network(!spec.egress.is_empty()))?;
                let route = Socket::open(Protocol::Route).about(&spec.id)?;
                Ok((route, Socket::open(Protocol::Netfilter).about(&spec.id)?))
            })
            .about(&spec.id)??;
        let tables = rules::network_tables(spec.cidr, &spec.egress);
        let rules = tables.iter().fold(Transaction::new(), Transaction::add_table);
        rules.commit(&mut filter).about(&spec.id)?;
        build_bridge(&mut route, spec).about(&spec.id)?;
        let turned_forwarding_on =
            !spec.egress.is_empty() && egress::open(&self.host, &namespace, &self.root, spec)?;
        // Labelled last: a network without its label is being made, or half made.
        let mut batch = Batch::default();
        let alias = format!("{} {} {}", self.root, spec.id, spec.label);
        link::set_alias(&mut batch, BRIDGE, &alias);
        route.execute(&batch).about(&spec.id)?;
        Ok(turned_forwarding_on)
    }

    /// Destroys a network instance and what belongs to it on the host, also when it is only half
    /// made. To do so twice is no error. The namespace itself goes when the last process in it
    /// and the last handle or socket of it are gone.
    pub fn destroy(&self, id: &str) -> Result<(), Error> {
        egress::close(&self.host, &self.root, id)?;
        pin::unpin(&self.path(id))
    }

    /// Measures one network instance; none where nothing is pinned for it.
    pub(crate) fn observe_one(&self, id: &str) -> Result<Option<ObservedNetwork>, Error> {
        measure::measure(&self.host, &self.root, self.path(id))
    }

    /// Measures all network instances, from the kernel alone, in the order of their ids.
    pub fn observe(&self) -> Result<Vec<ObservedNetwork>, Error> {
        pin::pinned(&self.directory)?
            .into_iter()
            .filter_map(|path| measure::measure(&self.host, &self.root, path).transpose())
            .collect()
    }
}

fn build_bridge(socket: &mut Socket, spec: &NetworkSpec) -> Result<(), Refused> {
    let mut batch = Batch::default();
    link::set_up(&mut batch, link::LOOPBACK);
    link::add_bridge(&mut batch, BRIDGE, mac(spec.gateway()));
    socket.execute(&batch)?;
    let index = socket.interface(BRIDGE).unwrap_or_default();
    let mut batch = Batch::default();
    let prefix = spec.cidr.prefix_len();
    address::add(&mut batch, index, spec.gateway(), prefix, Scope::Global);
    route::add_local(&mut batch, index, spec.stable());
    socket.execute(&batch)
}

fn check(spec: &NetworkSpec) -> Result<(), Error> {
    let wrong = |reason: String| Err(Error::Spec { network: spec.id.clone(), reason });
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if spec.id.is_empty() || spec.id.len() > MAX_ID_BYTES || !spec.id.bytes().all(plain) {
        return wrong(format!(
            "its id must be 1 to {MAX_ID_BYTES} lower-case letters, digits and `-`"
        ));
    }
    if spec.label.len() > MAX_LABEL_BYTES || spec.label.contains('\0') {
        return wrong(format!("its label must be text of at most {MAX_LABEL_BYTES} bytes"));
    }
    if !(1..=29).contains(&spec.cidr.prefix_len()) || spec.cidr != spec.cidr.trunc() {
        return wrong(format!("{} is no range of /1 to /29 with a zero host part", spec.cidr));
    }
    Ok(())
}
