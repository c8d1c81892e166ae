//! Counters and gauges, and their text for Prometheus.

use std::{
    fmt::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Replaces the number.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is measured. Metrics are created once, at start, and never carry labels that a peer chooses.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<Vec<Metric>>);

#[derive(Debug)]
struct Metric {
    name: &'static str,
    help: &'static str,
    value: Value,
}

enum Value {
    Counter(Arc<Counter>),
    Gauge(Arc<Gauge>),
    Observed(Box<dyn Fn() -> i64 + Send + Sync>),
    Labelled(&'static str, Box<dyn Fn() -> Labelled + Send + Sync>),
}

/// Counts, each with a value of a label: always the same ones.
pub type Labelled = Vec<(&'static str, u64)>;

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Counter(counter) => counter.fmt(f),
            Self::Gauge(gauge) => gauge.fmt(f),
            Self::Observed(_) | Self::Labelled(..) => f.write_str("Observed"),
        }
    }
}

impl Metrics {
    /// A counter, created at the first call. `name` follows Prometheus: `nectar_…_total`.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Arc<Counter> {
        let mut metrics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = metrics.iter().find_map(|metric| match &metric.value {
            Value::Counter(counter) if metric.name == name => Some(counter.clone()),
            _ => None,
        });
        found.unwrap_or_else(|| {
            let counter = Arc::new(Counter::default());
            metrics.push(Metric {
                name,
                help,
                value: Value::Counter(counter.clone()),
            });
            counter
        })
    }

    /// A gauge, created at the first call.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Arc<Gauge> {
        let mut metrics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = metrics.iter().find_map(|metric| match &metric.value {
            Value::Gauge(gauge) if metric.name == name => Some(gauge.clone()),
            _ => None,
        });
        found.unwrap_or_else(|| {
            let gauge = Arc::new(Gauge::default());
            metrics.push(Metric {
                name,
                help,
                value: Value::Gauge(gauge.clone()),
            });
            gauge
        })
    }

    /// A gauge that is read when somebody looks. `read` must be quick, and must not come back here.
    pub fn observe(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> i64 + Send + Sync + 'static,
    ) {
        self.put(name, help, Value::Observed(Box::new(read)));
    }

    /// Counters that are read when somebody looks, one for each value of `label`. Holds for `read` as above, and it must give
    /// no value that a peer chooses.
    pub fn observe_by(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        read: impl Fn() -> Labelled + Send + Sync + 'static,
    ) {
        self.put(name, help, Value::Labelled(label, Box::new(read)));
    }

    fn put(&self, name: &'static str, help: &'static str, value: Value) {
        let mut metrics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.retain(|metric| metric.name != name);
        metrics.push(Metric { name, help, value });
    }

    /// The text exposition format, version 0.0.4.
    pub fn render(&self) -> String {
        let metrics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        metrics
            .iter()
            .fold(String::new(), |mut out, Metric { name, help, value }| {
                // Writing to a String does not fail.
                let _ = match value {
                    Value::Counter(n) => writeln!(
                        out,
                        "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}",
                        n.get()
                    ),
                    Value::Gauge(n) => writeln!(
                        out,
                        "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {}",
                        n.get()
                    ),
                    Value::Observed(read) => writeln!(
                        out,
                        "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {}",
                        read()
                    ),
                    Value::Labelled(label, read) => {
                        let head = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
                        read().into_iter().fold(head, |written, (value, n)| {
                            written.and(writeln!(out, "{name}{{{label}=\"{value}\"}} {n}"))
                        })
                    }
                };
                out
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_render_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        metrics
            .counter("nectar_accepted_total", "Connections accepted.")
            .add(3);
        metrics
            .counter("nectar_accepted_total", "Connections accepted.")
            .increment();
        metrics
            .gauge("nectar_connections", "Connections open.")
            .add(-2);
        metrics.observe("nectar_sessions", "Sessions.", || 1);
        metrics.observe("nectar_sessions", "Sessions.", || 7);
        metrics.observe_by("nectar_refused_total", "Refused.", "code", || {
            vec![("banned", 2), ("request_rate", 0)]
        });
        assert_eq!(
            metrics.render(),
            "# HELP nectar_accepted_total Connections accepted.\n\
             # TYPE nectar_accepted_total counter\n\
             nectar_accepted_total 4\n\
             # HELP nectar_connections Connections open.\n\
             # TYPE nectar_connections gauge\n\
             nectar_connections -2\n\
             # HELP nectar_sessions Sessions.\n\
             # TYPE nectar_sessions gauge\n\
             nectar_sessions 7\n\
             # HELP nectar_refused_total Refused.\n\
             # TYPE nectar_refused_total counter\n\
             nectar_refused_total{code=\"banned\"} 2\n\
             nectar_refused_total{code=\"request_rate\"} 0\n"
        );
    }
}
