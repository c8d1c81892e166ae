//! Small messages that are sent when they are due, however late the answers to others are.

use crate::common::SMALL;
use bytes::Bytes;
use futures_util::FutureExt;
use node_native::node::{StreamReader, StreamWriter};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Until everybody is ready.
const LEAD: Duration = Duration::from_millis(20);

/// When each message is due: one on every stream in each round, evenly over its time.
#[derive(Clone, Copy)]
struct Schedule {
    begin: Instant,
    every: Duration,
    streams: u32,
    rounds: u32,
}

impl Schedule {
    fn due(&self, round: u32, place: u32) -> Instant {
        self.begin + self.every * round + self.every / self.streams * place
    }

    /// A thread and no timers of the runtime, which go by milliseconds.
    fn send(&self, writers: &mut [StreamWriter]) {
        let message = Bytes::from_static(&[7; SMALL]);
        for round in 0..self.rounds {
            for (place, writer) in (0..).zip(writers.iter_mut()) {
                let due = self.due(round, place);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let sent = writer.write_chunk(message.clone()).now_or_never();
                assert_eq!(sent, Some(Ok(())), "a stream has room for what is small");
            }
        }
    }

    /// The time from when each message of one stream was due until its answer was there.
    async fn hear(self, reader: &mut StreamReader, place: u32) -> Vec<Duration> {
        let mut times = Vec::with_capacity(self.rounds as usize);
        let mut heard = 0;
        for round in 0..self.rounds {
            while heard < SMALL {
                heard += reader.read_chunk().await.unwrap().unwrap().len();
            }
            heard -= SMALL;
            times.push(self.due(round, place).elapsed());
        }
        times
    }
}

/// So many rounds of a message and its answer on every stream, until all are answered. The streams come back in their order.
pub(crate) async fn exchange(
    streams: Vec<(StreamReader, StreamWriter)>,
    every: Duration,
    rounds: u32,
) -> (Vec<(StreamReader, StreamWriter)>, Vec<Duration>) {
    let schedule = Schedule {
        begin: Instant::now() + LEAD,
        every,
        streams: u32::try_from(streams.len()).unwrap(),
        rounds,
    };
    let (readers, mut writers): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
    let hearing: Vec<_> = (0..)
        .zip(readers)
        .map(|(place, mut reader)| {
            tokio::spawn(async move {
                let times = schedule.hear(&mut reader, place).await;
                (reader, times)
            })
        })
        .collect();
    let sending = tokio::task::spawn_blocking(move || {
        schedule.send(&mut writers);
        writers
    });
    let writers = sending.await.unwrap();
    let (mut streams, mut all) = (Vec::with_capacity(writers.len()), Vec::new());
    for (hearing, writer) in hearing.into_iter().zip(writers) {
        let (reader, times) = hearing.await.unwrap();
        streams.push((reader, writer));
        all.extend(times);
    }
    (streams, all)
}
