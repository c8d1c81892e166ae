//! Somebody on the way: what passes to a node's address and back is delayed, split and merged, and harmed when a scenario
//! says so.

use nectar_sim::{
    Dice,
    world::{End, Harm, Ways},
};
use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::Notify,
    task::JoinHandle,
    time::Instant,
};

/// Longest that anything is held back, each way, in milliseconds. Every connection has a longest delay of its own below, a
/// short one more often than a long one.
const DELAY: u64 = 20;

/// What is held back at most before nothing more is read. 1 MiB.
const HELD: usize = 1 << 20;

/// The least that must have come at once for a byte of it to be altered: bulk, and so a record's inside rather than what
/// frames it.
const BULK: usize = 1 << 10;

/// A proxy at the address that others know; the node listens elsewhere. It accepts as long as its node does.
pub(crate) struct Proxy {
    accepting: JoinHandle<()>,
    passages: Arc<Mutex<Vec<Arc<Passage>>>>,
}

/// What is to be done to one connection.
#[derive(Default)]
struct Passage {
    cut: Notify,
    /// The end that is told nothing of it.
    spared: Mutex<Option<End>>,
    there: Direction,
    back: Direction,
}

/// What is to be done to one direction of it.
#[derive(Default)]
struct Direction {
    alter: AtomicBool,
    swallow: AtomicBool,
    stall: AtomicBool,
}

impl Passage {
    fn of(&self, ways: Ways) -> impl Iterator<Item = &Direction> {
        let there = (ways != Ways::Back).then_some(&self.there);
        let back = (ways != Ways::There).then_some(&self.back);
        there.into_iter().chain(back)
    }
}

impl Proxy {
    /// Passes what comes to `known` on to `node`. What is chosen by chance is the same for the same `seed`, as far as the
    /// kernel lets it.
    pub(crate) async fn start(known: SocketAddr, node: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind(known).await.unwrap();
        let passages = Arc::<Mutex<Vec<Arc<Passage>>>>::default();
        let known = passages.clone();
        let accepting = tokio::spawn(async move {
            let mut dice = Dice::new(seed);
            while let Ok((stream, _)) = listener.accept().await {
                let passage = Arc::<Passage>::default();
                known.lock().unwrap().push(passage.clone());
                let dice = Dice::new(dice.roll(u64::MAX));
                tokio::spawn(async move { pass(stream, node, &passage, dice).await });
            }
        });
        Self {
            accepting,
            passages,
        }
    }

    /// How many connections there have been.
    pub(crate) fn opened(&self) -> usize {
        self.passages.lock().unwrap().len()
    }

    /// Harms some of the connections that there have been, in the order in which they were opened.
    pub(crate) fn harm(&self, which: Range<usize>, harm: Harm) {
        for passage in &self.passages.lock().unwrap()[which] {
            match harm {
                Harm::Cut => passage.cut.notify_one(),
                Harm::CutFor(end) => {
                    let spared = match end {
                        End::Node => End::Dialler,
                        End::Dialler => End::Node,
                    };
                    *passage.spared.lock().unwrap() = Some(spared);
                    passage.cut.notify_one();
                }
                Harm::Alter => passage.there.alter.store(true, Ordering::Relaxed),
                Harm::Swallow(ways) => {
                    for direction in passage.of(ways) {
                        direction.swallow.store(true, Ordering::Relaxed);
                    }
                }
                Harm::Stall(ways) => {
                    for direction in passage.of(ways) {
                        direction.stall.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// Lets the address go. Connections go on until both sides have ended.
    pub(crate) async fn end(self) {
        self.accepting.abort();
        let _ = self.accepting.await;
    }
}

/// Passes bytes on until both sides have ended, or somebody cuts the wire.
async fn pass(mut near: TcpStream, node: SocketAddr, passage: &Passage, mut dice: Dice) {
    let Ok(mut far) = TcpStream::connect(node).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let [there, back] = [dice.roll(u64::MAX), dice.roll(u64::MAX)].map(Dice::new);
    let cut = {
        let (from, into) = near.split();
        let (out, to) = far.split();
        tokio::select! {
            _ = async { tokio::try_join!(carry(from, to, &passage.there, there), carry(out, into, &passage.back, back)) } => false,
            () = passage.cut.notified() => true,
        }
    };
    if cut {
        // Those that are told are reset.
        for stream in [&near, &far] {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        let spared = *passage.spared.lock().unwrap();
        let mut other = match spared {
            None => return,
            Some(End::Dialler) => {
                drop(far);
                near
            }
            Some(End::Node) => {
                drop(near);
                far
            }
        };
        let _ = tokio::io::copy(&mut other, &mut tokio::io::sink()).await;
    }
}

/// One direction.
async fn carry(
    mut from: ReadHalf<'_>,
    mut into: WriteHalf<'_>,
    harm: &Direction,
    mut dice: Dice,
) -> io::Result<()> {
    let longest = 1 + dice.roll(DELAY).min(dice.roll(DELAY));
    let mut buffer = vec![0; HELD / 16];
    let mut queue = VecDeque::<(Instant, Vec<u8>)>::new();
    let (mut held, mut last, mut ended) = (0, Instant::now(), false);
    loop {
        if ended && queue.is_empty() {
            return into.shutdown().await;
        }
        let next = queue.front().map(|(due, _)| *due);
        let size = odd(&mut dice);
        tokio::select! {
            read = from.read(&mut buffer[..size]),
                if !ended && held < HELD && !harm.stall.load(Ordering::Relaxed) =>
            {
                if harm.swallow.load(Ordering::Relaxed) {
                    if !matches!(read, Ok(1..)) {
                        // Nor is anybody told that this end has gone.
                        std::future::pending::<()>().await;
                    }
                    continue;
                }
                let read = &mut buffer[..read?];
                ended = read.is_empty();
                let bulk = read.len() >= BULK;
                if bulk && harm.alter.swap(false, Ordering::Relaxed) {
                    read[read.len() / 2] ^= 1 << dice.roll(8);
                }
                held += read.len();
                // In order, whatever the delay of each.
                last = last.max(Instant::now() + Duration::from_millis(dice.roll(longest + 1)));
                queue.push_back((last, read.to_vec()));
            }
            () = tokio::time::sleep_until(next.unwrap_or(last)), if next.is_some() => {
                let mut due = Vec::new();
                while let Some((_, bytes)) = queue.pop_front_if(|(due, _)| *due <= Instant::now()) {
                    due.extend(bytes);
                }
                held -= due.len();
                let mut rest = &due[..];
                while !rest.is_empty() {
                    let (piece, others) = rest.split_at(odd(&mut dice).min(rest.len()));
                    into.write_all(piece).await?;
                    rest = others;
                }
            }
            // It is stalled, and has passed on what it had taken.
            else => std::future::pending::<()>().await,
        }
    }
}

/// A size at which nobody would split: a few bytes, about a packet, or many packets.
fn odd(dice: &mut Dice) -> usize {
    1 + match dice.roll(4) {
        0 => dice.index(15),
        1 => dice.index(1500),
        _ => dice.index(16 << 10),
    }
}
