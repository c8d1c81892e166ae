//! What is remembered of those that peers come from: how fast they knock and ask, which rules they broke, and until when
//! they are banned.

use super::cell::{AddressGroup, Bucket};
use crate::{
    Code, Limits, Name, Now, Timestamp,
    time::{Duration, Instant, take},
};
use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use std::sync::Mutex;

/// Whom something counts against.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A name, for what its owner was proved to do.
    Name(Name),
    /// An address group, for what came from there before anybody had proved who it is.
    Group(AddressGroup),
}

/// Somebody who may not come back for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub subject: Subject,
    /// Until when, by this machine's clock.
    pub until: Timestamp,
    /// What for; `None` if the operator decided so.
    pub code: Option<Code>,
}

/// What counts against somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score {
    /// Whom.
    pub subject: Subject,
    /// How much is left of it; at 100 it would have been a ban.
    pub points: u32,
}

/// The window of [`Limits::stranger_requests`].
const WINDOW: Duration = Duration::from_secs(10);
/// The window of [`Limits::handshake_rate`]: twice the rate at once.
const BURST: Duration = Duration::from_secs(2);
/// A score halves in this time.
const HALF_LIFE: Duration = Duration::from_secs(600);
/// The score at which a subject is banned.
const BANNED_AT: u32 = 100;
/// Addresses come back after this part of the time for which a name is banned. Nobody has signed what counts against them: who
/// is on the way of an unencrypted socket can spoil what others send, and must not shut them out for longer than he is there.
/// Rubbish that has to pause for a minute after ten attempts costs nothing.
const GROUPS_SOONER: u32 = 60;
/// Groups with this bit are shared by people who have nothing to do with each other: callers through one router, clients of a
/// proxy on this machine. They have rates and no scores, or one of them could shut the others out.
const SHARED: AddressGroup = 1 << 63;

/// What a deed weighs.
///
/// Against a name counts what its own keys prove: a frame that breaks the rules inside a record that opened. A record that
/// does not open may be anybody's doing. Against addresses counts what a handshake shows before it is verified, and what
/// guests do inside records. Timeouts, clocks, versions, keys that the chain may not have shown yet and messages that do not
/// decrypt count against nobody.
const fn weight(subject: &Subject, code: Code) -> u32 {
    match (subject, code) {
        (
            Subject::Name(_),
            Code::FrameMalformed
            | Code::FrameUnexpected
            | Code::FlowViolated
            | Code::RekeyOverdue
            | Code::CircuitNested,
        ) => BANNED_AT,
        // Once, a slow machine or another configuration may be the reason.
        (Subject::Name(_), Code::FrameRate | Code::AttachRefused | Code::TooLarge) => 40,
        (
            Subject::Group(_),
            Code::Malformed
            | Code::BadSignature
            | Code::WeakKey
            | Code::FlowViolated
            | Code::FrameMalformed
            | Code::FrameUnexpected
            | Code::FrameRate
            | Code::RekeyOverdue
            | Code::CircuitNested
            | Code::TooLarge,
        ) => 10,
        // A handshake beyond the rate.
        (Subject::Group(_), Code::SourceBudget) => 1,
        _ => 0,
    }
}

/// Names and address groups with what is remembered of them. Of whom there is nothing to say any more is forgotten. A full
/// table forgets first who was quiet longest, and a ban before its end only when it holds nothing but bans: then the one
/// that ends first.
#[derive(Debug)]
pub(super) struct Standings {
    /// Names and groups apart, so that a crowd of addresses makes nobody forget a name. In the order of the subjects.
    known: [Vec<(Subject, Standing)>; 2],
    max: usize,
}

#[derive(Clone, Debug, Default)]
struct Standing {
    used: Instant,
    /// When the bucket of each is full again.
    handshakes: Instant,
    requests: Instant,
    /// The bucket of requests as long as sessions take from it.
    bucket: Weak<Mutex<Instant>>,
    /// In thousandths, as of `scored`.
    score: u32,
    scored: Instant,
    banned: Option<(Timestamp, Option<Code>)>,
}

impl Standing {
    fn is_blank(&self, now: Now) -> bool {
        self.handshakes <= now.mono
            && self.requests <= now.mono
            && self.bucket.strong_count() == 0
            && self.score_at(now.mono) < 1000
            && !self.is_banned(now.wall)
    }

    fn is_banned(&self, wall: Timestamp) -> bool {
        self.banned.is_some_and(|(until, _)| until > wall)
    }

