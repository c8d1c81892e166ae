//! What the endpoints say together: of several no single one is believed.

use super::{Chain, ChainError};
use alloy::{eips::eip1559::Eip1559Estimation, providers::Provider};
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use std::time::Duration;

/// Time that an endpoint has to answer where others are asked as well. 5 s; worst case: as long for every question.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

impl Chain {
    /// The first answer that as many endpoints give as the quorum says.
    pub(super) async fn agreed<T, F>(&self, ask: impl Fn(Self) -> F + Send) -> Result<T, ChainError>
    where
        T: PartialEq + Send,
        F: Future<Output = Result<T, ChainError>> + Send,
    {
        let asked = self.each().map(|chain| in_time(ask(chain)));
        let mut asked: FuturesUnordered<_> = asked.collect();
        let (mut told, mut refused, mut silent) = (Vec::new(), Vec::new(), None);
        while let Some(answer) = asked.next().await {
            match answer {
                Some(Ok(answer)) => {
                    let alike = told.iter().filter(|other| **other == answer).count();
                    if alike + 1 >= self.quorum {
                        return Ok(answer);
                    }
                    told.push(answer);
                }
                Some(Err(error @ ChainError::Unreachable { .. })) => silent = Some(error),
                Some(Err(error)) => refused.push(error),
                None => {}
            }
        }
        Err(match (refused.pop(), silent) {
            (Some(error), _) if refused.len() + 1 >= self.quorum => error,
            (None, Some(error)) if told.is_empty() => error,
            _ => self.disagreement(),
        })
    }

    /// What a transaction should offer for gas: no more than as many endpoints say as the quorum, and no more than half of those
    /// that answer. One that would have the wallet burn its money is outvoted.
    pub(super) async fn prices(&self) -> Result<Eip1559Estimation, ChainError> {
        let asked = self.each().map(|chain| {
            in_time(async move {
                let fees = chain.provider.estimate_eip1559_fees().await;
                fees.map_err(|error| chain.failed(error, None))
            })
        });
        let answers = join_all(asked).await.into_iter().flatten();
        let (mut told, mut failure) = (Vec::new(), None);
        for answer in answers {
            match answer {
                Ok(fees) => told.push(fees),
                Err(error) => failure = Some(error),
            }
        }
        told.sort_by_key(|fees| fees.max_fee_per_gas);
        let chosen = told
            .len()
            .checked_sub(self.quorum)
            .map(|at| at.min((told.len() - 1) / 2));
        match (chosen.and_then(|at| told.get(at)), failure) {
            (Some(fees), _) => Ok(Eip1559Estimation {
                max_priority_fee_per_gas: fees.max_priority_fee_per_gas.min(fees.max_fee_per_gas),
                ..*fees
            }),
            (None, Some(error)) if told.is_empty() => Err(error),
            (None, _) => Err(self.disagreement()),
        }
    }

    /// Each endpoint by itself.
    pub(super) fn each(&self) -> impl Iterator<Item = Self> {
        self.endpoints.iter().map(|(provider, rpc)| Self {
            provider: provider.clone(),
            rpc: rpc.clone(),
            ..self.clone()
        })
    }

    fn disagreement(&self) -> ChainError {
        ChainError::Disagree {
            quorum: self.quorum,
            of: self.endpoints.len(),
        }
    }
}

/// What becomes of a question within the time that an endpoint has.
pub(super) async fn in_time<T>(answer: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(ANSWERED_WITHIN, answer).await.ok()
}
