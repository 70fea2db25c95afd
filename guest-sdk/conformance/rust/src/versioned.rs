//! A value in three versions of its format. A handler has but the newest; here, each acts as the code of its time.

use pelton_sdk::state::{self, Older, Versioned};
use pelton_sdk::{Error, NewEvent};
use serde::{Deserialize, Serialize};

use crate::shared::out;

pub fn act_as(version: &str) -> Result<(), Error> {
    match version {
        "1" => count_on::<Version1>(),
        "2" => count_on::<Version2>(),
        "3" => count_on::<Version3>(),
        _ => Err(Error::permanent(format_args!("unknown version {version:?}"))),
    }
}

fn count_on<P: Profile>() -> Result<(), Error> {
    let mut profile = state::get_versioned::<P>("profile")?.unwrap_or_else(P::first);
    *profile.count() += 1;
    state::set_versioned("profile", &profile)?;
    out(NewEvent::json("versioned", &profile)?)
}

trait Profile: Versioned {
    fn first() -> Self;
    fn count(&mut self) -> &mut u64;
}

#[derive(Serialize, Deserialize)]
struct Version1 {
    count: u64,
}

impl Versioned for Version1 {
    const VERSION: u32 = 1;
}

impl Profile for Version1 {
    fn first() -> Self {
        Self { count: 0 }
    }
    fn count(&mut self) -> &mut u64 {
        &mut self.count
    }
}

#[derive(Serialize, Deserialize)]
struct Version2 {
    count: u64,
    unit: String,
}

impl Versioned for Version2 {
    const VERSION: u32 = 2;
    const READABLE_FROM: u32 = 1;

    fn upgrade(older: Older<'_>) -> Result<Self, Error> {
        let Version1 { count } = older.read()?;
        Ok(Self { count, unit: "pieces".to_owned() })
    }
}

impl Profile for Version2 {
    fn first() -> Self {
        Self { count: 0, unit: "pieces".to_owned() }
    }
    fn count(&mut self) -> &mut u64 {
        &mut self.count
    }
}

#[derive(Serialize, Deserialize)]
struct Version3 {
    counts: [u64; 1],
}

impl Versioned for Version3 {
    const VERSION: u32 = 3;

    fn upgrade(older: Older<'_>) -> Result<Self, Error> {
        let Version2 { count, .. } = older.read()?;
        Ok(Self { counts: [count] })
    }
}

impl Profile for Version3 {
    fn first() -> Self {
        Self { counts: [0] }
    }
    fn count(&mut self) -> &mut u64 {
        &mut self.counts[0]
    }
}
