//! Plays random lives, one per seed, on all processors. `cargo xtask soak` builds and starts it.
#![allow(
    clippy::disallowed_methods,
    reason = "a program, which has a clock and threads"
)]

use nectar_sim::life::{self, Story};
use std::{
    cell::RefCell,
    panic::{RefUnwindSafe, catch_unwind, set_hook},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const USAGE: &str = "usage: soak [--seed S] [--minutes N] [--seeds COUNT] [--threads T]";

/// How often it says how far it is.
const REPORT: Duration = Duration::from_secs(60);

/// Of a hundred operations so many have to succeed, with all that happens to them, once there were so many lives. 88 do. A life
/// of its own may be an unlucky one.
const LEAST: usize = 80;
const LIVES: u64 = 50;

/// What is to be done.
struct Task {
    /// The first seed.
    seed: u64,
    /// For how long new lives are begun, and how many, whichever ends first.
    minutes: Option<f64>,
    seeds: Option<u64>,
    threads: usize,
    /// Whether it tells what happens.
    tell: Option<fn(&str)>,
}

/// What has been done.
#[derive(Default)]
struct Sum {
    lives: u64,
    failed: Vec<u64>,
    people: usize,
    asked: usize,
    succeeded: usize,
    whole: usize,
    excused: [usize; 3],
}

impl Sum {
    /// Whether it is as it should be.
    fn is_fine(&self) -> bool {
        self.lives > 0 && self.failed.is_empty() && !self.is_poor()
    }

    /// Whether so little succeeds that troubles do not explain it.
    const fn is_poor(&self) -> bool {
        self.lives >= LIVES && self.succeeded * 100 < self.asked * LEAST
    }
}

thread_local! {
    /// What the last panic of this thread said, and where.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    let task = match Task::read(std::env::args().skip(1)) {
        Ok(task) => task,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    set_hook(Box::new(|panic| {
        SAID.with(|said| *said.borrow_mut() = panic.to_string())
    }));
    let began = Instant::now();
    let (next, sum) = (AtomicU64::new(task.seed), Mutex::new(Sum::default()));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..task.threads)
            .map(|_| {
                scope.spawn(|| {
                    work(&task, began, &next, &sum, |seed| {
                        life::live(seed, task.tell)
                    })
                })
            })
            .collect();
        let mut reported = began;
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(Duration::from_millis(100));
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                print(&task, began, &sum);
            }
        }
    });
    print(&task, began, &sum);
    let sum = sum.into_inner().unwrap_or_else(|error| error.into_inner());
    if sum.is_poor() {
        println!("at least {LEAST} of 100 operations have to succeed");
    }
    if sum.is_fine() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Plays one life after the other.
fn work(
    task: &Task,
    began: Instant,
    next: &AtomicU64,
    sum: &Mutex<Sum>,
    live: impl Fn(u64) -> Story + RefUnwindSafe,
) {
    let enough = |seed: u64| {
        let minutes = began.elapsed().as_secs_f64() / 60.0;
        task.minutes.is_some_and(|limit| minutes >= limit)
            || task.seeds.is_some_and(|seeds| seed - task.seed >= seeds)
    };
    loop {
        let seed = next.fetch_add(1, Relaxed);
        if enough(seed) {
            return;
        }
        let story = catch_unwind(|| live(seed));
        let mut sum = sum.lock().unwrap_or_else(|error| error.into_inner());
        sum.lives += 1;
        match story {
            Ok(story) => {
                sum.people += story.people;
                sum.asked += story.asked;
                sum.succeeded += story.succeeded;
                sum.whole += story.whole;
                for (sum, excused) in sum.excused.iter_mut().zip(story.excused) {
                    *sum += excused;
                }
            }
            Err(_) => {
                sum.failed.push(seed);
                let said = SAID.with(|said| said.borrow().clone());
                println!("{}", told(seed, &said));
            }
        }
    }
}

