use core::cmp::Ordering;
use core::fmt;

use serde::de::{self, DeserializeOwned, IgnoredAny, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, json};

/// A value whose form changes as the handler does.
///
/// It is stored together with the version of its form. Newer code reads what older code wrote, by upgrading it step by
/// step; and older code, which a rollback brings back, reads what newer code wrote as far as the newer code says it can.
///
/// ```
/// use pelton_sdk::Error;
/// use pelton_sdk::state::{self, Older, Versioned};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Stock {
///     count: u64,
///     unit: String,
/// }
///
/// impl Versioned for Stock {
///     const VERSION: u32 = 2;
///     const READABLE_FROM: u32 = 1; // code of version 1 finds `count` where it was, and passes over `unit`
///
///     fn upgrade(older: Older<'_>) -> Result<Self, Error> {
///         let StockV1 { count } = older.read()?;
///         Ok(Self { count, unit: "pieces".to_owned() })
///     }
/// }
///
/// /// What the code of version 1 called `Stock`.
/// #[derive(Serialize, Deserialize)]
/// struct StockV1 {
///     count: u64,
/// }
///
/// impl Versioned for StockV1 {
///     const VERSION: u32 = 1;
/// }
///
/// # fn sell(key: &str) -> Result<(), Error> {
/// if let Some(mut stock) = state::get_versioned::<Stock>(key)? {
///     stock.count -= 1;
///     state::set_versioned(key, &stock)?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// A value from before there were versions, a plain [`set_json`](super::set_json), is read by a type of version 0, if a
/// step leads on from there. It can be read, not set:
///
/// ```compile_fail
/// # use pelton_sdk::state::{self, Versioned};
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Unversioned(u64);
///
/// impl Versioned for Unversioned {
///     const VERSION: u32 = 0;
/// }
///
/// state::set_versioned("stock", &Unversioned(1));
/// ```
///
/// `READABLE_FROM` is one of the versions from 1 up to `VERSION`, or nothing is compiled:
///
/// ```compile_fail
/// # use pelton_sdk::state::{self, Versioned};
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Stock(u64);
///
/// impl Versioned for Stock {
///     const VERSION: u32 = 1;
///     const READABLE_FROM: u32 = 2;
/// }
///
/// let stock = state::get_versioned::<Stock>("stock");
/// ```
pub trait Versioned: Serialize + DeserializeOwned {
    /// The version of this form. The first one is 1.
    const VERSION: u32;

    /// The oldest version of the code that can read this form too: all fields that it knows are where it looks for them.
    /// If it is not told, only code of this version on can.
    const READABLE_FROM: u32 = Self::VERSION;

    /// Makes this form of an older one: [reads](Older::read) the form before, which upgrades itself if need be, and
    /// brings it up to this one. Without it, older values are refused.
    ///
    /// # Errors
    ///
    /// Those of reading, and whatever the step cannot cope with.
    fn upgrade(older: Older<'_>) -> Result<Self, Error> {
        Err(older.no_step_to(Self::VERSION))
    }
}

/// The value of `key`, in the form of this code, if there is one.
///
/// # Errors
///
/// *Transient* if newer code wrote a form that this code cannot read: the event waits until the newer code is back, and
/// nothing is lost. *Permanent*, naming the key, if the value is not a `T`, or no step leads to it.
pub fn get_versioned<T: Versioned>(key: &str) -> Result<Option<T>, Error> {
    const { check_format::<T>() };
    let Some(bytes) = super::get(key) else { return Ok(None) };
    let stored = Older::of(key, &bytes);
    if stored.version <= T::VERSION {
        stored.read()
    } else if stored.readable_from <= T::VERSION {
        stored.decode()
    } else {
        Err(stored.is_too_new_for(T::VERSION))
    }
    .map(Some)
}

/// Sets the value of `key`, together with the version of its form.
///
/// # Errors
///
/// As [`set_json`](super::set_json).
pub fn set_versioned<T: Versioned>(key: &str, value: &T) -> Result<(), Error> {
    const { check_format::<T>() };
    let envelope = Envelope { version: T::VERSION, readable_from: T::READABLE_FROM, value };
    super::set(key, json::write_within(VALUE, &envelope, format_args!("state {key:?}"))?)
}

