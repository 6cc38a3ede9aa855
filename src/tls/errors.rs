//! What can go wrong, in words for those who do not know the library; its own name for it comes behind.

use rustls::{
    AlertDescription, CertificateError, Error as RustlsError, InconsistentKeys, InvalidMessage,
    pki_types::{UnixTime, pem},
    server::VerifierBuilderError,
};

use crate::error::Error;

const DAY: u64 = 24 * 3600;

/// [`Error::Ssl`].
impl From<RustlsError> for Error {
    fn from(error: RustlsError) -> Self {
        ssl_error(&error)
    }
}

/// [`Error::Io`] if a file cannot be read, else [`Error::Ssl`].
impl From<pem::Error> for Error {
    fn from(error: pem::Error) -> Self {
        match error {
            pem::Error::Io(error) => error.into(),
            error => Error::Ssl(format!("it is no PEM: {error}").into()),
        }
    }
}

/// [`Error::Ssl`].
impl From<VerifierBuilderError> for Error {
    fn from(error: VerifierBuilderError) -> Self {
        Error::Ssl(error.to_string().into())
    }
}

pub(super) fn ssl_error(error: &RustlsError) -> Error {
    let text = match error {
        RustlsError::InvalidCertificate(why) => format!("certificate verify failed: {}", of_certificate(why)),
        RustlsError::NoCertificatesPresented => "certificate required: the other side showed none".to_owned(),
        RustlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "what was received is not TLS (InvalidContentType)".to_owned()
        }
        RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "they do not belong together (KeyMismatch)".to_owned()
        }
        RustlsError::AlertReceived(alert) => match of_alert(*alert) {
            Some(words) => format!("the other side gave up: {words} (alert {alert:?})"),
            None => format!("the other side gave up: alert {alert:?}"),
        },
        error => error.to_string(),
    };
    Error::Ssl(text.into())
}

fn of_certificate(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "it was not issued by anybody who is trusted (UnknownIssuer)".to_owned(),
        CertificateError::BadSignature => {
            "a signature is wrong: whoever is trusted by the name of its issuer has another \
                                           key (is the trusted certificate an old one?), or who shows it lacks its key \
                                           (BadSignature)"
                .to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => {
            format!("it expired {} ago (Expired)", days_between(*not_after, *time))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("it is not valid yet, and will be in {} (NotValidYet)", days_between(*time, *not_before))
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented: Vec<&str> = presented.iter().map(|name| bare_name(name)).collect();
            let presented = if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") };
            format!("it is not valid for name \"{}\", but for {presented} (NotValidForName)", expected.to_str())
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "it is signed in a way that is not accepted, such as by SHA-1 (UnsupportedSignatureAlgorithm)".to_owned()
        }
        CertificateError::Other(why) if why.to_string() == "CaUsedAsEndEntity" => {
            "it is an authority's own, not a server's or client's, as `openssl req -x509` makes them without \
             `-addext basicConstraints=critical,CA:FALSE` (CaUsedAsEndEntity)"
                .to_owned()
        }
        why => why.to_string(),
    }
}

/// What rustls writes as `DnsName("localhost")` or `IpAddress(127.0.0.1)`.
fn bare_name(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, inner)| inner.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

fn days_between(earlier: UnixTime, later: UnixTime) -> String {
    let seconds = later.as_secs().saturating_sub(earlier.as_secs());
    match seconds / DAY {
        0 => format!("{seconds} seconds"),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

fn of_alert(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::UnknownCA => "it does not trust who issued our certificate",
        AlertDescription::CertificateRequired => "it demands a certificate of ours",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => "it does not accept our certificate",
        AlertDescription::NoApplicationProtocol => "no protocol in common, of ALPN",
        AlertDescription::ProtocolVersion => "no version of TLS in common",
        AlertDescription::HandshakeFailure => "nothing in common, such as a cipher suite",
        AlertDescription::UnrecognisedName => "it has no certificate for this name",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_lose_what_the_library_puts_around_them() {
        let cases = [
            ("DnsName(\"localhost\")", "localhost"),
            ("IpAddress(127.0.0.1)", "127.0.0.1"),
            ("DnsName(\"*.example.org\")", "*.example.org"),
            ("localhost", "localhost"),
            ("", ""),
        ];
        for (name, bare) in cases {
            assert_eq!(bare_name(name), bare);
        }
    }

    #[test]
    fn times_are_told_in_days() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let cases = [(0, "0 seconds"), (DAY - 1, "86399 seconds"), (DAY, "1 day"), (20 * DAY + 5, "20 days")];
        for (seconds, text) in cases {
            assert_eq!(days_between(at(1000), at(1000 + seconds)), text);
        }
        assert_eq!(days_between(at(5), at(1)), "0 seconds");
    }
}
