//! Bringing links up, by rtnetlink. Not by the ioctls of an INET socket: under TSI that would be a socket of the host.

use crate::sys;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// What programs see of TSI: without an address of their own many believe that there is no network. The net is
/// TEST-NET-3 (RFC 5737), which leads nowhere.
const TSI_LINK: &str = "dummy0";
const TSI_ADDRESS: [u8; 4] = [203, 0, 113, 1];
const TSI_PREFIX_LEN: u8 = 24;

/// Brings up the loopback link, and `dummy0` if asked. What did not work comes back as sentences: many programs do
/// well without.
pub(crate) fn bring_up(tsi_inet: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = link_index("lo").and_then(|lo| sys::netlink_request(&set_up_message(lo))) {
        problems.push(format!("cannot bring up the loopback link: {error}"));
    }
    if tsi_inet && let Err(error) = bring_up_tsi_link() {
        problems.push(format!("cannot bring up {TSI_LINK} for TSI: {error}"));
    }
    problems
}

fn bring_up_tsi_link() -> std::io::Result<()> {
    let link = link_index(TSI_LINK)?;
    sys::netlink_request(&add_address_message(link, TSI_ADDRESS, TSI_PREFIX_LEN))?;
    sys::netlink_request(&set_up_message(link))
}

fn link_index(name: &str) -> std::io::Result<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    text.trim().parse().map_err(|_| std::io::ErrorKind::InvalidData.into())
}

fn set_up_message(link: u32) -> Vec<u8> {
    let mut info = vec![0; 4];
    info.extend(link.to_ne_bytes());
    info.extend(IFF_UP.to_ne_bytes());
    info.extend(IFF_UP.to_ne_bytes());
    message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &info)
}

fn add_address_message(link: u32, address: [u8; 4], prefix_len: u8) -> Vec<u8> {
    let mut info = vec![AF_INET, prefix_len, 0, 0];
    info.extend(link.to_ne_bytes());
    for attribute in [IFA_LOCAL, IFA_ADDRESS] {
        info.extend(8_u16.to_ne_bytes());
        info.extend(attribute.to_ne_bytes());
        info.extend(address);
    }
    message(
        RTM_NEWADDR,
        NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
        &info,
    )
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    const HEADER_LEN: u32 = 16;
    let body_len = u32::try_from(body.len()).expect("a few dozen bytes");
    let mut message = Vec::new();
    message.extend((HEADER_LEN + body_len).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_length_they_say() {
        for message in [set_up_message(1), add_address_message(2, TSI_ADDRESS, 24)] {
            let said = u32::from_ne_bytes(message[..4].try_into().unwrap());
            assert_eq!(usize::try_from(said).unwrap(), message.len());
            assert_eq!(message.len() % 4, 0);
        }
    }

    #[test]
    fn address_message_carries_address_and_prefix() {
        let message = add_address_message(7, [203, 0, 113, 1], 24);
        assert_eq!(&message[16..18], &[AF_INET, 24]);
        assert_eq!(message[20..24], 7_u32.to_ne_bytes());
        assert_eq!(&message[28..32], &[203, 0, 113, 1]);
    }

    #[test]
    fn loopback_link_has_the_index_the_kernel_gave_it() {
        assert_eq!(link_index("lo").unwrap(), 1);
    }

    #[test]
    fn unknown_link_is_not_found() {
        assert_eq!(
            link_index("no-such-link").unwrap_err().kind(),
            std::io::ErrorKind::NotFound
        );
    }
}
