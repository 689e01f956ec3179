//! What the two sides tell each other beside the READs, as agents do over control: lines over tcp.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use anyhow::{Context, Result};
use mitosis::descriptor::{ArenaMap, ArenaNews, DcTarget};
use mitosis::fabric::ReadError;
use mitosis::fabric::tcp::TokenSource;
use mitosis::id::StreamToken;
use serde::{Deserialize, Serialize};

/// What a descriptor would say of the owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) seed: u64,
    pub(crate) read_key: [u8; 16],
    pub(crate) start: u64,
    pub(crate) bytes: usize,
    /// Of the page service.
    pub(crate) tcp: SocketAddr,
    /// With a card.
    pub(crate) rc: Option<Rc>,
}

/// What lies on the card.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Rc {
    pub(crate) listener: SocketAddr,
    pub(crate) map: ArenaMap,
    pub(crate) news: ArenaNews,
    /// With DC, too.
    pub(crate) target: Option<DcTarget>,
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct Side(Mutex<BufReader<TcpStream>>);

impl Side {
    pub(crate) fn connect(address: &str) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("no owner at {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Side(Mutex::new(BufReader::new(stream))))
    }

    pub(crate) fn ask<T: for<'a> Deserialize<'a>>(&self, what: &str) -> Result<T> {
        let mut stream = self.0.lock().map_err(|_| anyhow::anyhow!("an asker has panicked"))?;
        stream.get_mut().write_all(format!("{what}\n").as_bytes())?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl TokenSource for Side {
    fn token(&self, _agent: &str) -> Result<StreamToken, ReadError> {
        let token: Result<[u8; 32]> = self.ask("token");
        token.map(StreamToken).map_err(|error| ReadError::Unreachable(error.to_string()))
    }
}
