//! One rule: addresses and ports.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of internet destinations: `10.0.0.0/8`, `192.0.2.1`, `192.0.2.1:80`, `10.0.0.0/8:8000-8999`, `::1`,
/// `2001:db8::/32`, `[::1]:80`, `[2001:db8::/32]:443`.
///
/// Bits of an address beyond its prefix are ignored. An IPv4-mapped IPv6 address (RFC 4291) means the IPv4 one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    network: IpAddr,
    prefix: u8,
    ports: RangeInclusive<u16>,
}

const ALL_PORTS: RangeInclusive<u16> = 0..=u16::MAX;

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// The address does not parse.
    #[error("{0:?} is not an IP address")]
    Address(String),
    /// The number after the slash does not parse or is too large for the address.
    #[error("{0:?} is not a prefix length of {1}")]
    Prefix(String, IpAddr),
    /// What follows the address is no port and no range of ports.
    #[error("{0:?} is neither a port nor a range of ports like 8000-8999")]
    Ports(String),
    /// An opening bracket without its closing one.
    #[error("{0:?} lacks a closing bracket")]
    Bracket(String),
}

impl Rule {
    /// Whether `to` is in the set. An IPv4-mapped IPv6 address is not recognised here: see
    /// [`Policy::allows`](super::Policy::allows).
    pub fn matches(&self, to: SocketAddr) -> bool {
        self.ports.contains(&to.port()) && masked(to.ip(), self.prefix) == self.network
    }

    fn new(addr: IpAddr, prefix: u8, ports: RangeInclusive<u16>) -> Rule {
        let (addr, prefix) = match (addr.to_canonical(), addr) {
            (mapped @ IpAddr::V4(_), IpAddr::V6(_)) if prefix >= 96 => (mapped, prefix - 96),
            _ => (addr, prefix),
        };
        Rule {
            network: masked(addr, prefix),
            prefix,
            ports,
        }
    }
}

fn masked(addr: IpAddr, prefix: u8) -> IpAddr {
    match addr {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

fn full_prefix(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Rule, RuleError> {
        let (network, ports) = split_ports(text)?;
        let (addr, prefix) = match network.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix)),
            None => (network, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| RuleError::Address(addr.to_owned()))?;
        let prefix = match prefix {
            None => full_prefix(addr),
            Some(digits) => parse_prefix(digits, addr)?,
        };
        Ok(Rule::new(addr, prefix, ports.map_or(Ok(ALL_PORTS), parse_ports)?))
    }
}

/// A colon separates ports only after brackets, or when there is no other.
fn split_ports(text: &str) -> Result<(&str, Option<&str>), RuleError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (network, after) = rest
            .split_once(']')
            .ok_or_else(|| RuleError::Bracket(text.to_owned()))?;
        return match after.strip_prefix(':') {
            Some(ports) => Ok((network, Some(ports))),
            None if after.is_empty() => Ok((network, None)),
            None => Err(RuleError::Ports(after.to_owned())),
        };
    }
    match text.split_once(':') {
        Some((network, ports)) if !ports.contains(':') => Ok((network, Some(ports))),
        _ => Ok((text, None)),
    }
}

fn parse_prefix(digits: &str, addr: IpAddr) -> Result<u8, RuleError> {
    match number::<u8>(digits) {
        Some(prefix) if prefix <= full_prefix(addr) => Ok(prefix),
        _ => Err(RuleError::Prefix(digits.to_owned(), addr)),
    }
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, RuleError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(RuleError::Ports(text.to_owned())),
    }
}

fn number<N: FromStr>(digits: &str) -> Option<N> {
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = self.network.is_ipv6() && self.ports != ALL_PORTS;
        if bracketed {
            f.write_str("[")?;
        }
        write!(f, "{}", self.network)?;
        if self.prefix != full_prefix(self.network) {
            write!(f, "/{}", self.prefix)?;
        }
        if bracketed {
            f.write_str("]")?;
        }
        match (self.ports.start(), self.ports.end()) {
            _ if self.ports == ALL_PORTS => Ok(()),
            (first, last) if first == last => write!(f, ":{first}"),
            (first, last) => write!(f, ":{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rule_texts_print_in_their_shortest_form() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1/32", "192.0.2.1"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("192.0.2.1:80-80", "192.0.2.1:80"),
            ("10.0.0.0/8:8000-8999", "10.0.0.0/8:8000-8999"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[::1]:80", "[::1]:80"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("[::ffff:10.0.0.0/104]:1", "10.0.0.0/8:1"),
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_rules_are_refused_with_the_part_at_fault() {
        for (text, error) in [
            ("", "\"\" is not an IP address"),
            ("localhost", "\"localhost\" is not an IP address"),
            ("1.2.3.4/33", "\"33\" is not a prefix length of 1.2.3.4"),
            ("1.2.3.4/", "\"\" is not a prefix length of 1.2.3.4"),
            ("1.2.3.4/+8", "\"+8\" is not a prefix length of 1.2.3.4"),
            ("1.2.3.4:", "\"\" is neither a port nor a range of ports like 8000-8999"),
            (
                "1.2.3.4:90-80",
                "\"90-80\" is neither a port nor a range of ports like 8000-8999",
            ),
            (
                "1.2.3.4:65536",
                "\"65536\" is neither a port nor a range of ports like 8000-8999",
            ),
            ("[::1", "\"[::1\" lacks a closing bracket"),
            (
                "[::1]80",
                "\"80\" is neither a port nor a range of ports like 8000-8999",
            ),
        ] {
            assert_eq!(text.parse::<Rule>().unwrap_err().to_string(), error, "{text}");
        }
    }

    proptest! {
        #[test]
        fn rule_shown_and_parsed_is_the_same_rule(addr: IpAddr, prefix in 0u8..=128, a: u16, b: u16) {
            let rule = Rule::new(addr, prefix.min(full_prefix(addr)), a.min(b)..=a.max(b));
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
        }

        #[test]
        fn parsing_any_text_does_not_panic(text in "[0-9a-f:./\\[\\]-]{0,30}") {
            let _ = text.parse::<Rule>();
        }

        /// Naive model: compare bit by bit.
        #[test]
        fn rule_matches_what_agrees_in_each_bit_of_the_prefix(net: u32, addr: u32, keep in 0u32..=32, prefix in 0u8..=32) {
            let mask = u32::MAX.checked_shl(32 - keep).unwrap_or(0);
            let addr = (net & mask) | (addr & !mask);
            let rule = Rule::new(IpAddr::V4(net.into()), prefix, ALL_PORTS);
            let agrees = (0..u32::from(prefix)).all(|bit| (net >> (31 - bit)) & 1 == (addr >> (31 - bit)) & 1);
            prop_assert_eq!(rule.matches(SocketAddr::new(IpAddr::V4(addr.into()), 1)), agrees);
        }
    }
}
