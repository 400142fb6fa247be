//! Values of single arguments. Each function reads one, or says what it should have been.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use machine::{Cache, Net, Publish, Share, VsockRoute};

/// What `--net` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetArg {
    /// How INET is carried without a net device.
    Mode(NetMode),
    /// A net device.
    Device(Net),
}

/// How INET is carried without a net device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetMode {
    /// The policy decides.
    Auto,
    /// Not at all.
    None,
    /// Through TSI.
    Tsi,
}

impl From<NetMode> for NetArg {
    fn from(mode: NetMode) -> Self {
        Self::Mode(mode)
    }
}

/// `512`, `512M`, `2G`, `65536K`, in MiB; KiB are rounded up.
pub(crate) fn memory_mib(text: &str) -> Result<u64, String> {
    let wrong = || "it is not a size in MiB, or with a suffix K, M or G".to_owned();
    let (digits, suffix) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let number: u64 = number(digits).ok_or_else(wrong)?;
    match suffix.to_ascii_uppercase().as_str() {
        "" | "M" => Some(number),
        "K" => Some(number.div_ceil(1024)),
        "G" => number.checked_mul(1024),
        _ => None,
    }
    .ok_or_else(wrong)
}

/// `30s`, `5m`, `2h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.chars().next_back().and_then(|unit| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        _ => None,
    });
    let seconds = unit.and_then(|unit| number::<u64>(&text[..text.len() - 1])?.checked_mul(unit));
    match seconds {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err("it is not a time like 30s, 5m or 2h".to_owned()),
    }
}

/// `HOST:GUEST[:OPTION[,OPTION]]`: an access and a cache. What is shared is a folder until somebody has looked.
pub(crate) fn share(text: &str) -> Result<Share, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, guest, options) = match *parts.as_slice() {
        [host, guest] if !host.is_empty() && !guest.is_empty() => (host, guest, None),
        [host, guest, options] if !host.is_empty() && !guest.is_empty() => (host, guest, Some(options)),
        _ => return Err("it is not HOST:GUEST or HOST:GUEST:ro".to_owned()),
    };
    let (mut access, mut cache) = (None, None);
    for option in options.into_iter().flat_map(|options| options.split(',')) {
        let repeated = match (option, option.split_once('=')) {
            ("ro", _) => access.replace(true).is_some(),
            ("rw", _) => access.replace(false).is_some(),
            (_, Some(("cache", how))) => cache.replace(cache_named(how)?).is_some(),
            _ => {
                return Err(format!(
                    "`{option}` is none of ro, rw, cache=none, cache=auto and cache=always"
                ));
            }
        };
        if repeated {
            return Err(format!("`{option}` says again what was said before it"));
        }
    }
    Ok(Share {
        read_only: access.unwrap_or_default(),
        cache: cache.unwrap_or_default(),
        ..Share::new(host, guest)
    })
}

fn cache_named(name: &str) -> Result<Cache, String> {
    match name {
        "none" => Ok(Cache::None),
        "auto" => Ok(Cache::Auto),
        "always" => Ok(Cache::Always),
        _ => Err(format!("`{name}` is none of the caches none, auto and always")),
    }
}

/// `[ADDR:]HOST:GUEST`; an IPv6 address stands in brackets.
pub(crate) fn publish(text: &str) -> Result<Publish, String> {
    let wrong = || "it is not [ADDR:]HOST:GUEST with ports from 1 to 65535".to_owned();
    let (rest, guest) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (Some(address), host),
        None => (None, rest),
    };
    let bind = address
        .map(|address| ip_address(address).ok_or_else(wrong))
        .transpose()?;
    let port = |text: &str| number::<u16>(text).filter(|&port| port > 0).ok_or_else(wrong);
    Ok(Publish {
        bind,
        host_port: port(host)?,
        guest_port: port(guest)?,
    })
}

/// `PORT:PATH[:listen]`.
pub(crate) fn vsock_route(text: &str) -> Result<VsockRoute, String> {
    let (path, listen) = match text.strip_suffix(":listen") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let parts = path
        .split_once(':')
        .and_then(|(port, path)| Some((number(port)?, path)));
    match parts {
        Some((port, path)) if !path.is_empty() => Ok(VsockRoute {
            port,
            path: PathBuf::from(path),
            listen,
        }),
        _ => Err("it is not PORT:PATH or PORT:PATH:listen".to_owned()),
    }
}

