//! Certificates, made by the test, and contexts that show or trust them.

use std::sync::OnceLock;

use asyncio::{SslContext, SslContextBuilder};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// Somebody who vouches for others.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The certificate that makes one trust it.
    pub(crate) pem: String,
}

/// A certificate and its key, as PEM text.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for servers and clients, for these names and addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        self.issue_as(names, |_| {})
    }

    /// As [`issue`](Self::issue), changed before it is signed.
    pub(crate) fn issue_as(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { chain: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Identity {
    /// A server that shows it.
    pub(crate) fn server(&self) -> SslContext {
        self.server_builder().build().unwrap()
    }

    pub(crate) fn server_builder(&self) -> SslContextBuilder {
        SslContext::server_builder().cert_chain_pem(&self.chain, &self.key)
    }
}

/// Who vouches for the servers of most tests.
pub(crate) fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("the authority of these tests"))
}

/// For the name `localhost` and nothing else.
pub(crate) fn localhost() -> &'static Identity {
    static LOCALHOST: OnceLock<Identity> = OnceLock::new();
    LOCALHOST.get_or_init(|| authority().issue(&["localhost"]))
}

/// A server that is `localhost`.
pub(crate) fn server() -> SslContext {
    localhost().server()
}

/// A client that trusts the authority of these tests.
pub(crate) fn client() -> SslContext {
    client_builder().build().unwrap()
}

pub(crate) fn client_builder() -> SslContextBuilder {
    SslContext::client_builder().verify_pem(&authority().pem)
}

impl Authority {
    /// Another one, who is trusted by those who trust this one and are shown its certificate.
    pub(crate) fn vouch_for(&self, name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }
}

impl Authority {
    /// A list that revokes the certificate with this number, as PEM text.
    pub(crate) fn revoke(&self, number: rcgen::SerialNumber) -> String {
        let revoked = rcgen::RevokedCertParams {
            serial_number: number,
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2999, 1, 1),
            crl_number: rcgen::SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}