const fn check_format<T: Versioned>() {
    assert!(1 <= T::READABLE_FROM && T::READABLE_FROM <= T::VERSION, "expected 1 <= READABLE_FROM <= VERSION");
}

/// What is stored. The same in the SDKs of all languages.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    #[serde(deserialize_with = "whole")]
    version: u32,
    #[serde(deserialize_with = "whole")]
    readable_from: u32,
    value: T,
}

/// The member that the handler's own value is. Errors name what lies in it from there on, as in all SDKs.
const VALUE: &str = "value";

/// In JSON there is one kind of number: 1.0 is 1.
fn whole<'de, D: Deserializer<'de>>(number: D) -> Result<u32, D::Error> {
    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = u32;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number of 32 bits")
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u32, E> {
            u32::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<u32, E> {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "compared with the original")]
            let whole = number as u32;
            #[expect(clippy::float_cmp, reason = "it is whole, or it is not")]
            if f64::from(whole) == number { Ok(whole) } else { Err(E::invalid_value(Unexpected::Float(number), &self)) }
        }
    }

    number.deserialize_u32(Whole)
}

/// A stored value in an older form, for [`Versioned::upgrade`] to [read](Older::read).
#[derive(Debug, Clone, Copy)]
pub struct Older<'a> {
    key: &'a str,
    version: u32,
    readable_from: u32,
    json: &'a [u8],
    in_envelope: bool,
}

impl<'a> Older<'a> {
    /// What is in no envelope is from before there were versions. What is one, is said by the rule of `docs/state.md`, in
    /// the SDKs of all languages.
    fn of(key: &'a str, json: &'a [u8]) -> Self {
        // A list of three would do for serde too.
        let is_object = json.trim_ascii_start().starts_with(b"{");
        match serde_json::from_slice::<Envelope<IgnoredAny>>(json) {
            Ok(Envelope { version, readable_from, .. })
                if is_object && 1 <= readable_from && readable_from <= version =>
            {
                Self { key, version, readable_from, json, in_envelope: true }
            }
            _ => Self { key, version: 0, readable_from: 0, json, in_envelope: false },
        }
    }

    /// The version it has; 0 if it is from before there were versions.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Reads it as a `T`, which upgrades it first if it is older still.
    ///
    /// # Errors
    ///
    /// A permanent error that names the key if it is not a `T`, or no step leads to it.
    pub fn read<T: Versioned>(self) -> Result<T, Error> {
        match self.version.cmp(&T::VERSION) {
            Ordering::Equal => self.decode(),
            Ordering::Less => T::upgrade(self),
            Ordering::Greater => Err(self.no_step_to(self.version.saturating_add(1))),
        }
    }

    fn decode<T: Versioned>(self) -> Result<T, Error> {
        let what = format_args!("state {:?}", self.key);
        if self.in_envelope {
            json::read_within(VALUE, self.json, what).map(|Envelope { value, .. }| value)
        } else {
            json::read(self.json, what)
        }
    }

    #[cold]
    fn no_step_to(self, version: u32) -> Error {
        let Self { key, version: from, .. } = self;
        if self.in_envelope {
            Error::permanent(format_args!(
                "state {key:?}: written by version {from} of its format, and no step leads to version {version}"
            ))
        } else if let Err(problem) = serde_json::from_slice::<IgnoredAny>(self.json) {
            Error::permanent(format_args!("state {key:?}: not JSON: {problem}"))
        } else {
            Error::permanent(format_args!("state {key:?}: not a versioned value, and no step leads from version 0"))
        }
    }

    /// A transient error, so that the event waits: the newer code can go on with what it wrote.
    #[cold]
    fn is_too_new_for(self, version: u32) -> Error {
        let Self { key, version: writer, readable_from, .. } = self;
        Error::transient(format_args!(
            "state {key:?}: written by version {writer} of its format, which code before version {readable_from} cannot \
             read; this code has version {version}: go forward to the newer handler, or reset the state"
        ))
    }
}
