//! The `[limits]` section: every bound of the core, in units that people read.

use super::units::{Size, Time};
use node_core::Limits;
use serde::Deserialize;
use std::time::Duration;

/// How a limit is written.
trait Written: Sized {
    type As;
    fn from_written(written: Self::As) -> Option<Self>;
}

impl Written for Duration {
    type As = Time;
    fn from_written(written: Time) -> Option<Self> {
        Some(written.0)
    }
}

/// A number of things, as opposed to a number of bytes.
struct Count<T>(T);

impl<T: TryFrom<u64>> Written for Count<T> {
    type As = u64;
    fn from_written(written: u64) -> Option<Self> {
        T::try_from(written).ok().map(Self)
    }
}

/// A number of bytes.
struct Bytes<T>(T);

impl<T: TryFrom<u64>> Written for Bytes<T> {
    type As = Size;
    fn from_written(written: Size) -> Option<Self> {
        T::try_from(written.0).ok().map(Self)
    }
}

macro_rules! limits {
    (time { $($time:ident)* } size { $($size:ident)* } count { $($count:ident)* }) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct LimitsSection {
            $($time: Option<Time>,)*
            $($size: Option<Size>,)*
            $($count: Option<u64>,)*
        }

        impl LimitsSection {
            /// Names of all settings.
            pub(super) const NAMES: &[&str] =
                &[$(stringify!($time),)* $(stringify!($size),)* $(stringify!($count),)*];

            /// The defaults with what is written over them; on failure the setting that is out of range.
            pub(super) fn apply(self) -> Result<Limits, &'static str> {
                // Every field is named, so that a new limit cannot be forgotten here.
                let Limits { $(mut $time,)* $(mut $size,)* $(mut $count,)* } = Limits::default();
                $(if let Some(written) = self.$time {
                    $time = Written::from_written(written).ok_or(stringify!($time))?;
                })*
                $(if let Some(written) = self.$size {
                    let Bytes(value) = Written::from_written(written).ok_or(stringify!($size))?;
                    $size = value;
                })*
                $(if let Some(written) = self.$count {
                    let Count(value) = Written::from_written(written).ok_or(stringify!($count))?;
                    $count = value;
                })*
                Ok(Limits { $($time,)* $($size,)* $($count,)* })
            }
        }
    };
}

limits! {
    time {
        handshake_timeout clock_window request_deadline keepalive keepalive_retry suspicion ack_delay rekey_after renew_after circuit_timeout session_kept
        backoff_min backoff_max race_stagger ban
    }
    size {
        held_before_admission message_bytes inbox_bytes retained_bytes parked_bytes outbox_bytes stream_window
        stream_initial ack_bytes rekey_bytes circuit_window
    }
    count {
        half_open inbound_channels channels_per_group channels_per_caller handshake_rate stranger_requests standings
        outbound_peers streams requests keepalive_misses circuits circuit_opens
        parked_sessions circuits_per_pair circuits_unanswered routers waiting
    }
}
