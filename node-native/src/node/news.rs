//! News for applications: the newest of them, in order, for whoever listens.
//!
//! What nobody has heard is kept as it comes, so that a node about which there is little to say needs little memory.

use super::driver::lock;
use node_core::node::Event;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};
use tokio::sync::Notify;

/// Tells. The end of it is the end of the news.
#[derive(Debug)]
pub(super) struct News(Arc<Board>);

#[derive(Debug)]
struct Board {
    /// Most that is kept for who is slow.
    max: usize,
    posted: Mutex<Posted>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Posted {
    newest: VecDeque<Event>,
    /// How many were told in all.
    told: u64,
    over: bool,
}

impl News {
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(Board {
            max: max.max(1),
            posted: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    pub(super) fn tell(&self, event: Event) {
        {
            let mut posted = lock(&self.0.posted);
            if posted.newest.len() == self.0.max {
                posted.newest.pop_front();
            }
            posted.newest.push_back(event);
            posted.told += 1;
        }
        self.0.changed.notify_waiters();
    }

    /// Hears what is told from now on.
    pub(super) fn listen(&self) -> Listener {
        Listener {
            heard: lock(&self.0.posted).told,
            board: self.0.clone(),
        }
    }
}

impl Drop for News {
    fn drop(&mut self) {
        lock(&self.0.posted).over = true;
        self.0.changed.notify_waiters();
    }
}

/// Hears one after the other.
#[derive(Debug)]
pub(super) struct Listener {
    board: Arc<Board>,
    heard: u64,
}

impl Listener {
    /// The next one; `None` once there will be no more. Who is too slow misses the oldest.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            let board = self.board.clone();
            // Before looking, so that what is told in between is not missed.
            let changed = board.changed.notified();
            if let Some(event) = self.try_next() {
                return event;
            }
            changed.await;
        }
    }

    /// What [`next`](Self::next) has to say at once, if it has.
    fn try_next(&mut self) -> Option<Option<Event>> {
        let posted = lock(&self.board.posted);
        let kept = posted.newest.len();
        let oldest = posted.told - u64::try_from(kept).unwrap_or(u64::MAX);
        let missed = oldest.saturating_sub(self.heard);
        if missed > 0 {
            tracing::warn!(missed, "events were missed");
            self.heard = oldest;
        }
        let at = usize::try_from(self.heard - oldest).unwrap_or(usize::MAX);
        match posted.newest.get(at) {
            Some(event) => {
                self.heard += 1;
                Some(Some(event.clone()))
            }
            None => posted.over.then_some(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn everybody_hears_everything_in_order_and_who_is_too_slow_the_newest() {
        let reachable = Event::Reachable;
        let news = News::new(2);
        let (mut quick, mut slow) = (news.listen(), news.listen());
        assert_eq!(quick.next().now_or_never(), None);
        for told in [true, false, true] {
            news.tell(reachable(told));
            assert_eq!(quick.next().now_or_never(), Some(Some(reachable(told))));
        }
        assert_eq!(slow.next().await, Some(reachable(false)));
        assert_eq!(slow.next().await, Some(reachable(true)));

        let mut late = news.listen();
        let waiting = tokio::spawn(async move { (late.next().await, late.next().await) });
        tokio::task::yield_now().await;
        news.tell(reachable(false));
        drop(news);
        assert_eq!(
            waiting.await.ok(),
            Some((Some(reachable(false)), None)),
            "what was told before the end is heard"
        );
        assert_eq!(slow.next().await, Some(reachable(false)));
        assert_eq!(slow.next().await, None);
    }
}
