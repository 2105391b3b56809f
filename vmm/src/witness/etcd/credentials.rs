//! What a host shows to etcd, and by what it recognises etcd: certificates, a TLS key, a user's password.

use crate::files::{FileError, input};
use crate::limits::{PASSWORD_FILE_BYTES_MAX, TLS_FILE_BYTES_MAX};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use zeroize::Zeroizing;

/// Files with what a host shows to etcd, and by what it recognises etcd.
#[derive(Clone, Debug, Default)]
pub struct CredentialFiles {
    /// Certificates of the authorities that sign the servers' certificates, PEM. Required for TLS.
    pub authority: Option<PathBuf>,
    /// This host's certificate, PEM.
    pub certificate: Option<PathBuf>,
    /// The key of this host's certificate, PEM.
    pub key: Option<PathBuf>,
    /// A user and its password, `USER:PASSWORD`.
    pub password: Option<PathBuf>,
}

impl CredentialFiles {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        let CredentialFiles { authority, certificate, key, password } = self;
        [authority, certificate, key, password].into_iter().all(Option::is_none)
    }
}

/// Why credentials can't be used. No message contains any part of a secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FileError,
    },
    /// A file with a secret can't be used.
    #[error("{} {fault}", path.display())]
    Private {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: FileError,
    },
    /// A file does not contain what it must.
    #[error("{} does not contain {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it must contain.
        expected: &'static str,
    },
    /// The key and the certificate do not belong together.
    #[error("{} does not contain the key of {}", key.display(), certificate.display())]
    OtherKey {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificate.
        certificate: PathBuf,
    },
    /// The authority's certificate is missing.
    #[error(
        "etcds:// needs --witness-ca FILE with the certificate that signed those of the servers"
    )]
    NoAuthority,
    /// There are certificates, but no TLS.
    #[error("--witness-ca, --witness-cert and --witness-key need etcds://")]
    NoTls,
    /// Only one of certificate and key.
    #[error("--witness-cert and --witness-key need each other")]
    Half,
}

/// By what the servers can tell a host of the pair from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A user and its password. Servers that check no passwords have no answer.
    Password,
    /// A certificate. It is not known whether the servers require one.
    Certificate,
    /// Nothing.
    Nothing,
}

/// A user of etcd.
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: Zeroizing<String>,
}

/// What a host shows to etcd, and by what it recognises etcd.
pub struct Credentials {
    /// `None` without TLS.
    pub(super) tls: Option<TlsConfig>,
    pub(super) user: Option<User>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the files for servers that are reached over TLS, or not.
    ///
    /// # Errors
    ///
    /// A file can't be read or does not contain what it must, or files are missing or do not go together.
    pub fn read(files: &CredentialFiles, is_tls: bool) -> Result<Credentials, CredentialError> {
        let CredentialFiles { authority, certificate, key, password } = files;
        let tls = match (is_tls, authority) {
            (true, Some(authority)) => Some(tls(authority, (certificate, key))?),
            (true, None) => return Err(CredentialError::NoAuthority),
            (false, None) if certificate.is_none() && key.is_none() => None,
            (false, _) => return Err(CredentialError::NoTls),
        };
        let user = password.as_deref().map(user).transpose()?;
        Ok(Credentials { tls, user })
    }

    /// Returns by what the servers can tell this host from others.
    pub(super) fn proof(&self) -> Proof {
        match (&self.user, self.tls.as_ref().and_then(TlsConfig::client_cert)) {
            (Some(_), _) => Proof::Password,
            (None, Some(_)) => Proof::Certificate,
            (None, None) => Proof::Nothing,
        }
    }
}

fn tls(
    authority: &Path,
    own: (&Option<PathBuf>, &Option<PathBuf>),
) -> Result<TlsConfig, CredentialError> {
    let roots = certificates(authority)?;
    let mut store = RootCertStore::empty();
    for root in &roots {
        store.add(root.clone()).map_err(|_| not_certificates(authority))?;
    }
    let own = match own {
        (Some(certificate), Some(key)) => Some(client_certificate(certificate, key, store)?),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return Err(CredentialError::Half),
    };
    let roots = roots.iter().map(|root| Certificate::from_der(root).to_owned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::Specific(Arc::new(roots.collect())))
        .client_cert(own)
        .build())
}

