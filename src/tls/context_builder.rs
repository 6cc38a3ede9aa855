//! Contexts, setting by setting.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, KeyLogFile, RootCertStore,
    ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};

use crate::{
    error::{Error, Result},
    tls::{
        context::{Side, SslContext},
        errors::ssl_error,
    },
};

impl SslContext {
    /// For clients that trust whom this system trusts.
    ///
    /// The authorities' certificates are read once, at this call, from where this system keeps them (on Linux, where
    /// OpenSSL finds them); the environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR` name others. Keep the context
    /// and use it for all connections: to read them takes milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::Ssl`] if there are none, as in many small containers: install the system's package `ca-certificates`,
    /// or say whom to trust by [`SslContextBuilder::load_verify_locations`].
    ///
    /// asyncio: `ssl.create_default_context()`.
    pub fn client() -> Result<SslContext> {
        SslContext::client_builder().build()
    }

    /// For servers that show this certificate chain and have its key, both PEM files.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with the path, if a file cannot be read; [`Error::Ssl`] if it has no certificate or no key, or if
    /// the two do not belong together.
    ///
    /// # Examples
    ///
    /// ```
    /// let missing = asyncio::SslContext::server("no-such-chain.pem", "no-such-key.pem").unwrap_err();
    /// assert!(missing.to_string().contains("no-such-chain.pem"));
    /// ```
    ///
    /// asyncio: `ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)` and `load_cert_chain`.
    pub fn server(certfile: impl AsRef<Path>, keyfile: impl AsRef<Path>) -> Result<SslContext> {
        SslContext::server_builder().load_cert_chain(certfile, keyfile).build()
    }

    /// For clients, setting by setting.
    ///
    /// asyncio: `ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)`.
    pub fn client_builder() -> SslContextBuilder {
        SslContextBuilder::client()
    }

    /// For servers, setting by setting.
    ///
    /// asyncio: `ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)`.
    pub fn server_builder() -> SslContextBuilder {
        SslContextBuilder::server()
    }
}

/// Whether a server asks its clients for certificates.
///
/// asyncio: `ssl.VerifyMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum VerifyMode {
    /// Not asked for. (`ssl.CERT_NONE`)
    #[default]
    None,
    /// Asked for, and must be good if it is shown. (`ssl.CERT_OPTIONAL`)
    Optional,
    /// Must be shown and be good. (`ssl.CERT_REQUIRED`)
    ///
    /// With TLS 1.3 a client's handshake is over before the server has looked at its certificate: a client that is
    /// refused is connected first, and `connection_lost` gets the [`Error::Ssl`] a little later.
    Required,
}

/// A version of TLS.
///
/// asyncio: `ssl.TLSVersion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// 1.2
    V1_2,
    /// 1.3
    V1_3,
}

/// An [`SslContext`] in the making: setters, and [`build`](Self::build).
///
/// Setters are chained. Nothing is read and nothing fails before `build`.
///
/// # Examples
///
/// A server with a certificate of its own, and a client that trusts nothing else:
///
/// ```
/// use asyncio::SslContext;
///
/// let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
/// let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// let server = SslContext::server_builder().cert_chain_pem(&chain, &key).set_alpn_protocols(["h2"]).build()?;
/// let client = SslContext::client_builder().verify_pem(&chain).set_alpn_protocols(["h2", "http/1.1"]).build()?;
/// # let _ = (server, client);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// asyncio: an `ssl.SSLContext` before it is used.
#[must_use = "it is not a context until it is built"]
#[derive(Clone)]
pub struct SslContextBuilder {
    is_server: bool,
    roots: Vec<Pem>,
    default_roots: bool,
    chain: Option<(Pem, Pem)>,
    alpn_protocols: Vec<Vec<u8>>,
    versions: (TlsVersion, TlsVersion),
    verify_mode: Option<VerifyMode>,
    resumption: bool,
    check_hostname: bool,
    verify_certificate: bool,
}

/// Where PEM text is.
#[derive(Clone)]
enum Pem {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl SslContextBuilder {
    pub(super) fn client() -> Self {
        SslContextBuilder {
            is_server: false,
            roots: Vec::new(),
            default_roots: false,
            chain: None,
            alpn_protocols: Vec::new(),
            versions: (TlsVersion::V1_2, TlsVersion::V1_3),
            verify_mode: None,
            resumption: true,
            check_hostname: true,
            verify_certificate: true,
        }
    }