/// `auto`, `none`, `tsi`, `tap=NAME`, `passt=SOCKET`.
pub(crate) fn net(text: &str) -> Result<NetArg, String> {
    match (text, text.split_once('=')) {
        ("auto", _) => Ok(NetArg::Mode(NetMode::Auto)),
        ("none", _) => Ok(NetArg::Mode(NetMode::None)),
        ("tsi", _) => Ok(NetArg::Mode(NetMode::Tsi)),
        (_, Some(("tap", name))) if !name.is_empty() => Ok(NetArg::Device(Net::Tap(name.to_owned()))),
        (_, Some(("passt", path))) if !path.is_empty() => Ok(NetArg::Device(Net::Passt(PathBuf::from(path)))),
        _ => Err("it is none of auto, none, tsi, tap=NAME and passt=SOCKET".to_owned()),
    }
}

/// Digits and nothing else: no sign, no space.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn ip_address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_suffixes_are_powers_of_1024_and_mib_is_the_default() {
        for (text, mib) in [
            ("512", 512),
            ("512M", 512),
            ("2G", 2048),
            ("2g", 2048),
            ("65536K", 64),
            ("1k", 1),
            ("0", 0),
        ] {
            assert_eq!(memory_mib(text), Ok(mib), "{text}");
        }
        for text in [
            "",
            "M",
            "-1",
            "+1",
            "1.5G",
            "1T",
            "1MB",
            " 1",
            "18446744073709551615G",
            "99999999999999999999",
        ] {
            assert!(memory_mib(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_a_unit_and_are_not_zero() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("2h", 7200)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "s", "30", "0s", "-1s", "1.5s", "1d", "5µ", "99999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_name_two_places_and_perhaps_an_access_and_a_cache() {
        let shared = share("/src:/mnt:ro").expect("whole");
        assert_eq!(
            (shared.host.to_str(), shared.guest.as_str(), shared.read_only),
            (Some("/src"), "/mnt", true)
        );
        assert!(!share("a:/b").expect("whole").read_only);
        assert!(!share("a:/b:rw").expect("whole").read_only);
        let cached = share("a:/b:cache=none,ro").expect("whole");
        assert_eq!((cached.read_only, cached.cache), (true, Cache::None));
        assert_eq!(share("a:/b:cache=always").expect("whole").cache, Cache::Always);
        for text in [
            "",
            "a",
            ":",
            "a:",
            ":b",
            "a:b:",
            "a:b:rx",
            "a:b:ro:ro",
            "a:b:ro,rw",
            "a:b:ro,",
            "a:b:cache=",
            "a:b:cache=auto,cache=auto",
            "a::ro",
            ":b:ro",
        ] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn published_ports_may_name_an_address() {
        let expected = |bind: Option<&str>, host_port, guest_port| Publish {
            bind: bind.map(|bind| bind.parse().expect("an address")),
            host_port,
            guest_port,
        };
        assert_eq!(publish("8080:80"), Ok(expected(None, 8080, 80)));
        assert_eq!(publish("0.0.0.0:8080:80"), Ok(expected(Some("0.0.0.0"), 8080, 80)));
        assert_eq!(publish("[::1]:8080:80"), Ok(expected(Some("::1"), 8080, 80)));
        for text in [
            "",
            "80",
            "80:",
            ":80",
            "0:80",
            "80:0",
            "65536:1",
            "x:80:80",
            "::1:80:80",
            "[::1:80:80",
            "-1:80",
        ] {
            assert!(publish(text).is_err(), "{text}");
        }
    }

    #[test]
    fn vsock_routes_name_a_port_and_a_socket() {
        let route = vsock_route("5000:/run/a:b:listen").expect("whole");
        assert_eq!(
            (route.port, route.path.to_str(), route.listen),
            (5000, Some("/run/a:b"), true)
        );
        assert!(!vsock_route("1:x").expect("whole").listen);
        for text in [
            "",
            "5000",
            "5000:",
            "x:/run/a",
            ":listen",
            "5000:listen",
            "4294967296:/a",
        ] {
            assert!(vsock_route(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nets_are_a_mode_or_a_device() {
        assert_eq!(net("auto"), Ok(NetArg::Mode(NetMode::Auto)));
        assert_eq!(net("none"), Ok(NetArg::Mode(NetMode::None)));
        assert_eq!(net("tsi"), Ok(NetArg::Mode(NetMode::Tsi)));
        assert_eq!(net("tap=t0"), Ok(NetArg::Device(Net::Tap("t0".into()))));
        assert_eq!(net("passt=/a=b"), Ok(NetArg::Device(Net::Passt("/a=b".into()))));
        for text in ["", "on", "tap", "tap=", "passt=", "bridge=b0"] {
            assert!(net(text).is_err(), "{text}");
        }
    }
}
