//! Parses the URL of a webhook's target.

use http::Uri;
use http::uri::Scheme;

use crate::base::host::is_name;
use crate::config::BuildError;
use crate::egress::{EgressPolicy, check_host as check_target, literal};

/// Parses a URL that events can be sent to: `http` or `https`, and a host that is a name or an address in its usual
/// form. Refuses parts that would not be sent.
pub(super) fn parse(text: &str, policy: &EgressPolicy) -> Result<Uri, BuildError> {
    // `Uri` would silently drop a fragment.
    if text.contains('#') || !text.is_ascii() {
        return Err("`url` must be ASCII without a fragment".into());
    }
    let uri: Uri = text.parse().map_err(|_| "`url` is not a URL")?;
    if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
        return Err("`url` must begin with http:// or https://".into());
    }
    let authority = uri.authority().ok_or("`url` has no host")?;
    if authority.as_str().contains('@') {
        return Err("`url` must not contain a user or password; put credentials into `headers`".into());
    }
    let host = authority.host();
    // Only a valid port may follow the host: `Uri` accepts `host:` and `host:0` as well.
    let port = &authority.as_str()[host.len()..];
    if !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err("`url` has an invalid port".into());
    }
    check_target(host, policy).map_err(|error| format!("`url` {error}"))?;
    Ok(uri)
}

/// The host and port of `uri`, the only parts that may be shown.
pub(super) fn shown(uri: &Uri) -> String {
    uri.authority().map(|authority| authority.as_str().to_ascii_lowercase()).unwrap_or_default()
}

/// Checks that the URL's host is one of `hosts`.
pub(super) fn check_host(uri: &Uri, hosts: &[String]) -> Result<(), BuildError> {
    let plain = |host: &str| host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if hosts.iter().any(|host| literal(host).is_none() && !is_name(host)) {
        return Err("`allowed_hosts` must contain host names, without scheme and port".into());
    }
    let host = plain(uri.host().unwrap_or_default());
    match hosts.iter().any(|allowed| plain(allowed) == host) {
        true => Ok(()),
        false => Err("`url` names a host that is not one of `allowed_hosts`".into()),
    }
}

/// An accepted URL leads to a name, or to an address that the policy allows.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    // The networks of a policy, a line break, and a URL.
    let (networks, url) = text.split_once('\n').unwrap_or(("", text));
    let Ok(policy) = networks.parse::<EgressPolicy>() else { return };
    let Ok(uri) = parse(url, &policy) else { return };
    let host = uri.host().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse() {
        Ok(address) => assert!(policy.allows(address)),
        Err(_) => assert!(is_name(host)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str) -> Result<Uri, String> {
        parse(url, &EgressPolicy::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn usable_urls_are_accepted() {
        for url in [
            "http://example.com",
            "https://example.com/",
            "HTTPS://Example.COM:8443/a/b?token=x&y=%20",
            "https://example.com./hook",
            "http://some_service:8080/",
            "http://a.b-c.d1/",
            "http://8.8.8.8/",
            "http://[2606:4700::1111]:80/",
            "http://1.example/",
        ] {
            assert!(check(url).is_ok(), "{url}: {:?}", check(url));
        }
    }

    #[test]
    fn other_urls_are_refused_and_not_quoted() {
        for url in [
            "",
            "example.com",
            "/s3cret",
            "//example.com/s3cret",
            "ftp://example.com/s3cret",
            "file:///s3cret",
            "unix://s3cret",
            "http://",
            "http:///s3cret",
            "http://user:s3cret@example.com/",
            "http://user@example.com/s3cret",
            "http://@example.com/s3cret",
            "http://example.com@127.0.0.1/s3cret",
            "http://example.com/#s3cret",
            "http://example.com/s3cr\u{e9}t",
            "http://ex\u{e9}mple.com/s3cret",
            "http://example.com/s3 cret",
            " http://example.com/s3cret",
            "http://example.com/s3cret\n",
            "http://example.com:/s3cret",
            "http://example.com:0/s3cret",
            "http://example.com:65536/s3cret",
            "http://example.com:s3cret/",
            "http://.example.com/s3cret",
            "http://example..com/s3cret",
            "http://./s3cret",
            "http://exa%6dple.com/s3cret",
            "http://exa$mple.com/s3cret",
            "http://[::1/s3cret",
            "http://[2606:4700::1111%eth0]/s3cret",
            "http://[example.com]/s3cret",
        ] {
            let error = check(url).unwrap_err();
            assert!(!error.contains("s3cr"), "{url}: {error}");
        }
        assert!(check(&format!("http://{}.com/", "a".repeat(64))).is_err());
        assert!(check(&format!("http://{}com/", "a.".repeat(126))).is_err());
    }

    #[test]
    fn an_address_must_be_in_its_usual_form_and_allowed() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0X7F000001",
            "0177.0.0.1",
            "0",
            "8.8.8.8.",
            "8.8.2056",
            "134744072",
            "1.2.3.4.5",
            "example.1",
            "example.0x1",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:8.8.8.8]",
            "[64:ff9b::127.0.0.1]",
            "169.254.169.254",
            "[fd00:ec2::254]",
        ] {
            assert!(check(&format!("http://{host}/")).is_err(), "{host}");
        }
        let policy = "127.0.0.0/8".parse().unwrap();
        assert!(parse("http://127.0.0.1:8080/", &policy).is_ok());
        assert!(parse("http://127.1:8080/", &policy).is_err());
    }

    #[test]
    fn allowed_hosts_limit_the_host() {
        let is_in = |url: &str, hosts: &[&str]| {
            let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
            check_host(&check(url).unwrap(), &hosts).is_ok()
        };
        for host in ["example.com", "EXAMPLE.com", "example.com."] {
            assert!(is_in("https://Example.com:8443/x", &["other.example", host]), "{host}");
        }
        assert!(is_in("http://example.com./", &["example.com"]));
        assert!(is_in("http://[2606:4700::1]/", &["[2606:4700::1]"]));
        for hosts in [&[][..], &["other.example"], &["com"], &["a.example.com"], &["example.com.evil.test"]] {
            assert!(!is_in("http://example.com/", hosts), "{hosts:?}");
        }
        for wrong in ["", "https://example.com", "example.com:443", "*.example.com", "example.com/x", "*"] {
            assert!(!is_in("http://example.com/", &["example.com", wrong]), "{wrong}");
        }
    }

    #[test]
    fn only_host_and_port_are_shown() {
        assert_eq!(shown(&check("https://Example.com:8443/s3cret?token=s3cret").unwrap()), "example.com:8443");
    }
}