    pub(super) fn server() -> Self {
        SslContextBuilder { is_server: true, ..SslContextBuilder::client() }
    }

    /// Trusts the certificates of this PEM file, too. A client that is given any trusts no others, unless
    /// [`load_default_certs`](Self::load_default_certs) is called as well. At a server it is about its clients, and goes
    /// with [`verify_mode`](Self::verify_mode).
    ///
    /// asyncio: `SSLContext.load_verify_locations(cafile)`.
    pub fn load_verify_locations(mut self, cafile: impl AsRef<Path>) -> Self {
        self.roots.push(Pem::File(cafile.as_ref().to_owned()));
        self
    }

    /// As [`load_verify_locations`](Self::load_verify_locations), with the text itself.
    ///
    /// asyncio: `SSLContext.load_verify_locations(cadata=…)`.
    pub fn verify_pem(mut self, certificates: impl AsRef<[u8]>) -> Self {
        self.roots.push(Pem::Bytes(certificates.as_ref().to_owned()));
        self
    }

    /// Trusts whom this system trusts, too. A client that is given nobody to trust does so anyway.
    ///
    /// asyncio: `SSLContext.load_default_certs`.
    pub fn load_default_certs(mut self) -> Self {
        self.default_roots = true;
        self
    }

    /// What to show to the other side: two PEM files, one with the certificate, followed by those that lead to one that
    /// the other side trusts, and one with the key. Servers need it; clients need it where servers ask for it. The last
    /// call counts. Keys are RSA from 2048 bits on, P-256, P-384 or Ed25519, and not encrypted.
    ///
    /// asyncio: `SSLContext.load_cert_chain(certfile, keyfile)`. Differs: one chain; for certificates by name or kind see
    /// rustls' `ResolvesServerCert`.
    pub fn load_cert_chain(mut self, certfile: impl AsRef<Path>, keyfile: impl AsRef<Path>) -> Self {
        self.chain = Some((Pem::File(certfile.as_ref().to_owned()), Pem::File(keyfile.as_ref().to_owned())));
        self
    }

    /// As [`load_cert_chain`](Self::load_cert_chain), with the texts themselves.
    ///
    /// asyncio: has none; Python wants files.
    pub fn cert_chain_pem(mut self, certificates: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.chain = Some((Pem::Bytes(certificates.as_ref().to_owned()), Pem::Bytes(key.as_ref().to_owned())));
        self
    }

    /// The protocols to speak over TLS (ALPN), the best first. [`ALPN_PROTOCOL`](crate::ALPN_PROTOCOL) tells which one
    /// both sides have agreed on: the first of the server's that the client has. A server that has some refuses clients
    /// that offer only others.
    ///
    /// asyncio: `SSLContext.set_alpn_protocols`. Differs: OpenSSL's server goes on without a protocol where none fits.
    pub fn set_alpn_protocols<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn_protocols = protocols.into_iter().map(|protocol| protocol.as_ref().to_owned()).collect();
        self
    }

    /// Whether a server asks clients for certificates; it does not, unless told to. Whom it trusts must be given, too.
    ///
    /// A client always verifies, and anything but [`VerifyMode::Required`] is an error of its
    /// [`build`](Self::build); [`dangerous_disable_certificate_verification`](
    /// Self::dangerous_disable_certificate_verification) is the only way around.
    ///
    /// asyncio: `SSLContext.verify_mode`.
    pub fn verify_mode(mut self, mode: VerifyMode) -> Self {
        self.verify_mode = Some(mode);
        self
    }

    /// The oldest version to speak; 1.2 unless it is set.
    ///
    /// asyncio: `SSLContext.minimum_version`.
    pub fn minimum_version(mut self, version: TlsVersion) -> Self {
        self.versions.0 = version;
        self
    }

    /// The newest version to speak; 1.3 unless it is set.
    ///
    /// asyncio: `SSLContext.maximum_version`.
    pub fn maximum_version(mut self, version: TlsVersion) -> Self {
        self.versions.1 = version;
        self
    }

