//! Where a guest's sockets may lead (TSI specification, 15).
//!
//! Without rules a guest reaches whatever the host reaches, except
//!
//! - the host itself by its loopback or unspecified addresses;
//! - what is link-local, which is where most clouds serve a machine's credentials;
//! - multicast (`224.0.0.0/4`, `ff00::/8`), broadcast and reserved addresses (`240.0.0.0/4`), which lead to the host's
//!   neighbours and to itself;
//! - where a cloud serves a machine's credentials at another address: see the list in the README. Most of them are unique
//!   local addresses (RFC 4193), which are not denied as a whole, since they are also what a private network uses.
//!
//! A host's own address on a network is not among these. Rules change that:
//!
//! 1. what a deny rule covers is denied;
//! 2. else what an allow rule covers is allowed;
//! 3. else what is built in as denied is denied;
//! 4. else it is allowed.
//!
//! Behind an address of `64:ff9b::/96` a NAT64 gateway reaches the IPv4 address in its last 32 bits (RFC 6052), so what is
//! denied for that one, by 1 or by 3, is denied here too. An allow rule has to name the IPv6 address: who opens a service to
//! guests has not thought of a gateway that leads to the same numbers elsewhere.

mod rule;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use rule::{Rule, RuleError};

use crate::errno::Errno;
use crate::wire::{SocketKind, SocketName};

/// What is denied unless a rule allows it.
const BUILT_IN_DENIES: [&str; 20] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    // AWS: 254 is the metadata service, 23 that of EKS Pod Identity, 253 the name server.
    "[fd00:ec2::/32]:0-52",
    "[fd00:ec2::/32]:54-65535",
    // Google.
    "fd20:ce::254/128",
    // Oracle.
    "fd00:c1::a9fe:a9fe/128",
    // Akamai (Linode).
    "fd00:a9fe:a9fe::1/128",
    // Scaleway.
    "fd00:42::42/128",
    // Alibaba.
    "fd00:100::100:200/128",
    "100.100.100.200/32",
    // Azure.
    "168.63.129.16/32:0-52",
    "168.63.129.16/32:54-65535",
];

/// Rules about destinations. Pure: the same question gets the same answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    built_in: Vec<Rule>,
    refusal: Option<Errno>,
}

impl Policy {
    /// The built-in denials with these rules before them.
    pub fn new(allow: Vec<Rule>, deny: Vec<Rule>) -> Policy {
        let built_in = BUILT_IN_DENIES.iter().filter_map(|rule| rule.parse().ok()).collect();
        Policy {
            allow,
            deny,
            built_in,
            refusal: None,
        }
    }

    /// What a denied program is told. If nothing is said: ECONNREFUSED at the loopback and the unspecified address, unless
    /// a deny rule covers it; EACCES elsewhere.
    #[must_use]
    pub fn with_refusal(mut self, refusal: Errno) -> Policy {
        self.refusal = Some(refusal);
        self
    }

    /// Whether a guest may reach `to`. An IPv4-mapped IPv6 address (RFC 4291) is judged as the IPv4 one, and one of NAT64
    /// (RFC 6052) is denied where the IPv4 one is.
    pub fn allows(&self, to: SocketAddr) -> bool {
        let behind = behind_nat64(to);
        let denies = |rules: &[Rule]| covers(rules, to) || behind.is_some_and(|behind| covers(rules, behind));
        !denies(&self.deny) && (covers(&self.allow, to) || !denies(&self.built_in))
    }

    /// A guest's own stack is asked first. That a connect to its loopback comes here says that nobody in the guest listens
    /// there, or not yet: programs that wait for a server of their own know ECONNREFUSED alone.
    fn refusal(&self, to: SocketAddr) -> Errno {
        let ip = to.ip().to_canonical();
        let own = ip.is_loopback() || ip.is_unspecified();
        let usual = if own && !covers(&self.deny, to) {
            Errno::ECONNREFUSED
        } else {
            Errno::EACCES
        };
        self.refusal.unwrap_or(usual)
    }
}

fn covers(rules: &[Rule], to: SocketAddr) -> bool {
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    rules.iter().any(|rule| rule.matches(to))
}

