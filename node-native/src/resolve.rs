//! Driving the core's resolver for one look-up at a time: what the command line needs.

use crate::rpc::{self, ClientError};
use node_core::{
    Instant, Name, Now, Timestamp,
    registry::{
        Cause, Freshness, Lookup, ProbeReport, RegistryConfig, ResolveError, Resolved, Resolver,
        ResolverOutput,
    },
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinSet;

/// Reads both clocks: the monotonic one since the creation of this value.
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

impl Clock {
    /// Starts at zero.
    #[allow(
        clippy::new_without_default,
        reason = "a clock that starts now is no default value"
    )]
    pub fn new() -> Self {
        Self(std::time::Instant::now())
    }

    /// Now, on both clocks.
    pub fn now(&self) -> Now {
        let micros = u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX);
        // A wall clock before 1970 is a wrong clock, and peers will say so.
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            mono: Instant::from_micros(micros),
            wall: Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// One endpoint, as a probe found it.
#[derive(Clone, Debug)]
pub struct Probed {
    /// The endpoint.
    pub url: Arc<str>,
    /// What it is, or what is wrong with it.
    pub result: Result<ProbeReport, ResolveError>,
}

/// Looks `name` up and waits for the answer.
pub async fn lookup(
    resolver: &mut Resolver,
    name: &Name,
    freshness: Freshness,
    clock: &Clock,
) -> Result<Result<Resolved, ResolveError>, ClientError> {
    let id = match resolver.lookup(name, freshness, Cause::Own, clock.now()) {
        Lookup::Ready(result) => return Ok(result),
        Lookup::Pending(id) => id,
    };
    let done = |output: ResolverOutput| match output {
        ResolverOutput::Done { id: found, result } if found == id => Some(result),
        _ => None,
    };
    run(resolver, clock, done).await
}

/// Asks every endpoint of a registry who it is.
pub async fn probe(
    resolver: &mut Resolver,
    registry: &RegistryConfig,
    clock: &Clock,
) -> Result<Vec<Probed>, ClientError> {
    let count = resolver.probe(&registry.id, clock.now()).len();
    let mut found = Vec::with_capacity(count);
    if count == 0 {
        return Ok(found);
    }
    run(resolver, clock, |output| {
        if let ResolverOutput::Probed { url, result, .. } = output {
            found.push(Probed { url, result });
        }
        (found.len() == count).then_some(())
    })
    .await?;
    Ok(found)
}

/// Serves the resolver until `done` finds what it waits for among the outputs.
async fn run<T>(
    resolver: &mut Resolver,
    clock: &Clock,
    mut done: impl FnMut(ResolverOutput) -> Option<T>,
) -> Result<T, ClientError> {
    let client = rpc::http_client()?;
    let (answer_bytes, timeout) = (
        resolver.limits().answer_bytes,
        resolver.limits().fetch_timeout,
    );
    let mut fetches = JoinSet::new();
    loop {
        while let Some(output) = resolver.poll_output() {
            match output {
                ResolverOutput::Fetch { id, url, body } => {
                    let client = client.clone();
                    fetches.spawn(async move {
                        (
                            id,
                            rpc::post(&client, &url, body, answer_bytes, timeout).await,
                        )
                    });
                }
                other @ (ResolverOutput::Done { .. }
                | ResolverOutput::Changed { .. }
                | ResolverOutput::Probed { .. }) => {
                    if let Some(found) = done(other) {
                        return Ok(found);
                    }
                }
            }
        }
        let pause = match resolver.deadline() {
            Some(deadline) => deadline.since(clock.now().mono),
            None => Duration::from_secs(3600),
        };
        tokio::select! {
            Some(fetched) = fetches.join_next() => match fetched {
                Ok((id, answer)) => resolver.handle_answer(id, answer.as_deref().map_err(|failure| *failure), clock.now()),
                // A fetch that panicked never answers; the resolver's own timeout deals with it.
                Err(error) => tracing::error!(%error, "a fetch ended abnormally"),
            },
            () = tokio::time::sleep(pause) => resolver.handle_timeout(clock.now()),
        }
    }
}