/// What is said of a life that failed: how, and the command that plays it again.
fn told(seed: u64, said: &str) -> String {
    format!("seed {seed}: {said}\n  again: cargo xtask soak --seed {seed}")
}

fn print(task: &Task, began: Instant, sum: &Mutex<Sum>) {
    let sum = sum.lock().unwrap_or_else(|error| error.into_inner());
    println!(
        "{:.1} min, seeds from {}: {} lives of {} nodes, {} failed; {} of {} operations succeeded, {} streams came whole; \
         losses excused: {} by who was gone, {} by troubles in a row, {} by limits",
        began.elapsed().as_secs_f64() / 60.0,
        task.seed,
        sum.lives,
        sum.people,
        sum.failed.len(),
        sum.succeeded,
        sum.asked,
        sum.whole,
        sum.excused[0],
        sum.excused[1],
        sum.excused[2],
    );
}

impl Task {
    /// Without a time or a number, one life, told as it goes. Without a seed, seeds that nobody has tried.
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut seed, mut minutes, mut seeds, mut threads) = (None, None, None, None);
        while let Some(arg) = args.next() {
            let value = args.next().ok_or(format!("{arg} has no value"))?;
            let wrong = format!("{arg} {value} is no number");
            match &*arg {
                "--seed" => seed = Some(value.parse().map_err(|_| wrong)?),
                "--minutes" => minutes = Some(value.parse().map_err(|_| wrong)?),
                "--seeds" => seeds = Some(value.parse().map_err(|_| wrong)?),
                "--threads" => threads = Some(value.parse().map_err(|_| wrong)?),
                _ => return Err(format!("{arg} is unknown")),
            }
        }
        let alone = minutes.is_none() && seeds.is_none();
        if alone {
            if seed.is_none() {
                return Err("say for how long, or which seed".into());
            }
            seeds = Some(1);
        }
        let clock = SystemTime::now().duration_since(UNIX_EPOCH);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            seed: seed.unwrap_or(clock.map_or(0, |time| time.as_secs() * 1_000)),
            minutes,
            seeds,
            threads: threads.unwrap_or(cores).max(1),
            tell: alone.then_some(|line| println!("{line}")),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    fn read(command: &str) -> Task {
        Task::read(command.split_whitespace().map(str::to_owned)).unwrap()
    }

    #[test]
    fn a_life_that_fails_is_counted_with_its_seed_and_the_others_go_on() {
        let task = read("--seed 7 --seeds 3 --threads 1");
        let (next, sum) = (AtomicU64::new(task.seed), Mutex::new(Sum::default()));
        let live = |seed| {
            assert_ne!(seed, 8, "a broken promise");
            life::live(seed, None)
        };
        work(&task, Instant::now(), &next, &sum, live);
        let sum = sum.into_inner().unwrap();
        assert_eq!((sum.lives, &sum.failed[..]), (3, &[8][..]));
        assert!(sum.asked > 0);
    }

    #[test]
    fn many_lives_in_which_little_succeeds_are_a_failure_and_a_single_one_is_not() {
        let lives = |lives, succeeded| Sum {
            lives,
            succeeded,
            asked: 1000,
            ..Sum::default()
        };
        assert!(lives(LIVES, 10 * LEAST).is_fine());
        assert!(!lives(LIVES, 10 * LEAST - 1).is_fine());
        assert!(lives(1, 10 * LEAST - 1).is_fine());
    }

    #[test]
    fn what_is_said_of_a_failed_life_holds_the_command_that_plays_it_again_and_tells_what_happens()
    {
        let said = told(8, "a broken promise");
        assert!(said.contains("a broken promise"), "{said}");
        let (_, command) = said.split_once("again: cargo xtask soak ").unwrap();
        let task = read(command);
        assert_eq!((task.seed, task.seeds), (8, Some(1)));
        assert!(task.tell.is_some());
    }
}