    /// What is left of the score: half after each half-life, in a straight line in between.
    fn score_at(&self, now: Instant) -> u32 {
        const HALF: u64 = HALF_LIFE.as_secs();
        let elapsed = now.since(self.scored).as_secs();
        let score = u64::from(self.score) >> (elapsed / HALF).min(63);
        u32::try_from(score - score * (elapsed % HALF) / (2 * HALF)).unwrap_or_default()
    }
}

impl Standings {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            known: [Vec::new(), Vec::new()],
            max: limits.standings.max(1),
        }
    }

    // Rates.

    /// Takes one handshake from a source's bucket, or says how long to wait.
    pub(super) fn handshake(
        &mut self,
        source: AddressGroup,
        limits: &Limits,
        now: Now,
    ) -> Result<(), Duration> {
        let interval = Duration::from_secs(1) / limits.handshake_rate.max(1);
        let standing = self.of(&Subject::Group(source), now);
        take(&mut standing.handshakes, interval, BURST, now.mono)
    }

    /// The bucket of requests of a peer: that of its other sessions, or as the last one has left it.
    pub(super) fn requests(&mut self, subject: &Subject, now: Now) -> Bucket {
        let standing = self.of(subject, now);
        standing.bucket.upgrade().unwrap_or_else(|| {
            let bucket = Bucket::new(standing.requests.into());
            standing.bucket = Arc::downgrade(&bucket);
            bucket
        })
    }

    /// Remembers the bucket of requests of a peer whose session has ended, unless it is full.
    pub(super) fn set_requests(&mut self, subject: &Subject, full_at: Instant, now: Now) {
        if full_at > now.mono {
            let standing = self.of(subject, now);
            standing.requests = standing.requests.max(full_at);
        }
    }

    // Scores and bans.

    /// Counts a deed. The ban that it leads to, if it does.
    pub(super) fn blame(
        &mut self,
        subject: &Subject,
        code: Code,
        limits: &Limits,
        now: Now,
    ) -> Option<Ban> {
        let weight = weight(subject, code);
        let shared = matches!(subject, Subject::Group(group) if group & SHARED != 0);
        if weight == 0 || shared {
            return None;
        }
        let standing = self.of(subject, now);
        if standing.is_banned(now.wall) {
            return None;
        }
        standing.score = standing.score_at(now.mono) + weight * 1000;
        standing.scored = now.mono;
        if standing.score < BANNED_AT * 1000 {
            return None;
        }
        standing.score = 0;
        let time = match subject {
            Subject::Name(_) => limits.ban,
            Subject::Group(_) => limits.ban / GROUPS_SOONER,
        };
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let ban = Ban {
            subject: subject.clone(),
            until: Timestamp(now.wall.0.saturating_add(millis)),
            code: Some(code),
        };
        self.ban(&ban, now).then_some(ban)
    }

    /// Puts a ban in the place of whatever ban there was. False if that changes nothing.
    pub(super) fn ban(&mut self, ban: &Ban, now: Now) -> bool {
        let entry = Some((ban.until, ban.code));
        let before = self.get(&ban.subject).and_then(|standing| standing.banned);
        if ban.until <= now.wall || before == entry {
            return false;
        }
        self.of(&ban.subject, now).banned = entry;
        true
    }

    /// Ends a ban, and forgets the score. False if there was none.
    pub(super) fn lift(&mut self, subject: &Subject, now: Now) -> bool {
        let Some(standing) = self.get_mut(subject) else {
            return false;
        };
        standing.score = 0;
        let was = standing.is_banned(now.wall);
        standing.banned = None;
        was
    }

    /// How long a subject is still banned, if it is.
    pub(super) fn banned(&self, subject: &Subject, wall: Timestamp) -> Option<Duration> {
        let (until, _) = self.get(subject)?.banned?;
        (until > wall).then(|| until.distance(wall))
    }

    /// All bans that have not ended.
    pub(super) fn bans(&self, wall: Timestamp) -> Vec<Ban> {
        let all = self.known.iter().flatten();
        let bans = all.filter_map(|(subject, standing)| {
            let (until, code) = standing.banned.filter(|_| standing.is_banned(wall))?;
            Some(Ban {
                subject: subject.clone(),
                until,
                code,
            })
        });
        bans.collect()
    }

    /// The highest scores, at most so many of names and so many of groups: a crowd of addresses hides no name.
    pub(super) fn scores(&self, most: usize, now: Now) -> Vec<Score> {
        let mut scores = Vec::new();
        for table in &self.known {
            let known = table.iter().map(|(subject, standing)| Score {
                subject: subject.clone(),
                points: (standing.score_at(now.mono) + 500) / 1000,
            });
            let mut known: Vec<_> = known.filter(|score| score.points > 0).collect();
            known.sort_by_key(|score| core::cmp::Reverse(score.points));
            scores.extend(known.into_iter().take(most));
        }
        scores.sort_by_key(|score| core::cmp::Reverse(score.points));
        scores
    }

    // The tables.

    fn table(&self, subject: &Subject) -> usize {
        usize::from(matches!(subject, Subject::Group(_)))
    }

    fn find(&self, subject: &Subject) -> Result<usize, usize> {
        self.known[self.table(subject)].binary_search_by(|(known, _)| known.cmp(subject))
    }

    fn get(&self, subject: &Subject) -> Option<&Standing> {
        let at = self.find(subject).ok()?;
        self.known[self.table(subject)]
            .get(at)
            .map(|(_, standing)| standing)
    }

    fn get_mut(&mut self, subject: &Subject) -> Option<&mut Standing> {
        let at = self.find(subject).ok()?;
        let table = self.table(subject);
        self.known[table].get_mut(at).map(|(_, standing)| standing)
    }

    /// The entry of a subject, made if there is none.
    fn of(&mut self, subject: &Subject, now: Now) -> &mut Standing {
        let table = self.table(subject);
        let at = self.find(subject).unwrap_or_else(|_| {
            self.make_room(table, now);
            let at = self.find(subject).unwrap_or_else(|at| at);
            self.known[table].insert(at, (subject.clone(), Standing::default()));
            at
        });
        let standing = &mut self.known[table][at].1;
        standing.used = now.mono;
        standing
    }

    fn make_room(&mut self, table: usize, now: Now) {
        let entries = &mut self.known[table];
        if entries.len() < self.max {
            return;
        }
        entries.retain(|(_, standing)| !standing.is_blank(now));
        while entries.len() >= self.max {
            let rank = |standing: &Standing| {
                let ends = standing.banned.filter(|_| standing.is_banned(now.wall));
                (ends.map(|(until, _)| until), standing.used)
            };
            let first = entries.iter().enumerate();
            let first = first.min_by_key(|(_, (_, standing))| rank(standing));
            let Some(first) = first.map(|(at, _)| at) else {
                return;
            };
            entries.remove(first);
        }
    }
}

