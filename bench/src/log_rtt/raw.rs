use super::variant::*;
use crate::error::BenchError;
use crate::lan::{Host, INTERFACE};
use netpath::*;
pub(super) struct Raw(PacketPort, Vec<u8>);
impl Raw {
    pub(super) fn open(host: Host, wait: WaitPolicy) -> Result<Raw, BenchError> {
        let p = PacketPort::open(&PacketConfig {
            interface: INTERFACE.into(),
            receive: ReceivePath::Ring,
            wait,
        })?;
        let mut f = p.header_to(host.other().mac()).to_vec();
        f.resize(14 + std::env::var("RAWLEN").ok().and_then(|s| s.parse().ok()).unwrap_or(64), 0);
        Ok(Raw(p, f))
    }
    fn send(&mut self, n: u64) -> Result<(), BenchError> {
        self.1[14..14 + 64].copy_from_slice(&request(n));
        self.0.send(&self.1)?;
        self.0.flush()?;
        Ok(())
    }
    fn recv(&mut self, n: u64) -> Result<(), BenchError> {
        loop {
            self.0.wait(Some(std::time::Duration::from_micros(
                std::env::var("RAWTO").ok().and_then(|s| s.parse().ok()).unwrap_or(9000),
            )))?;
            if let Some(r) = self.0.receive_with(|f| check(&f[14..78], n))? {
                return r;
            }
        }
    }
}
impl Client for Raw {
    fn exchange(&mut self, _n: logchan::time::Time, number: u64) -> Result<(), BenchError> {
        self.send(number)?;

        let r = self.recv(number);

        r
    }
    fn rest(&mut self, until: logchan::time::Time) -> Result<(), BenchError> {
        std::thread::sleep(std::time::Duration::from_nanos(
            until.since(vmm::link::now()).as_nanos(),
        ));
        Ok(())
    }
}
impl Server for Raw {
    fn serve(&mut self, count: u64) -> Result<(), BenchError> {
        for n in 0..count {
            self.recv(n)?;
            self.send(n)?;
        }
        Ok(())
    }
}
