//! What is written as JSON is read back as it was.

use pelton_sdk::mock::Host;
use pelton_sdk::state;

/// Numbers from all over the range, the same in every run.
fn floats() -> impl Iterator<Item = f64> {
    let mut seed = 1_u64;
    std::iter::repeat_with(move || {
        // Knuth's generator. Its low bits are worth little, so they come from another step.
        let mut step = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 32
        };
        f64::from_bits(step() << 32 | step())
    })
    .filter(|number| number.is_finite())
}

#[test]
fn a_float_is_read_back_as_it_was_written() {
    let written: Vec<f64> =
        floats().take(10_000).chain([0.1 + 0.2, f64::MIN_POSITIVE, f64::MAX, 5e-324, -0.0]).collect();
    let mut host = Host::new();
    let read: Option<Vec<f64>> = host
        .call(|| {
            state::set_json("k", &written)?;
            state::get_json("k")
        })
        .expect("finite numbers have a JSON form");
    let others = written.iter().zip(read.expect("there is one")).filter(|(a, b)| a.to_bits() != b.to_bits());
    assert_eq!(others.collect::<Vec<_>>(), []);
}