/// What a NAT64 gateway reaches for an address of the well-known prefix.
fn behind_nat64(to: SocketAddr) -> Option<SocketAddr> {
    const PREFIX: u128 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0).to_bits() >> 32;
    let IpAddr::V6(ip) = to.ip() else { return None };
    let [.., a, b, c, d] = ip.octets();
    (ip.to_bits() >> 32 == PREFIX).then(|| SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), to.port()))
}

impl Default for Policy {
    fn default() -> Policy {
        Policy::new(Vec::new(), Vec::new())
    }
}

/// What a guest wants to do with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `connect(2)`.
    Connect,
    /// Datagrams to it.
    Send,
    /// `listen(2)` on it: after the port map, so the host's address.
    Listen,
}

/// A question to a [`Hook`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// What is to be done.
    pub operation: Operation,
    /// With which kind of socket.
    pub kind: SocketKind,
    /// The name; the IPv4 address for an IPv4-mapped IPv6 one.
    pub name: &'a SocketName,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allow,
    /// Go on with this name instead. It is not judged again.
    Rewrite(SocketName),
    /// No, and this is what the program is told.
    Deny(Errno),
}

/// The embedder's say in each destination, asked after [`Policy`] allowed it.
pub trait Hook: Send {
    /// Answers one question.
    fn judge(&mut self, question: &Question<'_>) -> Verdict;
}

impl Policy {
    pub(crate) fn judge(&self, question: &Question<'_>) -> Verdict {
        match question.name.inet() {
            // What listens on the host was named by the host: see the port map.
            Some(to) if question.operation != Operation::Listen && !self.allows(to) => Verdict::Deny(self.refusal(to)),
            _ => Verdict::Allow,
        }
    }
}

pub(crate) fn canonical(name: &SocketName) -> SocketName {
    match name {
        SocketName::Inet(addr) => SocketName::Inet(SocketAddr::new(addr.ip().to_canonical(), addr.port())),
        SocketName::Unix(_) => name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> Policy {
        let rules = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
        Policy::new(rules(allow), rules(deny))
    }

    #[test]
    fn built_in_rules_all_parse() {
        assert_eq!(Policy::default().built_in.len(), BUILT_IN_DENIES.len());
    }

    #[test]
    fn refusal_is_that_of_ones_own_loopback_or_of_a_rule_or_what_is_set() {
        let refusal = |policy: &Policy, to: &str| {
            let name = SocketName::Inet(to.parse().unwrap());
            let question = Question {
                operation: Operation::Connect,
                kind: SocketKind::Stream,
                name: &name,
            };
            policy.judge(&question)
        };
        let rules = policy(&[], &["127.0.0.1:81"]);
        for to in [
            "127.0.0.1:80",
            "0.0.0.0:80",
            "[::1]:80",
            "[::]:80",
            "[::ffff:127.1.2.3]:80",
        ] {
            assert_eq!(refusal(&rules, to), Verdict::Deny(Errno::ECONNREFUSED), "{to}");
        }
        for to in ["127.0.0.1:81", "169.254.169.254:80", "[fe80::1]:80", "0.1.2.3:80"] {
            assert_eq!(refusal(&rules, to), Verdict::Deny(Errno::EACCES), "{to}");
        }
        let other = Policy::default().with_refusal(Errno::ENETUNREACH);
        assert_eq!(refusal(&other, "127.0.0.1:80"), Verdict::Deny(Errno::ENETUNREACH));
    }

    /// Each is a unique local address, which a private network may use too: what is beside it is not denied.
    #[test]
    fn metadata_services_of_clouds_over_ipv6_are_denied_and_what_is_beside_them_is_not() {
        let policy = Policy::default();
        for (service, beside) in [
            ("fd00:ec2::254", "fd00:ec3::254"),
            ("fd00:ec2::23", "fd00:ec1::23"),
            ("fd20:ce::254", "fd20:ce::253"),
            ("fd00:c1::a9fe:a9fe", "fd00:c1::a9fe:a9ff"),
            ("fd00:a9fe:a9fe::1", "fd00:a9fe:a9fe::2"),
            ("fd00:42::42", "fd00:42::43"),
            ("fd00:100::100:200", "fd00:100::100:201"),
        ] {
            let allows = |ip: &str| policy.allows(SocketAddr::new(ip.parse().unwrap(), 80));
            assert!(!allows(service), "{service}");
            assert!(allows(beside), "{beside}");
        }
    }

    /// A network with a NAT64 gateway leads all of IPv4 by it, the metadata service of the gateway's own machine too.
    #[test]
    fn nat64_address_of_a_denied_ipv4_address_is_denied() {
        let none = Policy::default();
        let loopback_opened = policy(&["127.0.0.1:8080"], &[]);
        let one_opened = policy(&["64:ff9b::169.254.169.254"], &[]);
        let net_denied = policy(&["64:ff9b::/96"], &["10.0.0.0/8"]);
        for (policy, to, allowed) in [
            (&none, "[64:ff9b::169.254.169.254]:80", false),
            (&none, "[64:ff9b::127.0.0.1]:80", false),
            (&none, "[64:ff9b::168.63.129.16]:80", false),
            (&none, "[64:ff9b::168.63.129.16]:53", true),
            (&none, "[64:ff9b::93.184.216.34]:443", true),
            (&none, "[64:ff9b::1:169.254.169.254]:80", true),
            (&loopback_opened, "[64:ff9b::127.0.0.1]:8080", false),
            (&one_opened, "[64:ff9b::169.254.169.254]:80", true),
            (&one_opened, "[64:ff9b::169.254.169.253]:80", false),
            (&net_denied, "[64:ff9b::10.1.2.3]:80", false),
            (&net_denied, "[64:ff9b::127.0.0.1]:80", true),
        ] {
            assert_eq!(policy.allows(to.parse().unwrap()), allowed, "{to}");
        }
    }

    #[test]
    fn policy_table() {
        let none = policy(&[], &[]);
        let one_port = policy(&["127.0.0.1:8080"], &[]);
        let one_group = policy(&["224.0.0.251:5353", "ff02::fb", "100.100.100.200"], &[]);
        let deny_wins = policy(&["127.0.0.0/8"], &["127.0.0.1:22", "10.0.0.0/8"]);
        for (policy, to, allowed) in [
            (&none, "93.184.216.34:443", true),
            (&none, "127.0.0.1:80", false),
            (&none, "127.255.0.1:80", false),
            (&none, "0.0.0.0:80", false),
            (&none, "0.1.2.3:80", false),
            (&none, "169.254.169.254:80", false),
            (&none, "[::]:80", false),
            (&none, "[::1]:80", false),
            (&none, "[fe80::1]:80", false),
            (&none, "[fd00:ec2::254]:80", false),
            (&none, "[fd00:ec2::253]:53", true),
            (&none, "[2606:4700::1]:80", true),
            (&none, "100.100.100.200:80", false),
            (&none, "100.100.100.201:80", true),
            (&none, "168.63.129.16:80", false),
            (&none, "168.63.129.16:32526", false),
            (&none, "168.63.129.16:53", true),
            (&none, "168.63.129.17:80", true),
            (&none, "224.0.0.251:5353", false),
            (&none, "239.255.255.250:1900", false),
            (&none, "240.0.0.1:80", false),
            (&none, "255.255.255.255:67", false),
            (&none, "223.255.255.255:80", true),
            (&none, "[ff02::fb]:5353", false),
            (&none, "[ff05::1:3]:547", false),
            (&none, "[::ffff:224.0.0.1]:80", false),
            (&one_group, "224.0.0.251:5353", true),
            (&one_group, "224.0.0.252:5355", false),
            (&one_group, "[ff02::fb]:5353", true),
            (&one_group, "100.100.100.200:80", true),
            (&none, "[::ffff:127.0.0.1]:80", false),
            (&none, "[::ffff:169.254.169.254]:80", false),
            (&none, "192.168.1.1:80", true),
            (&one_port, "127.0.0.1:8080", true),
            (&one_port, "[::ffff:127.0.0.1]:8080", true),
            (&one_port, "127.0.0.1:8081", false),
            (&one_port, "127.0.0.2:8080", false),
            (&one_port, "0.0.0.0:8080", false),
            (&deny_wins, "127.0.0.1:22", false),
            (&deny_wins, "127.0.0.1:23", true),
            (&deny_wins, "10.1.2.3:80", false),
        ] {
            assert_eq!(policy.allows(to.parse().unwrap()), allowed, "{to}");
        }
    }
}
