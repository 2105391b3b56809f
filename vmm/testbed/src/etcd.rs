//! A cluster of etcd servers, each a child process with a data folder of its own. It has nothing to do with the etcd
//! of the system.

use crate::{Namespace, TestbedError, command};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Port for clients.
pub const CLIENT_PORT: u16 = 2379;
/// Port for the other servers.
const PEER_PORT: u16 = 2380;

/// How the servers treat their clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtcdClients {
    /// Everybody, in the clear.
    Open,
    /// Over TLS, with a certificate that the cluster's authority signed ([`Etcd::certificate`]).
    Certified,
}

/// A cluster of etcd servers; killed and removed on drop.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<EtcdMember>,
    clients: EtcdClients,
    /// Dropped last.
    folder: TempDir,
}

#[derive(Debug)]
struct EtcdMember {
    address: String,
    /// Name of its namespace.
    namespace: String,
    process: Option<Child>,
}

impl Etcd {
    /// Starts a server for each namespace and address. Does not wait until they answer.
    ///
    /// # Errors
    ///
    /// If a file can't be made or a process can't be started.
    pub fn start(
        places: &[(&Namespace, &str)],
        clients: EtcdClients,
    ) -> Result<Etcd, TestbedError> {
        let folder = tempfile::Builder::new().prefix("understudy-etcd-").tempdir();
        let folder = folder.map_err(TestbedError::client("making a temporary folder"))?;
        let members = places.iter().map(|(namespace, address)| EtcdMember {
            address: address.to_string(),
            namespace: namespace.name().to_string(),
            process: None,
        });
        let mut etcd = Etcd { members: members.collect(), clients, folder };
        if clients == EtcdClients::Certified {
            etcd.make_certificates()?;
        }
        for n in 0..etcd.members.len() {
            etcd.start_member(n)?;
        }
        Ok(etcd)
    }

    /// Starts a server that was killed. It has its data.
    ///
    /// # Errors
    ///
    /// If the process can't be started.
    pub fn start_member(&mut self, n: usize) -> Result<(), TestbedError> {
        let peer = |member: &EtcdMember| format!("http://{}:{PEER_PORT}", member.address);
        let all = self.members.iter().enumerate();
        let all: Vec<_> = all.map(|(n, member)| format!("m{n}={}", peer(member))).collect();
        let member = &self.members[n];
        let (peer, client) = (peer(member), self.url(n));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &member.namespace, "etcd", "--name", &format!("m{n}")]);
        command.arg("--data-dir").arg(self.path(&format!("m{n}")));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
        if self.clients == EtcdClients::Certified {
            command.arg("--client-cert-auth");
            command.arg("--trusted-ca-file").arg(self.authority());
            command.arg("--cert-file").arg(self.certificate());
            command.arg("--key-file").arg(self.certificate_key());
        }
        let log = self.path(&format!("m{n}.log"));
        let log = File::options().append(true).create(true).open(log);
        let log = log.map_err(TestbedError::client("making a log file"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().map_err(|source| TestbedError::Spawn {
            command: "ip netns exec etcd".into(),
            source,
        })?;
        self.members[n].process = Some(process);
        Ok(())
    }

    /// Kills a server, as if its host had lost power.
    pub fn kill_member(&mut self, n: usize) {
        if let Some(mut process) = self.members[n].process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Returns the URL of a server.
    pub fn url(&self, n: usize) -> String {
        let scheme = match self.clients {
            EtcdClients::Open => "http",
            EtcdClients::Certified => "https",
        };
        format!("{scheme}://{}:{CLIENT_PORT}", self.members[n].address)
    }

    /// Returns the address of a witness with `prefix`, for `--witness`.
    pub fn witness(&self, prefix: &str) -> String {
        let scheme = match self.clients {
            EtcdClients::Open => "etcd",
            EtcdClients::Certified => "etcds",
        };
        let endpoints =
            self.members.iter().map(|member| format!("{}:{CLIENT_PORT}", member.address));
        format!("{scheme}://{}/{prefix}", endpoints.collect::<Vec<_>>().join(","))
    }

    /// Returns the file with the certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Returns the file with a certificate that the servers have, and that they accept.
    pub fn certificate(&self) -> PathBuf {
        self.path("etcd.pem")
    }

    /// Returns the file with the key of [`certificate`](Self::certificate).
    pub fn certificate_key(&self) -> PathBuf {
        self.path("etcd.key")
    }

    /// Returns the path of a file in the cluster's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Posts JSON to the gateway of server `n`, from the calling thread's namespace, with `token` if it is not empty.
    /// Returns the answer.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or answers with an error.
    pub fn post(
        &self,
        n: usize,
        (path, body): (&str, &str),
        token: &str,
    ) -> Result<String, TestbedError> {
        let url = format!("{}{path}", self.url(n));
        let header = format!("Authorization: {token}");
        let mut args = vec!["-sS", "--fail-with-body", "-m", "10", "-d", body, &url];
        if !token.is_empty() {
            args.extend(["-H", &header]);
        }
        let files = [self.authority(), self.certificate(), self.certificate_key()];
        let files = files.map(|path| path.to_string_lossy().into_owned());
        if self.clients == EtcdClients::Certified {
            args.extend(["--cacert", &files[0], "--cert", &files[1], "--key", &files[2]]);
        }
        command("curl", &args)
    }

    fn make_certificates(&self) -> Result<(), TestbedError> {
        make_authority(self.folder.path(), "ca")?;
        let path = |name: &str| self.path(name).to_string_lossy().into_owned();
        let addresses = self.members.iter().map(|member| format!("IP:{}", member.address));
        let addresses = addresses.collect::<Vec<_>>().join(",");
        // The gateway of a server is a client of the server itself, with the server's certificate.
        let extensions =
            format!("subjectAltName={addresses}\nextendedKeyUsage=serverAuth,clientAuth\n");
        fs::write(path("extensions"), extensions)
            .map_err(TestbedError::client("writing a certificate's extensions"))?;
        let (key, request) = (path("etcd.key"), path("etcd.csr"));
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let files = ["-keyout", &key, "-out", &request, "-subj", "/CN=etcd"];
        command("openssl", &[&["req"][..], &curve, &files].concat())?;
        let sign = ["x509", "-req", "-in", &request, "-days", "2", "-CAcreateserial"];
        let by = ["-CA", &path("ca.pem"), "-CAkey", &path("ca.key")];
        let made = ["-extfile", &path("extensions"), "-out", &path("etcd.pem")];
        command("openssl", &[&sign[..], &by, &made].concat())?;
        Ok(())
    }
}

/// Makes the certificate `<name>.pem` of an authority and its key in `folder`.
///
/// # Errors
///
/// If openssl fails.
pub fn make_authority(folder: &Path, name: &str) -> Result<(), TestbedError> {
    let path = |end: &str| folder.join(format!("{name}.{end}")).to_string_lossy().into_owned();
    let (key, certificate) = (path("key"), path("pem"));
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let files = ["-keyout", &key, "-out", &certificate, "-subj", "/CN=ca", "-days", "2"];
    command("openssl", &[&["req", "-x509"][..], &curve, &files].concat())?;
    Ok(())
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for n in 0..self.members.len() {
            self.kill_member(n);
        }
    }
}
