use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;

const TRUSTED: &str = "10.0.0.0/8, fd00::/8";
const PROXY: &str = "10.0.0.1";

fn resolve_from(peer: &str, field: HeaderName, lines: &[&str]) -> Result<String, InvalidClientAddress> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(&field, HeaderValue::from_bytes(line.as_bytes()).unwrap());
    }
    let clients = ClientAddress::new(Network::parse_list(TRUSTED).unwrap(), field);
    clients.resolve(peer.parse().unwrap(), &headers).map(|address| address.to_string())
}

fn listed(lines: &[&str]) -> Result<String, InvalidClientAddress> {
    resolve_from(PROXY, HeaderName::from_static("x-forwarded-for"), lines)
}

fn forwarded(lines: &[&str]) -> Result<String, InvalidClientAddress> {
    resolve_from(PROXY, FORWARDED, lines)
}

#[test]
fn the_rightmost_address_that_is_not_trusted_counts() {
    for (lines, client) in [
        (&["203.0.113.7"][..], "203.0.113.7"),
        (&["203.0.113.7, 10.0.0.2,10.0.0.3"], "203.0.113.7"),
        (&["192.0.2.1, 203.0.113.7"], "203.0.113.7"),
        (&["10.9.9.9, 203.0.113.7 \t, 10.0.0.2"], "203.0.113.7"),
        // The last of several lines is the nearest.
        (&["192.0.2.1", "203.0.113.7", "10.0.0.2"], "203.0.113.7"),
        (&["203.0.113.7, 10.0.0.2", "10.0.0.3"], "203.0.113.7"),
        (&["2001:db8::1, fd00::2"], "2001:db8::1"),
        (&["203.0.113.7:4711"], "203.0.113.7"),
        (&["[2001:db8::1]:4711, [fd00::2]"], "2001:db8::1"),
        (&["::ffff:203.0.113.7, ::ffff:10.0.0.2"], "203.0.113.7"),
        // If all are trusted, the first one counts.
        (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (&[], PROXY),
        // Items to the left of the client are not read.
        (&["anything at all, 203.0.113.7"], "203.0.113.7"),
        (&["", "unknown, 203.0.113.7"], "203.0.113.7"),
        (&["\u{e9}", "203.0.113.7"], "203.0.113.7"),
    ] {
        assert_eq!(listed(lines).as_deref(), Ok(client), "{lines:?}");
    }
}

#[test]
fn an_item_that_is_no_address_at_the_clients_position_is_refused() {
    for lines in [
        &[""][..],
        &["203.0.113.7,"],
        &["203.0.113.7, , 10.0.0.2"],
        &["203.0.113.7", ""],
        &["unknown"],
        &["203.0.113.7, unknown, 10.0.0.2"],
        &["203.0.113.7, unix:"],
        &["_hidden"],
        &["203.0.113"],
        &["203.0.113.007"],
        &["203.0.113.7:"],
        &["203.0.113.7:65536"],
        &["203.0.113.7 10.0.0.2"],
        &["\"203.0.113.7\""],
        &["[2001:db8::1"],
        &["[203.0.113.7]"],
        &["fe80::1%eth0"],
        &["[fe80::1%1]:80"],
        &["for=203.0.113.7"],
        &["\u{e9}"],
    ] {
        assert_eq!(listed(lines), Err(InvalidClientAddress::MALFORMED), "{lines:?}");
    }
}

#[test]
fn a_peer_that_is_not_trusted_cannot_name_another_client() {
    for peer in ["203.0.113.9", "2001:db8::9"] {
        for line in ["192.0.2.1", "garbage, ", ""] {
            for field in [FORWARDED, HeaderName::from_static("x-forwarded-for")] {
                assert_eq!(resolve_from(peer, field, &[line]).as_deref(), Ok(peer));
            }
        }
    }
    // The IPv4 peer of a dual-stack socket.
    let field = HeaderName::from_static("x-real-ip");
    assert_eq!(resolve_from("::ffff:203.0.113.9", field.clone(), &["192.0.2.1"]).as_deref(), Ok("203.0.113.9"));
    assert_eq!(resolve_from("::ffff:10.0.0.1", field, &["192.0.2.1"]).as_deref(), Ok("192.0.2.1"));
}

#[test]
fn only_the_chosen_field_is_read() {
    let mut headers = HeaderMap::new();
    headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
    headers.insert(FORWARDED, HeaderValue::from_static("for=192.0.2.2"));
    headers.insert("x-real-ip", HeaderValue::from_static("192.0.2.3"));
    for (field, client) in [("x-forwarded-for", "192.0.2.1"), ("forwarded", "192.0.2.2"), ("x-real-ip", "192.0.2.3")] {
        let clients = ClientAddress::new(Network::parse_list(TRUSTED).unwrap(), field.parse().unwrap());
        assert_eq!(clients.resolve(PROXY.parse().unwrap(), &headers).unwrap().to_string(), client);
    }
}

/// The examples of RFC 7239, and more.
#[test]
fn forwarded_is_parsed_by_rfc_7239() {
    for (lines, client) in [
        (&["for=192.0.2.43"][..], "192.0.2.43"),
        (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
        (&["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
        (&["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17"),
        (&["for=192.0.2.43, for=10.0.0.2"], "192.0.2.43"),
        (&["for=192.0.2.43,FOR=\"10.0.0.2:80\";by=_x", "for=\"[fd00::2]:_port\""], "192.0.2.43"),
        (&["for=\"192.0.2.43:47011\""], "192.0.2.43"),
        (&["for=\"192.0.2.43\";secret=\"a, b; c=\\\"d\\\\\""], "192.0.2.43"),
        (&["proto=https ; for=192.0.2.43 ;; "], "192.0.2.43"),
        // Items to the left of the client need not be addresses.
        (&["for=unknown, for=_hidden, proto=http, , for=192.0.2.43"], "192.0.2.43"),
        (&["for=\"not an address\"", "for=192.0.2.43"], "192.0.2.43"),
        (&[], PROXY),
    ] {
        assert_eq!(forwarded(lines).as_deref(), Ok(client), "{lines:?}");
    }
    for lines in [
        &["for=unknown"][..],
        &["for=\"unknown:80\", for=10.0.0.2"],
        &["for=_gazonk"],
        &["for=\"_gazonk:_port\""],
        &["proto=https;by=10.0.0.2"],
        &["for=192.0.2.43,"],
        &[""],
    ] {
        assert_eq!(forwarded(lines), Err(InvalidClientAddress::UNKNOWN), "{lines:?}");
    }
    for lines in [
        &["192.0.2.43"][..],
        &["for=192.0.2.43:80"],
        &["for=[2001:db8::1]"],
        &["for=\"2001:db8::1\""],
        &["for=\"[2001:db8::1\""],
        &["for=\"[2001:db8::1]80\""],
        &["for=\"[fe80::1%1]\""],
        &["for=\"192.0.2.43:\""],
        &["for=\"192.0.2.43:123456\""],
        &["for=\"192.0.2.43:_\""],
        &["for=\"_\""],
        &["for=\"\""],
        &["for="],
        &["for"],
        &["=192.0.2.43"],
        &["for =192.0.2.43"],
        &["for= 192.0.2.43"],
        &["for=192.0.2.43 for=192.0.2.44"],
        &["for=192.0.2.43;for=192.0.2.44"],
        &["for=\"192.0.2.43"],
        &["for=\"192.0.2.43\\"],
        &["for=\"192.0.2.43\"x"],
        // Malformed to the left of the client.
        &["for=\"x", "for=192.0.2.43"],
        &["garbage, for=192.0.2.43"],
    ] {
        assert_eq!(forwarded(lines), Err(InvalidClientAddress::MALFORMED), "{lines:?}");
    }
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([10, a, b, c])),
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        any::<[u8; 15]>().prop_map(|rest| {
            let mut octets = [0xfd; 16];
            octets[1..].copy_from_slice(&rest);
            IpAddr::from(octets)
        }),
    ]
}

proptest! {
    #[test]
    fn the_client_is_the_rightmost_untrusted_address_of_any_chain(
        hops in prop::collection::vec((any_address(), any::<(bool, bool)>()), 1..8),
    ) {
        let trusted = Network::parse_list(TRUSTED).unwrap();
        let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address.to_canonical()));
        let stranger = hops.iter().rev().map(|(address, _)| address).find(|address| !is_trusted(address));
        let client = stranger.unwrap_or(&hops[0].0).to_canonical().to_string();
        let (mut listed_lines, mut forwarded_lines) = (vec![String::new()], vec![String::new()]);
        for (nth, (address, (new_line, with_port))) in hops.iter().enumerate() {
            let port = if *with_port { ":80" } else { "" };
            let item = match address {
                IpAddr::V4(address) => format!("{address}{port}"),
                IpAddr::V6(address) if *with_port => format!("[{address}]:80"),
                IpAddr::V6(address) => address.to_string(),
            };
            let node = match address {
                IpAddr::V4(address) => format!("for=\"{address}{port}\";proto=http"),
                IpAddr::V6(address) => format!("For=\"[{address}]{port}\""),
            };
            for (lines, item) in [(&mut listed_lines, item), (&mut forwarded_lines, node)] {
                match lines.last_mut() {
                    Some(line) if nth == 0 => line.push_str(&item),
                    Some(line) if !new_line => *line += &format!(", {item}"),
                    _ => lines.push(item),
                }
            }
        }
        let lines: Vec<_> = listed_lines.iter().map(String::as_str).collect();
        prop_assert_eq!(listed(&lines), Ok(client.clone()));
        let lines: Vec<_> = forwarded_lines.iter().map(String::as_str).collect();
        prop_assert_eq!(forwarded(&lines), Ok(client));
    }

    /// Whatever a client sends, the address that the proxy adds counts, or the request is refused.
    #[test]
    fn a_client_cannot_forge_its_address(
        sent in prop_oneof!["[ -~]{0,40}", "(for=|[\",;\\\\=\\[\\] ]|10\\.0\\.0\\.9|\"){0,12}"],
        new_line: bool,
        form in 0_usize..3,
    ) {
        let item = ["for=203.0.113.7", "for=\"203.0.113.7:80\";by=\"[fd00::1]\"", "by=\"_a\";For=\"203.0.113.7\""][form];
        for (field, item) in [("forwarded", item), ("x-forwarded-for", "203.0.113.7")] {
            let together = format!("{sent}, {item}");
            let lines = if new_line { vec![sent.as_str(), item] } else { vec![together.as_str()] };
            if let Ok(client) = resolve_from(PROXY, field.parse().unwrap(), &lines) {
                prop_assert_eq!(client, "203.0.113.7");
            }
        }
    }
}
