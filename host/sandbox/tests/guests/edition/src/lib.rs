//! Counts the events of each key, and says with every count which edition of the module counted. What it does wrong and
//! which edition it is are bytes of the built file that may be overwritten: so one file makes as many versions as wanted.
//!
//! | bytes | the module |
//! | --- | --- |
//! | `edition:good:00000000` | counts; `00000000` is any 8 digits |
//! | `edition:trap:00000000` | counts too, but every eighth event of a key ends in a trap, after its effects were made |
//! | `edition:loop:00000000` | every eighth event of a key never ends |

use std::ptr;

use pelton_sdk::{Error, Event, Handler, NewEvent, emit, state};

static EDITION: [u8; 21] = *b"edition:good:00000000";
/// An event in so many of a key is done wrong.
const WRONG_EVERY: u64 = 8;

struct Edition;

impl Handler for Edition {
    fn handle(event: Event) -> Result<(), Error> {
        // SAFETY: it is a reference. What is volatile is read, and not known to the compiler.
        let edition = unsafe { ptr::read_volatile(&raw const EDITION) };
        let (does, number) = (&edition[8..12], String::from_utf8_lossy(&edition[13..]));
        let key = event.key.unwrap_or_default();
        let before = state::get(&key).map_or(Ok(0), |value| String::from_utf8_lossy(&value).parse::<u64>());
        let count = before.map_err(Error::permanent)? + 1;
        state::set(&key, count.to_string())?;
        emit("out", NewEvent::new("counted", format!("{{\"count\":{count},\"edition\":\"{number}\"}}")).key(key))?;
        match does {
            b"trap" if count % WRONG_EVERY == 0 => panic!("edition {number} traps"),
            b"loop" if count % WRONG_EVERY == 0 => spin(),
            _ => Ok(()),
        }
    }
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

pelton_sdk::export!(Edition);