    /// Whether sessions are resumed, which saves a later connection of the same context half of its handshake; on,
    /// unless switched off. A client remembers the sessions of its last 256 servers, a server gives its clients
    /// tickets.
    ///
    /// asyncio: `ssl.OP_NO_TICKET`, and `SSLSession`. Differs: asyncio's clients never resume a session.
    pub fn session_resumption(mut self, resume: bool) -> Self {
        self.resumption = resume;
        self
    }

    /// **Dangerous.** A client takes any certificate by anybody whom it trusts, whatever name it is for: whoever has a
    /// certificate for some web site can be the server. `server_hostname` may be missing or empty then.
    ///
    /// asyncio: `SSLContext.check_hostname = False`.
    pub fn dangerous_disable_hostname_check(mut self) -> Self {
        self.check_hostname = false;
        self
    }

    /// **Dangerous.** A client takes any certificate, of any name and by anybody: the connection is encrypted, and
    /// nobody knows to whom. For tests, and nothing else.
    ///
    /// asyncio: `SSLContext.verify_mode = ssl.CERT_NONE`, and `check_hostname = False`.
    pub fn dangerous_disable_certificate_verification(mut self) -> Self {
        self.verify_certificate = false;
        self
    }

    /// Makes the context.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with the path, if a file cannot be read. [`Error::Ssl`] if one has no certificate or no key, if
    /// key and certificate do not belong together, if a certificate cannot be used, and if a client finds nobody to
    /// trust. [`Error::Value`] for settings that contradict each other, and for what is missing: a server's
    /// certificate, or whom a server trusts that asks for certificates.
    pub fn build(self) -> Result<SslContext> {
        if self.alpn_protocols.iter().any(|protocol| !(1..=255).contains(&protocol.len())) {
            return Err(Error::Value("ALPN protocols must be 1 to 255 bytes long".into()));
        }
        let provider = Arc::new(ring::default_provider());
        if self.is_server { self.build_server(provider) } else { self.build_client(provider) }
    }

    fn build_client(self, provider: Arc<CryptoProvider>) -> Result<SslContext> {
        if self.verify_mode.is_some_and(|mode| mode != VerifyMode::Required) {
            return Err(Error::Value(
                "a client must verify: dangerous_disable_certificate_verification() is the way around".into(),
            ));
        }
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.protocol_versions()?)
            .map_err(|error| ssl_error(&error))?;
        let verifier: Arc<dyn ServerCertVerifier> = if self.verify_certificate {
            let roots = self.root_store(self.default_roots || self.roots.is_empty())?;
            let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .map_err(|error| Error::Ssl(error.to_string().into()))?;
            if self.check_hostname { verifier } else { Arc::new(AnyName(verifier)) }
        } else {
            // What was given must be good, also where nobody needs it.
            self.given_roots()?;
            Arc::new(Anybody(provider))
        };
        let config = config.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match self.chain()? {
            Some((chain, key)) => {
                config.with_client_auth_cert(chain, key).map_err(|error| self.unusable_chain(&error))?
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn_protocols;
        config.key_log = Arc::new(KeyLogFile::new());
        if !self.resumption {
            config.resumption = Resumption::disabled();
        }
        let checks_hostname = self.check_hostname && self.verify_certificate;
        Ok(SslContext { side: Side::Client(Arc::new(config)), checks_hostname })
    }

    fn build_server(self, provider: Arc<CryptoProvider>) -> Result<SslContext> {
        if !self.verify_certificate || !self.check_hostname {
            return Err(Error::Value(
                "a server has no server's certificate to check: verify_mode() is about clients".into(),
            ));
        }
        if self.verify_mode.is_none() && (self.default_roots || !self.roots.is_empty()) {
            return Err(Error::Value(
                "whom to trust was given, but not whether clients are asked for certificates: see verify_mode()".into(),
            ));
        }
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.protocol_versions()?)
            .map_err(|error| ssl_error(&error))?;
        let mode = self.verify_mode.unwrap_or_default();
        let config = if mode == VerifyMode::None {
            // What was given must be good, also where nobody needs it.
            self.given_roots()?;
            config.with_no_client_auth()
        } else {
            let roots = self.root_store(self.default_roots)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier = if mode == VerifyMode::Optional { verifier.allow_unauthenticated() } else { verifier };
            config.with_client_cert_verifier(verifier.build().map_err(|error| Error::Ssl(error.to_string().into()))?)
        };
        let (chain, key) = self
            .chain()?
            .ok_or_else(|| Error::Value("a server needs a certificate: load_cert_chain() was not called".into()))?;
        let mut config = config.with_single_cert(chain, key).map_err(|error| self.unusable_chain(&error))?;
        config.alpn_protocols = self.alpn_protocols;
        config.key_log = Arc::new(KeyLogFile::new());
        if self.resumption {
            // The clients keep what is needed, however many they are.
            config.ticketer = ring::Ticketer::new().map_err(|error| ssl_error(&error))?;
        } else {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(SslContext { side: Side::Server(Arc::new(config)), checks_hostname: false })
    }

    fn protocol_versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>> {
        use rustls::version::{TLS12, TLS13};
        match self.versions {
            (TlsVersion::V1_2, TlsVersion::V1_3) => Ok(vec![&TLS13, &TLS12]),
            (TlsVersion::V1_2, TlsVersion::V1_2) => Ok(vec![&TLS12]),
            (TlsVersion::V1_3, TlsVersion::V1_3) => Ok(vec![&TLS13]),
            (oldest, newest) => {
                Err(Error::Value(format!("minimum_version {oldest:?} is above maximum_version {newest:?}").into()))
            }
        }
    }

    /// Whom to trust, of those that were given.
    fn given_roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for pem in &self.roots {
            for certificate in pem.certificates()? {
                let added = roots.add(certificate);
                added.map_err(|error| Error::Ssl(format!("{pem}: a certificate cannot be used: {error}").into()))?;
            }
        }
        Ok(roots)
    }