/// Reads this host's certificate and its key. Checks them as the HTTP client does, which panics if they are invalid.
fn client_certificate(
    certificate: &Path,
    key: &Path,
    roots: RootCertStore,
) -> Result<ClientCert, CredentialError> {
    let chain = certificates(certificate)?;
    let pem = private(key, TLS_FILE_BYTES_MAX)?;
    let content =
        || CredentialError::Content { path: key.into(), expected: "a private key in PEM" };
    let checked = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| content())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|_| content())?.with_root_certificates(roots);
    builder.with_client_auth_cert(chain.clone(), checked).map_err(|_| {
        CredentialError::OtherKey { key: key.into(), certificate: certificate.into() }
    })?;
    let chain: Vec<_> = chain.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
    let key = PrivateKey::from_pem(&pem).map_err(|_| content())?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let error = |source| CredentialError::Read { path: path.into(), source };
    let pem = input::read(path, TLS_FILE_BYTES_MAX as u64).map_err(error)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(|| not_certificates(path))
}

fn not_certificates(path: &Path) -> CredentialError {
    CredentialError::Content { path: path.into(), expected: "certificates in PEM" }
}

fn private(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    input::read_secret(path, bytes_max)
        .map_err(|fault| CredentialError::Private { path: path.into(), fault })
}

fn user(path: &Path) -> Result<User, CredentialError> {
    let bytes = private(path, PASSWORD_FILE_BYTES_MAX)?;
    let text = str::from_utf8(&bytes).ok().map(|text| text.strip_suffix('\n').unwrap_or(text));
    let valid =
        text.and_then(|text| text.split_once(':')).filter(|(name, _)| !name.is_empty()).filter(
            |(name, word)| !name.contains(char::is_control) && !word.contains(char::is_control),
        );
    let expected = "one line USER:PASSWORD";
    let (name, password) =
        valid.ok_or_else(|| CredentialError::Content { path: path.into(), expected })?;
    Ok(User { name: name.into(), password: Zeroizing::new(password.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn user_and_password_are_read_from_a_private_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let read = || {
            let files = CredentialFiles { password: Some(path.clone()), ..Default::default() };
            Credentials::read(&files, false)
        };
        assert!(read().unwrap_err().to_string().contains("does not exist"));
        write(&path, "root:pass:word\n", 0o600);
        assert_eq!(read().unwrap().proof(), Proof::Password);
        let user = read().unwrap().user.unwrap();
        assert_eq!((user.name.as_str(), user.password.as_str()), ("root", "pass:word"));
        for text in ["", "secret", ":secret", "a:secret\nb", &"secret:".repeat(1000)] {
            write(&path, text, 0o600);
            let error = read().unwrap_err().to_string();
            assert!(!error.contains("secret") && !error.contains('\n'), "{error}");
        }
        write(&path, "root:secret", 0o640);
        let error = read().unwrap_err().to_string();
        assert!(error.contains("0640") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn certificates_go_with_tls_and_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca");
        let with = |authority: Option<&Path>| CredentialFiles {
            authority: authority.map(PathBuf::from),
            ..Default::default()
        };
        let error = |files: &CredentialFiles, is_tls| {
            Credentials::read(files, is_tls).unwrap_err().to_string()
        };
        assert!(error(&with(None), true).contains("--witness-ca"));
        assert!(error(&with(Some(&path)), false).contains("etcds://"));
        assert!(error(&with(Some(&path)), true).contains(path.to_str().unwrap()));
        let invalid = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "no certificate", invalid] {
            write(&path, text, 0o644);
            assert!(error(&with(Some(&path)), true).contains("certificates in PEM"), "{text}");
        }
    }
}
