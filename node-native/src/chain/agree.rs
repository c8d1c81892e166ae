//! What the endpoints say together: of several no single one is believed.

use super::{Chain, ChainError, shown};
use alloy::{eips::eip1559::Eip1559Estimation, providers::Provider};
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use std::{mem::discriminant, time::Duration};

/// Time that an endpoint has to answer where others are asked as well. 5 s; worst case: as long for every question.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

impl Chain {
    /// The first answer that as many endpoints give as the quorum says, or the first reason not to answer.
    pub(super) async fn agreed<T, F>(&self, ask: impl Fn(Self) -> F + Send) -> Result<T, ChainError>
    where
        T: PartialEq + Send,
        F: Future<Output = Result<T, ChainError>> + Send,
    {
        let asked = self.each().map(|chain| {
            let answer = ask(chain.clone());
            async move { chain.in_time(answer).await }
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let (mut told, mut refused, mut silent) = (Vec::new(), Vec::new(), None);
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(answer) => {
                    let alike = told.iter().filter(|other| **other == answer).count();
                    if alike + 1 >= self.quorum {
                        return Ok(answer);
                    }
                    told.push(answer);
                }
                Err(error @ ChainError::Unreachable { .. }) => silent = Some(error),
                Err(error) => {
                    let kind = discriminant(&error);
                    let alike = refused.iter().filter(|other| **other == kind).count();
                    if alike + 1 >= self.quorum {
                        return Err(error);
                    }
                    refused.push(kind);
                }
            }
        }
        Err(match silent {
            Some(error) if told.is_empty() && refused.is_empty() => error,
            _ => self.disagreement(),
        })
    }

    /// What a transaction should offer for gas: no more than as many endpoints say as the quorum, and no more than half of those
    /// that answer. One that would have the wallet burn its money is outvoted.
    pub(super) async fn prices(&self) -> Result<Eip1559Estimation, ChainError> {
        let asked = self.each().map(|chain| async move {
            let fees = chain.provider.estimate_eip1559_fees();
            let fees = async { fees.await.map_err(|error| chain.failed(error, None)) };
            chain.in_time(fees).await
        });
        let (mut told, mut failure) = (Vec::new(), None);
        for answer in join_all(asked).await {
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

    /// What becomes of a question to one of several endpoints. The only one may take as long as it likes: nobody else answers.
    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, ChainError>>,
    ) -> Result<T, ChainError> {
        if self.endpoints.len() == 1 {
            return answer.await;
        }
        let answered = tokio::time::timeout(ANSWERED_WITHIN, answer).await;
        answered.unwrap_or_else(|_| {
            Err(ChainError::Unreachable {
                rpc: shown(&self.rpc),
                detail: format!("nothing within {ANSWERED_WITHIN:?}"),
            })
        })
    }

    fn disagreement(&self) -> ChainError {
        ChainError::Disagree {
            quorum: self.quorum,
            of: self.endpoints.len(),
        }
    }
}
