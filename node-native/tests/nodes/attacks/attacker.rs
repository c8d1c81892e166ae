//! What attackers are made of: connections from wherever they like, WebSocket frames as they like, handshakes with valid keys,
//! and any frames over them.

use crate::support::{REGISTRY, key_of, name};
use bytes::{Bytes, BytesMut};
use ed25519_dalek::Signer as _;
use node_core::{
    Code, Name, Timestamp,
    channel::{Channel, HelloInfo, Identity, Local, RECORD, SignerTrust, initiator},
    wire::frame::{Attach, AttachStatus, Frame, next},
};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) const UPGRADE: &str = "GET /nectar HTTP/1.1\r\nhost: rho\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: nectar.1\r\n";

/// Opcodes of WebSocket frames.
pub(super) const CONTINUED: u8 = 0;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;

/// The `n`-th address that an attacker of many networks has.
pub(crate) fn somewhere(n: u32) -> Ipv4Addr {
    let [.., high, low] = n.to_be_bytes();
    Ipv4Addr::new(127, 200 + high % 50, low, 1)
}

/// A TCP connection from an address of the attacker's choice.
pub(super) async fn tcp(to: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// The whole answer to a request, from this machine.
pub(super) async fn get(at: SocketAddr, path: &str, headers: &str) -> String {
    get_from(Ipv4Addr::UNSPECIFIED, at, path, headers).await
}

/// The same from an address of the attacker's choice.
pub(super) async fn get_from(from: Ipv4Addr, at: SocketAddr, path: &str, headers: &str) -> String {
    let ask = async {
        let mut stream = tcp(at, from).await?;
        let request = format!("GET {path} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    in_time(ask).await.unwrap_or_default()
}

pub(super) async fn in_time<R>(future: impl Future<Output = R>) -> R {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it takes too long")
}

/// A WebSocket, byte by byte.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    read: BytesMut,
}

impl Wire {
    /// A connection that may become one.
    pub(super) fn of(stream: TcpStream) -> Self {
        let read = BytesMut::new();
        Self { stream, read }
    }

    /// Upgrades, with more headers than are needed if wanted; an error is the answer to any other request than a good one.
    pub(super) async fn upgrade(
        to: SocketAddr,
        from: Ipv4Addr,
        headers: &str,
    ) -> io::Result<(Self, String)> {
        in_time(async {
            let mut stream = tcp(to, from).await?;
            let request = format!("{UPGRADE}{headers}\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let read = BytesMut::new();
            if head.starts_with("HTTP/1.1 101") {
                Ok((Self { stream, read }, head))
            } else {
                Err(io::Error::other(head))
            }
        })
        .await
    }

    pub(super) async fn open(to: SocketAddr, from: Ipv4Addr) -> io::Result<Self> {
        Self::upgrade(to, from, "").await.map(|(wire, _)| wire)
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        in_time(self.stream.write_all(bytes)).await
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.write(&frame(0x80 | BINARY, message)).await
    }

    /// The next frame's opcode and payload.
    pub(super) async fn next(&mut self) -> io::Result<(u8, Bytes)> {
        in_time(async {
            loop {
                if let Some(frame) = self.parse() {
                    return Ok(frame);
                }
                if self.stream.read_buf(&mut self.read).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        })
        .await
    }

    fn parse(&mut self) -> Option<(u8, Bytes)> {
        let [first, short, ..] = self.read[..] else {
            return None;
        };
        let (head, length) = match short {
            126 => (
                4,
                usize::from(u16::from_be_bytes(self.read.get(2..4)?.try_into().ok()?)),
            ),
            127 => {
                let length = u64::from_be_bytes(self.read.get(2..10)?.try_into().ok()?);
                (10, usize::try_from(length).ok()?)
            }
            short => (2, usize::from(short)),
        };
        if self.read.len() < head + length {
            return None;
        }
        let _ = self.read.split_to(head);
        Some((first & 0x0f, self.read.split_to(length).freeze()))
    }

    /// The next message, or with which code the other side has closed; no code if it just went away.
    pub(super) async fn message(&mut self) -> Result<Bytes, Option<u16>> {
        loop {
            match self.next().await {
                Ok((BINARY, message)) => return Ok(message),
                Ok((CLOSE, said)) => {
                    let code = said.get(..2).and_then(|code| code.try_into().ok());
                    return Err(code.map(u16::from_be_bytes));
                }
                Ok(_) => {}
                Err(_) => return Err(None),
            }
        }
    }

    /// Waits for the end: with which code.
    pub(super) async fn closed(&mut self) -> Option<Code> {
        loop {
            if let Err(code) = self.message().await {
                return code.and_then(|code| Code::from_u16(code.checked_sub(4000)?));
            }
        }
    }
}

/// A frame as clients send it, masked with zeros.
pub(super) fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![head];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

/// A seed that no other handshake of this process has.
pub(super) fn seed() -> [u8; 32] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut seed = [0x5a; 32];
    seed[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    seed
}

/// Whoever calls: under a name, with the key that all know of it, or as a guest.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(super) name: Option<Name>,
    pub(super) key: ed25519_dalek::SigningKey,
    /// Its clock minus ours, in milliseconds.
    pub(super) skew: i64,
}

impl Caller {
    pub(crate) fn named(label: &str) -> Self {
        Self {
            name: Some(name(label)),
            key: key_of(label),
            skew: 0,
        }
    }

    pub(super) fn guest() -> Self {
        Self {
            name: None,
            ..Self::named("nobody")
        }
    }

    pub(super) fn clock(&self) -> Timestamp {
        Timestamp(now().0.saturating_add_signed(self.skew))
    }

    pub(super) fn dial(&self, target: &str) -> (initiator::AwaitMessage2, Vec<u8>) {
        let key = match self.name {
            Some(_) => self.key.verifying_key().to_bytes(),
            None => [0; 32],
        };
        let local = Local {
            identity: Identity {
                name: self.name.clone(),
                key,
            },
            hello: HelloInfo::default(),
            registries: [REGISTRY].into(),
            clock_window: Duration::from_secs(1 << 40),
            signer: SignerTrust::default(),
        };
        let theirs = key_of(target).verifying_key().to_bytes();
        initiator::start(Arc::new(local), name(target), theirs, seed())
    }

    /// Message 3 and the channel.
    pub(super) fn conclude(
        &self,
        dialling: initiator::AwaitMessage2,
        message2: &[u8],
    ) -> (Vec<u8>, Channel) {
        let state = dialling.handle(message2, self.clock()).unwrap();
        let signature = state
            .request()
            .map(|request| self.key.sign(&request.message()).to_bytes());
        state.signed(signature).unwrap()
    }

    /// Connects to a node and proves who it is; an error is the code with which that ended.
    pub(crate) async fn enter(
        &self,
        to: SocketAddr,
        from: Ipv4Addr,
        target: &str,
    ) -> Result<Peer, Option<Code>> {
        let ended =
            |code: Option<u16>| code.and_then(|code| Code::from_u16(code.checked_sub(4000)?));
        let mut wire = Wire::open(to, from).await.map_err(|_| None)?;
        let (dialling, message1) = self.dial(target);
        wire.send(&message1).await.map_err(|_| None)?;
        let message2 = wire.message().await.map_err(ended)?;
        if let [4, high, low, ..] = message2[..] {
            return Err(Code::from_u16(u16::from_be_bytes([high, low])));
        }
        let (message3, channel) = self.conclude(dialling, &message2);
        wire.send(&message3).await.map_err(|_| None)?;
        let mut peer = Peer { wire, channel };
        let attach = attach(&peer.channel);
        peer.say(&[attach]).await.map_err(|_| None)?;
        // What it says first is its own ATTACH, or why it does not want us.
        let said = peer.hear().await.map_err(ended)?;
        match &said[..] {
            [Frame::Attach(_), ..] => Ok(peer),
            [Frame::Close(code, _), ..] => Err(Some(*code)),
            other => panic!("{other:?}"),
        }
    }
}

/// Somebody with a session, who says what he likes.
pub(crate) struct Peer {
    pub(super) wire: Wire,
    channel: Channel,
}

impl Peer {
    pub(super) fn seal(&mut self, frames: &[Frame]) -> Vec<u8> {
        seal(&mut self.channel, frames)
    }

    pub(crate) async fn say(&mut self, frames: &[Frame]) -> io::Result<()> {
        let record = self.seal(frames);
        self.wire.send(&record).await
    }

    /// The frames of the next record.
    pub(super) async fn hear(&mut self) -> Result<Vec<Frame>, Option<u16>> {
        let record = self.wire.message().await?;
        if let [4, high, low, ..] = record[..] {
            return Err(Some(4000 + u16::from_be_bytes([high, low])));
        }
        Ok(opened(&mut self.channel, &record))
    }

    /// Hears until something comes that is looked for.
    pub(crate) async fn until<R>(
        &mut self,
        mut wanted: impl FnMut(&Frame) -> Option<R>,
    ) -> Result<R, Option<Code>> {
        loop {
            let frames = self
                .hear()
                .await
                .map_err(|code| code.and_then(|code| Code::from_u16(code.checked_sub(4000)?)))?;
            for frame in &frames {
                if let Some(found) = wanted(frame) {
                    return Ok(found);
                }
                if let Frame::Close(code, _) = frame {
                    return Err(Some(*code));
                }
            }
        }
    }
}

/// A circuit that ends with somebody else, and the channel over it.
pub(super) struct Inner {
    cid: u32,
    channel: Channel,
}

impl Peer {
    /// Opens a circuit to `target` and proves there who we are; an error is the code with which that ended.
    pub(super) async fn through(
        &mut self,
        caller: &Caller,
        cid: u32,
        target: &str,
    ) -> Result<Inner, Option<Code>> {
        let (dialling, first) = caller.dial(target);
        let open = Frame::Open {
            cid,
            window: 1 << 20,
            hide: false,
            to: name(target),
            first: first.into(),
        };
        self.say(&[open]).await.map_err(|_| None)?;
        let message2 = self.circuit_data().await?;
        let (message3, channel) = caller.conclude(dialling, &message2);
        let data = message3.into();
        let said = self.say(&[Frame::CircuitData { cid, data }]).await;
        said.map_err(|_| None)?;
        let mut inner = Inner { cid, channel };
        let attach = attach(&inner.channel);
        self.inside(&mut inner, &[attach]).await;
        let record = self.circuit_data().await?;
        match &opened(&mut inner.channel, &record)[..] {
            [Frame::Attach(_), ..] => Ok(inner),
            [Frame::Close(code, _), ..] => Err(Some(*code)),
            other => panic!("{other:?}"),
        }
    }

    /// Says something over the inner channel.
    pub(super) async fn inside(&mut self, inner: &mut Inner, frames: &[Frame]) {
        let data = seal(&mut inner.channel, frames).into();
        let cid = inner.cid;
        self.say(&[Frame::CircuitData { cid, data }]).await.unwrap();
    }

    /// What comes over the only circuit that there is, unless it is a refusal, or the end of it.
    async fn circuit_data(&mut self) -> Result<Bytes, Option<Code>> {
        let data = self.until(|frame| match frame {
            Frame::CircuitData { data, .. } => Some(match data[..] {
                [4, high, low, ..] => Err(Code::from_u16(u16::from_be_bytes([high, low]))),
                _ => Ok(data.clone()),
            }),
            Frame::CircuitClose { code, .. } => Some(Err(Code::from_u16(*code))),
            _ => None,
        });
        data.await?
    }
}

fn attach(channel: &Channel) -> Frame {
    let mut sid = [0; 16];
    sid.copy_from_slice(&channel.export("session id")[..16]);
    Frame::Attach(Box::new(Attach {
        status: AttachStatus::Fresh,
        sid,
        attempt: 0,
        recv_off: 0,
        send_off: 0,
        instance: [9; 16],
        proof: [0; 32],
        agent: "".into(),
    }))
}

fn seal(channel: &mut Channel, frames: &[Frame]) -> Vec<u8> {
    let mut record = BytesMut::from(&[RECORD][..]);
    for frame in frames {
        record.extend_from_slice(&frame.encode());
    }
    channel.seal(&mut record).unwrap();
    record.to_vec()
}

fn opened(channel: &mut Channel, record: &[u8]) -> Vec<Frame> {
    let mut frames = channel.open(BytesMut::from(record)).unwrap().freeze();
    let mut heard = Vec::new();
    while let Some((_, _, frame)) = next(&mut frames).unwrap() {
        heard.extend(frame);
    }
    heard
}

/// A request for an echo.
pub(super) fn request(id: u64, payload: &[u8]) -> Frame {
    Frame::Request {
        id,
        deadline_ms: 60_000,
        total: u32::try_from(payload.len()).unwrap(),
        protocol: "echo.1".into(),
        metadata: None,
        data: Bytes::copy_from_slice(payload),
    }
}

/// Asks for a circuit to somebody, with something that may be a first message.
pub(super) fn open(cid: u32, to: &str) -> Frame {
    Frame::Open {
        cid,
        window: 1 << 20,
        hide: false,
        to: name(to),
        first: Bytes::from(vec![1; 1218]),
    }
}