/// Takes one request of a stranger from its bucket, which is for so many strangers, or says how long to wait.
pub(super) fn take_request(
    full_at: &mut Instant,
    sharers: u32,
    limits: &Limits,
    now: Instant,
) -> Result<(), Duration> {
    let interval = WINDOW / limits.stranger_requests.saturating_mul(sharers).max(1);
    take(full_at, interval, WINDOW, now)
}

/// Whether people share an address group who have nothing to do with each other.
pub(super) const fn is_shared(group: AddressGroup) -> bool {
    group & SHARED != 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::name::{Label, RegistryId};
    use alloc::format;

    fn subject(index: u32) -> Subject {
        Subject::Name(Name {
            registry: RegistryId {
                chain_id: 1,
                contract: [0; 20],
            },
            label: Label::new(&format!("name{index}")).unwrap(),
        })
    }

    /// So many seconds after the beginning.
    fn at(seconds: u64) -> Now {
        Now {
            mono: Instant::from_micros(seconds * 1_000_000),
            wall: Timestamp(1_800_000_000_000 + seconds * 1000),
        }
    }

    fn small(max: usize) -> (Standings, Limits) {
        let limits = Limits {
            standings: max,
            ..Limits::default()
        };
        (Standings::new(&limits), limits)
    }

    #[test]
    fn a_score_halves_every_ten_minutes_and_bans_at_a_hundred() {
        let (mut standings, limits) = small(8);
        let mut flood =
            |seconds| standings.blame(&subject(0), Code::FrameRate, &limits, at(seconds));
        // 40, 40 + 20, and 40 + 30: never a hundred.
        for seconds in [0, 600, 1200, 1800, 2400] {
            assert_eq!(flood(seconds), None);
        }
        // 40 + 40 at once are a hundred with what is left of the rest.
        assert_eq!(flood(2400).map(|ban| ban.until), Some(at(2400 + 3600).wall));
    }

    #[test]
    fn a_ban_ends_by_itself_and_then_begins_from_nothing() {
        let (mut standings, limits) = small(8);
        let who = subject(0);
        let ban = standings.blame(&who, Code::FrameMalformed, &limits, at(0));
        assert_eq!(ban.unwrap().code, Some(Code::FrameMalformed));
        let left = |standings: &Standings, seconds| standings.banned(&who, at(seconds).wall);
        assert_eq!(left(&standings, 600), Some(Duration::from_secs(3000)));
        assert_eq!(left(&standings, 3599), Some(Duration::from_secs(1)));
        assert_eq!(left(&standings, 3600), None);
        assert_eq!(standings.bans(at(3600).wall), []);
        assert_eq!(
            standings.blame(&who, Code::FrameRate, &limits, at(3600)),
            None
        );
    }

    #[test]
    fn the_highest_scores_are_told_as_they_are_now_of_names_and_of_groups() {
        let (mut standings, limits) = small(100);
        for index in 0..5 {
            standings.blame(&subject(index), Code::FrameRate, &limits, at(0));
        }
        standings.blame(&subject(3), Code::FrameRate, &limits, at(600));
        for group in 0..50 {
            let times = 1 + group % 9;
            for _ in 0..times {
                standings.blame(&Subject::Group(group), Code::Malformed, &limits, at(600));
            }
        }
        let points = |standings: &Standings, most, seconds| {
            let scores = standings.scores(most, at(seconds));
            scores.iter().map(|score| score.points).collect::<Vec<_>>()
        };
        assert_eq!(points(&standings, 2, 600), [90, 90, 60, 20]);
        assert_eq!(standings.scores(1, at(600))[1].subject, subject(3));
        assert_eq!(points(&standings, 2, 1200), [45, 45, 30, 10]);
        // Who is banned begins from nothing, and who was forgiven by time is not told of.
        standings.blame(&subject(3), Code::FrameMalformed, &limits, at(1200));
        assert_eq!(standings.scores(100, at(1200))[50].points, 5);
        assert_eq!(points(&standings, 100, 20_000), [0; 0]);
    }

    #[test]
    fn what_may_be_anybodys_doing_counts_against_nobody() {
        let (mut standings, limits) = small(8);
        let innocent = [
            Code::RecordForged,
            Code::RecordTooLarge,
            Code::DecryptFailed,
            Code::HandshakeTimeout,
            Code::KeepaliveTimeout,
            Code::ClockSkew,
            Code::VersionUnknown,
            Code::NameUnknown,
            Code::KeyMismatch,
            Code::KeyUnconfirmed,
            Code::ChainUnavailable,
            Code::RouterLied,
            Code::PipeLost,
            Code::Banned,
        ];
        for subject in [subject(0), Subject::Group(7)] {
            for code in innocent.into_iter().cycle().take(1000) {
                assert_eq!(standings.blame(&subject, code, &limits, at(0)), None);
            }
        }
        for _ in 0..1000 {
            let circuits = Subject::Group(SHARED | 7);
            let ban = standings.blame(&circuits, Code::Malformed, &limits, at(0));
            assert_eq!(ban, None, "callers through one router");
        }
    }

    #[test]
    fn a_full_table_forgets_the_quiet_first_and_a_ban_only_for_another() {
        let (mut standings, limits) = small(3);
        let ban = |standings: &mut Standings, index, until| {
            let ban = Ban {
                subject: subject(index),
                until: at(until).wall,
                code: None,
            };
            assert!(standings.ban(&ban, at(10)));
        };
        ban(&mut standings, 0, 500);
        for index in 1..100 {
            standings.blame(&subject(index), Code::FrameRate, &limits, at(20));
            assert!(standings.known[0].len() <= 3);
        }
        assert_eq!(standings.bans(at(20).wall).len(), 1, "it outlives a crowd");
        for (index, until) in [(200, 400), (201, 300), (202, 600)] {
            ban(&mut standings, index, until);
        }
        let left: Vec<_> = standings
            .bans(at(20).wall)
            .into_iter()
            .map(|ban| ban.until)
            .collect();
        assert_eq!(left, [at(500).wall, at(400).wall, at(600).wall]);
        // Addresses have a table of their own.
        for group in 0..1000 {
            let _ = standings.handshake(group, &limits, at(20));
        }
        assert_eq!(standings.known[1].len(), 3);
        assert_eq!(standings.bans(at(20).wall).len(), 3);
    }
}