    /// Whom to trust.
    fn root_store(&self, with_default: bool) -> Result<RootCertStore> {
        let mut roots = self.given_roots()?;
        if with_default {
            let found = rustls_native_certs::load_native_certs();
            // Systems have some that are too old to be understood.
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
                let text =
                    format!("this system has no certificates to trust, and none were given [{}]", errors.join("; "));
                return Err(Error::Ssl(text.into()));
            }
        }
        if roots.is_empty() {
            return Err(Error::Value("whom to trust was not given: load_verify_locations() was not called".into()));
        }
        Ok(roots)
    }

    fn chain(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
        let Some((chain, key)) = &self.chain else { return Ok(None) };
        Ok(Some((chain.certificates()?, key.private_key()?)))
    }

    fn unusable_chain(&self, error: &RustlsError) -> Error {
        let why = match error {
            // Which is how rustls says it.
            RustlsError::General(text) if text.contains("private key") => {
                "its kind of key is not supported: RSA from 2048 bits on, P-256, P-384 and Ed25519 are".to_owned()
            }
            error => ssl_error(error).to_string(),
        };
        let places = self.chain.as_ref().map(|(chain, key)| format!("{chain} and {key}")).unwrap_or_default();
        Error::Ssl(format!("the certificate and its key ({places}) cannot be used: {why}").into())
    }
}

impl Pem {
    fn read(&self) -> Result<Vec<u8>> {
        match self {
            Pem::Bytes(bytes) => Ok(bytes.clone()),
            Pem::File(path) => std::fs::read(path).map_err(|error| Error::io(error, path.display().to_string())),
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>> {
        let text = self.read()?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let certificates = certificates.map_err(|error| self.no_pem(&error))?;
        if certificates.is_empty() {
            return Err(Error::Ssl(format!("{self}: there is no PEM certificate in it").into()));
        }
        Ok(certificates)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>> {
        let text = self.read()?;
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
            _ if text.windows(9).any(|word| word == b"ENCRYPTED") => {
                Error::Ssl(format!("{self}: the private key is encrypted, which is not supported").into())
            }
            pem::Error::NoItemsFound => Error::Ssl(format!("{self}: there is no PEM private key in it").into()),
            error => self.no_pem(&error),
        })
    }

    fn no_pem(&self, error: &pem::Error) -> Error {
        Error::Ssl(format!("{self}: it is no PEM: {error}").into())
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => write!(f, "{}", path.display()),
            Pem::Bytes(_) => f.write_str("the PEM text"),
        }
    }
}

impl fmt::Debug for SslContextBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.is_server { "server" } else { "client" };
        f.debug_struct("SslContextBuilder").field("side", &side).finish_non_exhaustive()
    }
}

/// Verifies everything but the name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is what is looked at last.
            Err(RustlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Verifies only that the other side has the key of the certificate that it shows.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
