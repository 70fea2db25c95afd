//! Attacks on a host by what no honest compiler makes: each ends in its outcome or is refused, what it took is given back,
//! and the next call or the next module works.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    fmt::Write,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use common::{
    PATIENCE, SANDBOX, Stage, event, grants, guest,
    text::{EMIT, LOG, encode, handler, handler_with},
};
use pelton_core::{Invocation, Outcome};
use pelton_sandbox::{CompilerProgram, Grants, Limits, LoadError, Recycle, Sandbox, SandboxOptions, Usage};

const MIB: u64 = 1024 * 1024;

fn limited(limits: Limits) -> Grants {
    Grants { limits, ..grants() }
}

fn hasty() -> Limits {
    Limits { timeout: Duration::from_millis(300), ..Limits::default() }
}

async fn stage(module: Vec<u8>, grants: Grants) -> Stage {
    Stage::around(SANDBOX.load(module.into(), grants, Arc::default()).await.unwrap())
}

/// One attack, and after it an event that is well, on another instance if the first is lost.
async fn attacked(module: Vec<u8>, limits: Limits) -> (Stage, Invocation) {
    let mut stage = stage(module, limited(limits)).await;
    let attack = stage.call(&[event(0, "attack", "")]).await;
    let well = stage.call(&[event(1, "ok", "")]).await;
    assert_eq!((well.handled, &well.outcome), (1, &Outcome::Done), "after {:?}", attack.outcome);
    gone(&mut stage);
    (stage, attack)
}

/// Sees that nothing is left of a worker's instance.
fn gone(stage: &mut Stage) {
    stage.worker.forget_instance();
    let usage = stage.module.usage();
    assert_eq!((count(&usage.instances), count(&usage.memory_bytes)), (0, 0), "{usage:?}");
}

fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test]
async fn loops_of_every_kind_end_at_their_deadline() {
    let log = format!("(loop $again {LOG} (br $again))");
    let churn = "(loop $again (memory.fill (i32.const 65536) (local.get $i) (i32.const 65536))
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $again))";
    // Refused again and again, which costs its own time and nothing else.
    let hammer = "(loop $again (drop (memory.grow (i32.const 60000))) (br $again))";
    for body in ["(loop $again (br $again))", &log, churn, hammer] {
        let (_, attack) = attacked(handler("", body), hasty()).await;
        assert_eq!(attack.outcome.class(), "timeout", "{body}: {:?}", attack.outcome);
    }
}

#[tokio::test]
async fn an_instance_that_never_gets_through_its_start_is_ended_too() {
    let module = handler("(func $start (loop $again (br $again))) (start $start)", "");
    let mut stage = stage(module, limited(hasty())).await;
    for _ in 0..2 {
        assert_eq!(stage.call(&[event(0, "ok", "")]).await.outcome.class(), "timeout");
        gone(&mut stage);
    }
}

#[tokio::test]
async fn growth_in_small_steps_ends_at_the_limit() {
    let body = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    let limits = Limits { memory_bytes: 4 * MIB, ..Limits::default() };
    let (stage, attack) = attacked(handler("", body), limits).await;
    let Outcome::OutOfMemory(reason) = attack.outcome else { panic!("{:?}", attack.outcome) };
    assert!(reason.contains("limits.memory (4194304 bytes)"), "{reason}");
    let usage = stage.module.usage();
    assert_eq!((count(&usage.memory_bytes_most), count(&usage.refused)), (4 * MIB, 1));
}

#[tokio::test]
async fn a_table_that_grows_ends_at_its_limit_and_is_told_from_memory() {
    let body = "(loop $again (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 100)) (i32.const -1))))
        unreachable";
    for table_elements in [1_000, Limits::TABLE_ELEMENTS_MOST] {
        let limits = Limits { table_elements, ..Limits::default() };
        let (_, attack) = attacked(handler("(table $t 10 funcref)", body), limits).await;
        let Outcome::OutOfMemory(reason) = attack.outcome else { panic!("{:?}", attack.outcome) };
        assert!(reason.contains(&format!("limits.table ({table_elements})")), "{reason}");
    }
}

#[tokio::test]
async fn a_table_that_is_too_large_from_the_start_is_refused_by_its_limit() {
    let module = handler("(table 5000 funcref)", "");
    let mut stage = stage(module, limited(Limits { table_elements: 1_000, ..Limits::default() })).await;
    let outcome = stage.call(&[event(0, "ok", "")]).await.outcome;
    assert!(matches!(&outcome, Outcome::OutOfMemory(reason) if reason.contains("limits.table")), "{outcome:?}");
    gone(&mut stage);
}

#[tokio::test]
async fn recursion_ends_where_the_stack_does_and_not_before() {
    // 5,000 deep, with some locals in each: some hundred KiB.
    let definitions = "(func $down (param i32 i64 i64 i64 i64) (result i64) (if (result i64) (local.get 0)
        (then (i64.add (call $down (i32.sub (local.get 0) (i32.const 1)) (i64.mul (local.get 1) (i64.const 3))
            (local.get 1) (local.get 2) (local.get 3))
            (i64.xor (local.get 4) (i64.add (local.get 1) (i64.add (local.get 2) (local.get 3))))))
        (else (local.get 1))))";
    let body = "(drop (call $down (i32.const 5000) (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)))";
    let module = handler(definitions, body);
    for stack_bytes in [Limits::STACK_BYTES_LEAST, Limits::STACK_BYTES_MOST] {
        let (_, attack) = attacked(module.clone(), Limits { stack_bytes, ..Limits::default() }).await;
        match attack.outcome {
            Outcome::Done => assert_eq!(stack_bytes, Limits::STACK_BYTES_MOST),
            Outcome::Trapped(reason) => {
                assert_eq!(stack_bytes, Limits::STACK_BYTES_LEAST);
                assert!(reason.contains("limits.stack (65536 bytes)"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    for stack_bytes in [MIB, Limits::STACK_BYTES_MOST] {
        let endless = "(func $down (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1)))";
        let module = handler(endless, "(drop (call $down (i32.const 0)))");
        let (_, attack) = attacked(module, Limits { stack_bytes, ..Limits::default() }).await;
        assert!(matches!(attack.outcome, Outcome::Trapped(reason) if reason.contains("limits.stack")));
    }
}

#[tokio::test]
async fn a_flood_of_lines_is_dropped_and_counted() {
    let body = format!(
        "(loop $again {LOG} (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $i) (i32.const 100000))))"
    );
    let module = handler("", &body);
    let mut stage = stage(module, limited(Limits { log_lines: 50, ..Limits::default() })).await;
    // Another partition draws from the same bucket.
    let mut other = Stage::around(stage.module.clone());
    for offset in 0..2 {
        assert_eq!(stage.call(&[event(offset, "attack", "")]).await.outcome, Outcome::Done);
        assert_eq!(other.call(&[event(offset, "attack", "")]).await.outcome, Outcome::Done);
    }
    let lines: Vec<_> = [stage.lines.taken(), other.lines.taken()].concat();
    let said = lines.iter().filter(|line| line.message == "line").count() as u64;
    let told = lines
        .iter()
        .filter(|line| line.context == "pelton" && line.message.contains("limits.log_rate allows 50 "))
        .count();
    assert!(said >= 50 && told >= 1, "{said} lines, told {told} times");
    assert_eq!(said + count(&stage.module.usage().log_lines_dropped), 400_000);
}

#[tokio::test]
async fn a_million_small_emits_end_at_the_limit_of_output() {
    let body = format!(
        "(loop $again {EMIT} (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $i) (i32.const 1000000))))"
    );
    let (_, attack) = attacked(handler("", &body), Limits::default()).await;
    assert_eq!(attack.outcome.class(), "output", "{:?}", attack.outcome);
    assert!(attack.effects.is_empty());
}

#[tokio::test]
async fn what_unfolds_into_many_parts_at_its_start_is_held_by_the_bounds_on_them() {
    let parts = |count: usize, part: &str| -> String {
        (0..count).fold(format!("(core module $part {part})"), |mut text, _| {
            text.push_str("(core instance (instantiate $part))");
            text
        })
    };
    for (count, part) in [(201, ""), (17, "(table 1 funcref)"), (9, "(memory 1)"), (5, "(memory 300)")] {
        let mut stage = stage(handler_with(&parts(count, part), "", ""), grants()).await;
        let outcome = stage.call(&[event(0, "ok", "")]).await.outcome;
        assert!(outcome.is_failure(), "{count} of {part}: {outcome:?}");
        gone(&mut stage);
    }
    // More than any compiler makes: 40 core instances, 2 tables, 2 memories.
    let few = parts(7, "(memory 1) (table 1 funcref)")
        + "(component $more "
        + &parts(100, "")
        + ") (instance (instantiate $more))";
    let mut few = stage(handler_with(&few, "", ""), grants()).await;
    assert_eq!(few.call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
}

/// A sandbox that compiles in a process of its own.
fn with_compiler(change: impl FnOnce(&mut CompilerProgram)) -> Sandbox {
    let mut compiler = CompilerProgram::new(env!("CARGO_BIN_EXE_pelton-sandbox-compile-module").into(), Vec::new());
    change(&mut compiler);
    let options = SandboxOptions { compiler: Some(compiler), instances_max: 10, ..SandboxOptions::default() };
    Sandbox::new(options).unwrap()
}

async fn refusal(sandbox: &Sandbox, module: Vec<u8>) -> LoadError {
    let loaded = tokio::time::timeout(PATIENCE, sandbox.load(module.into(), grants(), Arc::default())).await;
    loaded.expect("never refused").err().expect("it was loaded")
}

/// The sandbox is well.
async fn works(sandbox: &Sandbox) {
    let module = sandbox.load(guest("noop").into(), grants(), Arc::default()).await.unwrap();
    assert_eq!(Stage::around(module).call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
}

#[tokio::test]
async fn a_compiler_of_its_own_makes_the_same_of_a_module() {
    let sandbox = with_compiler(|_| {});
    works(&sandbox).await;
    let module = sandbox.load(guest("misbehave").into(), grants(), Arc::default()).await.unwrap();
    let mut stage = Stage::around(module);
    let outcome = stage.call(&[event(0, "panic", "no such customer")]).await.outcome;
    assert!(matches!(&outcome, Outcome::Trapped(reason) if reason.contains("no such customer")), "{outcome:?}");
    let whole = guest("noop");
    for damaged in [whole[..whole.len() / 2].to_vec(), whole[..12].to_vec(), b"\0asm\x0d\0\x01\0\xff".to_vec()] {
        let here = SANDBOX.load(damaged.clone().into(), grants(), Arc::default()).await.err().unwrap();
        assert_eq!(refusal(&sandbox, damaged).await, here);
    }
}

#[tokio::test]
async fn a_component_that_doubles_itself_again_and_again_is_given_up() {
    let mut text = "(component (component $c0 (core module $m (func)) (core instance (instantiate $m)))".to_owned();
    for level in 1..=40 {
        let below = level - 1;
        write!(text, "(component $c{level} (instance (instantiate $c{below})) (instance (instantiate $c{below})))")
            .unwrap();
    }
    text.push_str("(instance (instantiate $c40)))");
    let bomb = encode(&text);
    assert!(bomb.len() < 4096, "{} bytes", bomb.len());
    let sandbox = with_compiler(|compiler| compiler.memory_bytes_max = 256 * MIB);
    let error = refusal(&sandbox, bomb).await;
    assert_eq!(error, LoadError::TooCostly { limit: "268435456 bytes of memory".into() });
    works(&sandbox).await;
}

#[tokio::test]
async fn types_that_double_themselves_are_refused() {
    let mut text = "(component (type $t0 (tuple u8 u8))".to_owned();
    for level in 1..=60 {
        let below = level - 1;
        write!(text, "(type $t{level} (tuple $t{below} $t{below}))").unwrap();
    }
    text.push_str("(import \"f\" (func (param \"x\" $t60))))");
    let sandbox = with_compiler(|compiler| compiler.memory_bytes_max = 256 * MIB);
    let error = refusal(&sandbox, encode(&text)).await;
    assert!(matches!(error, LoadError::Invalid(_)), "{error}");
    works(&sandbox).await;
}

#[tokio::test]
async fn types_and_components_in_one_another_as_deep_as_can_be_break_no_host() {
    let lists = (1..=2000).fold("(component (type $t0 (list u8))".to_owned(), |mut text, level| {
        write!(text, "(type $t{level} (list $t{}))", level - 1).unwrap();
        text
    }) + "(import \"f\" (func (param \"x\" $t2000))))";
    let mut components = encode("(component)");
    for _ in 0..2000 {
        // Section 4 holds a component.
        let mut around = b"\0asm\x0d\0\x01\0\x04".to_vec();
        let mut bytes = components.len();
        while bytes >= 0x80 {
            around.push((bytes & 0x7f) as u8 | 0x80);
            bytes >>= 7;
        }
        around.push(bytes as u8);
        around.extend_from_slice(&components);
        components = around;
    }
    let sandbox = with_compiler(|compiler| compiler.memory_bytes_max = 256 * MIB);
    for module in [encode(&lists), components] {
        let error = refusal(&sandbox, module).await;
        assert!(matches!(error, LoadError::Invalid(_) | LoadError::NoWorld { .. }), "{error}");
        works(&sandbox).await;
    }
}

/// 100,000 functions are 2 MB.
fn functions(count: usize) -> Vec<u8> {
    let functions = (0..count).fold(String::new(), |mut text, at| {
        write!(text, "(func (param i32) (result i32) (i32.add (local.get 0) (i32.const {at})))").unwrap();
        text
    });
    handler(&functions, "")
}

#[tokio::test]
async fn a_module_that_takes_too_much_memory_to_compile_is_given_up() {
    let sandbox = with_compiler(|compiler| compiler.memory_bytes_max = 64 * MIB);
    let error = refusal(&sandbox, functions(100_000)).await;
    assert_eq!(error, LoadError::TooCostly { limit: "67108864 bytes of memory".into() });
    works(&sandbox).await;
}

#[tokio::test]
async fn a_module_that_takes_too_long_to_compile_is_given_up_and_so_is_its_compiler() {
    let sandbox = with_compiler(|compiler| compiler.timeout = Duration::from_millis(50));
    let error = refusal(&sandbox, functions(100_000)).await;
    assert_eq!(error, LoadError::TooCostly { limit: "50ms".into() });
    assert!(error.to_string().contains("took more than 50ms"), "{error}");
}

#[tokio::test]
async fn whoever_does_not_wait_for_a_module_stops_its_compiler() {
    let sandbox = with_compiler(|_| {});
    let load = sandbox.load(functions(100_000).into(), grants(), Arc::default());
    assert!(tokio::time::timeout(Duration::from_millis(200), load).await.is_err());
    // The only place for a compilation is free again.
    works(&sandbox).await;
}

#[tokio::test]
async fn a_compiler_that_does_not_work_is_told_from_a_bad_module() {
    for program in ["/nonexistent/compiler", "/bin/false"] {
        let sandbox = with_compiler(|compiler| compiler.program = program.into());
        let error = refusal(&sandbox, guest("noop")).await;
        assert!(matches!(error, LoadError::Compiler(_)), "{error}");
    }
    let sandbox = with_compiler(|compiler| {
        compiler.program = "/bin/sh".into();
        compiler.args = vec!["-c".into(), "cat >/dev/null; echo code".into()];
    });
    let error = refusal(&sandbox, guest("noop")).await;
    assert!(matches!(&error, LoadError::Compiler(fault) if fault.contains("does not load")), "{error}");
    let sandbox = with_compiler(|compiler| compiler.args = vec!["more".into()]);
    let error = refusal(&sandbox, guest("noop")).await;
    assert!(matches!(&error, LoadError::Compiler(fault) if fault.contains("expected two numbers")), "{error}");
}

#[tokio::test]
async fn as_many_imports_and_exports_as_can_be_end_in_an_error_that_can_be_read() {
    let imports = (0..900).fold("(component".to_owned(), |mut text, at| {
        write!(text, "(import \"a:b/i{at}\" (instance (export \"f\" (func))))").unwrap();
        text
    });
    let exports = (0..900).fold("(component (instance $i)".to_owned(), |mut text, at| {
        write!(text, "(export \"a:b/i{at}\" (instance $i))").unwrap();
        text
    });
    let handler = "(instance $h) (export \"pelton:worker/handler@0.1.0\" (instance $h)))";
    for text in [imports + handler, exports + ")"] {
        let error = refusal(&with_compiler(|_| {}), encode(&text)).await;
        assert!(matches!(error, LoadError::Imports(_) | LoadError::NoWorld { .. }), "{error}");
        assert!(error.to_string().len() < 4096, "{error}");
    }
}

#[tokio::test]
async fn a_module_that_takes_too_much_of_the_processor_to_compile_is_given_up() {
    // As when the parent is gone: no clock but its own. The arguments in front of the others take their place.
    let sandbox = with_compiler(|compiler| {
        let program = compiler.program.display().to_string();
        compiler.program = "/bin/sh".into();
        compiler.args = vec!["-c".into(), format!("exec {program} $1 0").into(), "sh".into()];
    });
    let error = refusal(&sandbox, functions(100_000)).await;
    assert!(matches!(&error, LoadError::TooCostly { limit } if limit.ends_with("s of processor time")), "{error}");
}

#[tokio::test]
async fn a_large_module_that_is_honest_is_compiled() {
    let sandbox = with_compiler(|_| {});
    let module = sandbox.load(functions(5_000).into(), grants(), Arc::default()).await.unwrap();
    assert_eq!(Stage::around(module).call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
}

#[tokio::test]
async fn a_module_of_any_size_is_not_taken() {
    let mut module = vec![0; 256 * 1024 * 1024 + 1];
    module[..8].copy_from_slice(b"\0asm\x0d\0\x01\0");
    assert!(matches!(refusal(&SANDBOX, module).await, LoadError::TooLarge { .. }));
}

/// Keeps what it was handed, as a handler with a leak does: 16 bytes for each event, and its payload.
fn leaking() -> Vec<u8> {
    handler("", "(global.set $begin (global.get $next))")
}

/// With the host's view of it: never more than the mark and one step of growth.
async fn leak(events: u64) {
    let mark = 8 * MIB;
    let recycle = Recycle { calls: u64::MAX, memory_bytes: mark, ..Recycle::default() };
    let mut stage = stage(leaking(), Grants { recycle, ..grants() }).await;
    let payload = "x".repeat(4096);
    for first in (0..events).step_by(100) {
        let batch: Vec<_> = (first..first + 100).map(|offset| event(offset, "attack", &payload)).collect();
        let invocation = stage.call(&batch).await;
        assert_eq!((invocation.handled, invocation.outcome), (100, Outcome::Done));
    }
    let usage = Arc::clone(stage.module.usage());
    let most = count(&usage.memory_bytes_most);
    assert!(most > mark && most <= mark + MIB, "{most} bytes");
    // It leaks 4 KiB at least for each.
    assert!(count(&usage.recycled) >= events * 4096 / most - 1, "{usage:?}");
    assert_eq!(count(&usage.instances_made), count(&usage.recycled) + 1);
    gone(&mut stage);
}

#[tokio::test]
async fn a_leak_ends_at_the_mark_and_never_at_the_limit() {
    leak(100_000).await;
}

#[tokio::test]
#[ignore = "a million events take a while"]
async fn a_leak_ends_at_the_mark_however_long_it_goes_on() {
    leak(1_000_000).await;
}

/// A sandbox with memory for one handler that wants a lot.
fn tight() -> Sandbox {
    let options = SandboxOptions { instances_max: 10, memory_bytes_max: Some(24 * MIB), ..SandboxOptions::default() };
    Sandbox::new(options).unwrap()
}

/// A handler that has half of that after the first event, and takes its time for each.
async fn large(sandbox: &Sandbox) -> Stage {
    let body = "(if (i32.lt_u (memory.size) (i32.const 200))
            (then (if (i32.eq (memory.grow (i32.const 200)) (i32.const -1)) (then unreachable))))
        (local.set $i (i32.const 1000000))
        (loop $again (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))";
    Stage::around(sandbox.load(handler("", body).into(), grants(), Arc::default()).await.unwrap())
}

async fn has_memory(usage: &Usage) {
    while count(&usage.memory_bytes) < 12 * MIB {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn is_short_of_host_memory(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::StoreUnavailable(reason) if reason.contains("host.memory"))
}

#[tokio::test]
async fn the_memory_of_a_host_is_shared_and_who_comes_too_late_costs_no_attempt() {
    let sandbox = tight();
    let usage = Arc::<Usage>::default();
    let limits = Limits { timeout: PATIENCE, ..Limits::default() };
    let module = sandbox.load(guest("misbehave").into(), limited(limits), Arc::clone(&usage)).await.unwrap();
    let (mut first, mut second) = (Stage::around(module.clone()), Stage::around(module));
    let large = event(0, "ok", &"x".repeat(12 * MIB as usize));
    let (batch, interrupt) = ([large.clone(), event(1, "loop", "")], first.interrupt.clone());
    let busy = tokio::spawn(async move { first.call(&batch).await });
    has_memory(&usage).await;
    let outcome = second.call(std::slice::from_ref(&large)).await.outcome;
    assert!(is_short_of_host_memory(&outcome), "{outcome:?}");
    interrupt.trigger();
    assert_eq!(busy.await.unwrap().outcome, Outcome::Interrupted);
    assert_eq!(second.call(&[large]).await.outcome, Outcome::Done);
    // Its own limit is its own fault, however little the host has left.
    let limits = Limits { memory_bytes: 4 * MIB, ..Limits::default() };
    let module = sandbox.load(guest("misbehave").into(), limited(limits), Arc::clone(&usage)).await.unwrap();
    let outcome = Stage::around(module).call(&[event(0, "bomb", "")]).await.outcome;
    assert_eq!(outcome.class(), "memory");
    second.worker.forget_instance();
    assert_eq!((count(&usage.instances), count(&usage.memory_bytes)), (0, 0));
}

#[tokio::test]
async fn what_no_host_of_this_size_could_serve_is_the_handlers_failure() {
    let sandbox = tight();
    let module = sandbox.load(guest("misbehave").into(), grants(), Arc::default()).await.unwrap();
    let mut stage = Stage::around(module);
    let Outcome::OutOfMemory(reason) = stage.call(&[event(0, "bomb", "")]).await.outcome else {
        panic!("not out of memory")
    };
    assert!(reason.contains("host.memory, 25165824 bytes") && reason.contains("limits.memory"), "{reason}");
    assert_eq!(stage.call(&[event(1, "ok", "")]).await.outcome, Outcome::Done);
}

#[tokio::test]
async fn the_memory_of_an_instance_that_rests_is_another_handlers_at_once() {
    let sandbox = tight();
    let (mut first, mut second) = (large(&sandbox).await, large(&sandbox).await);
    for round in 0..3 {
        assert_eq!(first.call(&[event(round, "attack", "")]).await.outcome, Outcome::Done);
        assert_eq!(second.worker.memory_bytes(), 0);
        assert_eq!(second.call(&[event(round, "attack", "")]).await.outcome, Outcome::Done);
        assert_eq!(first.worker.memory_bytes(), 0);
    }
    assert_eq!(count(&first.module.usage().refused) + count(&second.module.usage().refused), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_is_always_busy_makes_way_for_one_that_was_refused_memory() {
    let sandbox = tight();
    let (mut busy, mut waits) = (large(&sandbox).await, large(&sandbox).await);
    let (usage, interrupt) = (Arc::clone(busy.module.usage()), busy.interrupt.clone());
    let batch: Vec<_> = (0..100_000).map(|offset| event(offset, "attack", "")).collect();
    let at_work = tokio::spawn(async move {
        let invocation = busy.call(&batch).await;
        (busy, invocation)
    });
    has_memory(&usage).await;
    let outcome = waits.call(&[event(0, "attack", "")]).await.outcome;
    assert!(is_short_of_host_memory(&outcome), "it has its turn: {outcome:?}");
    let is_served = async {
        while waits.call(&[event(0, "attack", "")]).await.outcome != Outcome::Done {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_served).await.expect("nobody made way");
    // Mostly it was back before the other, and found claimed what it had had. Else it goes on when the other rests.
    interrupt.trigger();
    let (mut busy, invocation) = at_work.await.unwrap();
    assert!(invocation.handled > 0 && !invocation.outcome.is_failure(), "{:?}", invocation.outcome);
    assert_ne!(invocation.outcome, Outcome::Done, "it made way only when it had nothing to do");
    interrupt.clear();
    assert_eq!(busy.call(&[event(0, "attack", "")]).await.outcome, Outcome::Done);
}

#[tokio::test]
async fn an_instance_that_owes_keeps_its_memory_whoever_wants_it() {
    let sandbox = tight();
    let (mut owes, mut waits) = (large(&sandbox).await, large(&sandbox).await);
    assert_eq!(owes.worker.call(&[event(0, "attack", "")], 1, true).await.outcome, Outcome::Done);
    let outcome = waits.call(&[event(0, "attack", "")]).await.outcome;
    assert!(is_short_of_host_memory(&outcome), "{outcome:?}");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(owes.worker.call(&[event(1, "attack", "")], 1, true).await.outcome, Outcome::Done);
    assert_eq!(count(&owes.module.usage().instances_made), 1);
}

/// Partitions of a handler whose instances have so many memories in all. Each has one that rests.
async fn resting(sandbox: &Sandbox, partitions: usize, memories: usize) -> Vec<Stage> {
    let more = (1..memories).fold("(core module $more (memory 1))".to_owned(), |mut text, _| {
        text.push_str("(core instance (instantiate $more))");
        text
    });
    let module = sandbox.load(handler_with(&more, "", "").into(), grants(), Arc::default()).await.unwrap();
    let mut stages = Vec::new();
    for _ in 0..partitions {
        let mut stage = Stage::around(module.clone());
        assert_eq!(stage.call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
        stages.push(stage);
    }
    stages
}

/// With room for so many instances, if none is of many parts.
fn small(instances_max: u32) -> Sandbox {
    Sandbox::new(SandboxOptions { instances_max, ..SandboxOptions::default() }).unwrap()
}

#[tokio::test]
async fn a_handler_whose_resting_instances_fill_the_pool_makes_way_for_another() {
    for (partitions, memories) in [(8, 1), (2, 4)] {
        let sandbox = small(8);
        let hog = resting(&sandbox, partitions, memories).await;
        let usage = hog[0].module.usage();
        assert_eq!(count(&usage.instances), partitions as u64, "they fill it");
        let module = sandbox.load(guest("noop").into(), grants(), Arc::default()).await.unwrap();
        let mut other = Stage::around(module);
        assert_eq!(other.call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
        assert_eq!(count(&usage.instances), partitions as u64 - 1, "no more made way than had to");
        assert_eq!(count(&other.module.usage().refused), 0);
    }
}

#[tokio::test]
async fn one_of_many_parts_gets_the_room_of_several_that_rest() {
    let sandbox = small(10);
    let rest = resting(&sandbox, 10, 1).await;
    let large = resting(&sandbox, 1, 8).await;
    assert!(count(&rest[0].module.usage().instances) <= 2 && large[0].worker.memory_bytes() > 0);
}

#[tokio::test]
async fn an_engine_of_another_stack_makes_no_way_as_its_pool_is_its_own() {
    let sandbox = small(1);
    let limits = Limits { stack_bytes: 2 << 20, ..Limits::default() };
    let module = sandbox.load(guest("noop").into(), limited(limits), Arc::default()).await.unwrap();
    let mut elsewhere = Stage::around(module);
    assert_eq!(elsewhere.call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
    let (first, second) = (resting(&sandbox, 1, 1).await, resting(&sandbox, 1, 1).await);
    assert_eq!((first[0].worker.memory_bytes(), count(&second[0].module.usage().instances)), (0, 1));
    assert!(elsewhere.worker.memory_bytes() > 0, "it was in nobody's way");
}

#[tokio::test]
async fn an_instance_that_owes_keeps_its_place_in_the_pool_and_who_comes_too_late_costs_no_attempt() {
    let sandbox = small(1);
    let module = sandbox.load(guest("noop").into(), grants(), Arc::default()).await.unwrap();
    let (mut owes, mut waits) = (Stage::around(module.clone()), Stage::around(module));
    assert_eq!(owes.worker.call(&[event(0, "ok", "")], 1, true).await.outcome, Outcome::Done);
    let outcome = waits.call(&[event(0, "ok", "")]).await.outcome;
    assert!(matches!(&outcome, Outcome::StoreUnavailable(reason) if reason.contains("no room")), "{outcome:?}");
    assert_eq!(count(&waits.module.usage().refused), 1);
    assert!(owes.worker.memory_bytes() > 0);
}

#[tokio::test]
async fn a_version_that_is_tried_out_takes_nothing_from_the_live_one() {
    let limits = Limits { instances: 1, log_lines: 1, ..Limits::default() };
    let mut live = stage(guest("misbehave"), limited(limits)).await;
    assert_eq!(live.call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
    let counted = live.module.usage().read();
    let trial = live.module.held_back().unwrap();
    assert_eq!(**trial.grants(), Grants { limits: Limits { instances: 0, ..limits }, ..grants() }.held_back());
    let (mut one, mut two) = (Stage::around(trial.clone()), Stage::around(trial));
    for stage in [&mut one, &mut two] {
        assert_eq!(stage.call(&[event(0, "log", "x")]).await.outcome, Outcome::Done);
        assert!(stage.worker.memory_bytes() > 0);
    }
    assert_eq!((count(&one.module.usage().instances), live.module.usage().read()), (2, counted));
    assert!(live.worker.memory_bytes() > 0);
}

#[tokio::test]
async fn a_grant_of_another_stack_needs_a_module_that_is_loaded_anew() {
    let live = stage(guest("noop"), grants()).await;
    let with_stack = |stack_bytes| live.module.regrant(limited(Limits { stack_bytes, ..Limits::default() }));
    let error = with_stack(2 << 20).err().unwrap();
    assert_eq!(error, LoadError::Stack { wanted: 2 << 20, found: 1 << 20 });
    assert!(error.to_string().contains("limits.stack") && error.to_string().contains("load it anew"), "{error}");
    assert!(with_stack(1 << 20).is_ok());
}

#[tokio::test]
async fn more_sizes_of_stack_than_there_are_engines_are_refused_until_one_is_free() {
    let sandbox = Sandbox::new(SandboxOptions { instances_max: 4, ..SandboxOptions::default() }).unwrap();
    let with_stack = |stack_bytes| {
        let grants = limited(Limits { stack_bytes, ..Limits::default() });
        sandbox.load(guest("noop").into(), grants, Arc::default())
    };
    let mut modules = Vec::new();
    for stack_bytes in [64 << 10, 128 << 10, 256 << 10, 512 << 10, 128 << 10, 1 << 20] {
        modules.push(with_stack(stack_bytes).await.unwrap());
    }
    let error = with_stack(2 << 20).await.err().unwrap();
    assert!(matches!(&error, LoadError::Stacks { wanted: 2_097_152, in_use } if in_use.len() == 5), "{error}");
    assert!(error.to_string().contains("limits.stack"), "{error}");
    modules.remove(0);
    modules.push(with_stack(2 << 20).await.unwrap());
    for module in modules {
        assert_eq!(Stage::around(module).call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
    }
}

/// Several partitions of a handler that may have one instance.
async fn crowd(partitions: usize, limits: Limits) -> Vec<Stage> {
    let limits = Limits { instances: 1, ..limits };
    let module = SANDBOX.load(guest("misbehave").into(), limited(limits), Arc::default()).await.unwrap();
    (0..partitions).map(|_| Stage::around(module.clone())).collect()
}

#[tokio::test]
async fn an_instance_that_rests_makes_way_for_another_partition() {
    let mut crowd = crowd(5, Limits::default()).await;
    for round in 0..3 {
        for stage in &mut crowd {
            assert_eq!(stage.call(&[event(round, "ok", "")]).await.outcome, Outcome::Done);
            assert_eq!(count(&stage.module.usage().instances), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_always_busy_take_turns() {
    let crowd = crowd(4, Limits::default()).await;
    let usage = Arc::clone(crowd[0].module.usage());
    let busy = crowd.into_iter().map(|mut stage| {
        tokio::spawn(async move {
            for offset in 0..50 {
                assert_eq!(stage.call(&[event(offset, "count", "")]).await.outcome, Outcome::Done);
            }
        })
    });
    for partition in busy.collect::<Vec<_>>() {
        partition.await.unwrap();
    }
    assert_eq!((count(&usage.instances), count(&usage.memory_bytes)), (0, 0));
}

#[tokio::test]
async fn one_instance_more_than_is_allowed_is_not_the_handlers_failure() {
    let mut crowd = crowd(2, Limits { timeout: Duration::from_secs(60), ..Limits::default() }).await;
    let (mut waits, mut works) = (crowd.remove(0), crowd.remove(0));
    let interrupt = works.interrupt.clone();
    let busy = tokio::spawn(async move {
        let outcome = works.call(&[event(0, "loop", "")]).await.outcome;
        (works, outcome)
    });
    while count(&waits.module.usage().instances) == 0 {
        tokio::task::yield_now().await;
    }
    let outcome = waits.call(&[event(0, "ok", "")]).await.outcome;
    assert!(
        matches!(&outcome, Outcome::StoreUnavailable(reason) if reason.contains("limits.instances")),
        "{outcome:?}"
    );
    interrupt.trigger();
    let (_, outcome) = busy.await.unwrap();
    assert_eq!(outcome, Outcome::Interrupted);
    assert_eq!(waits.call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
}

#[tokio::test]
async fn an_instance_that_is_old_makes_way_for_a_fresh_one() {
    let recycle = Recycle { age: Duration::from_millis(30), ..Recycle::default() };
    let mut stage = stage(guest("noop"), Grants { recycle, ..grants() }).await;
    assert_eq!(stage.call(&[event(0, "ok", "")]).await.outcome, Outcome::Done);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(stage.call(&[event(1, "ok", "")]).await.outcome, Outcome::Done);
    let usage = stage.module.usage();
    assert_eq!((count(&usage.instances_made), count(&usage.recycled), count(&usage.instances)), (2, 1, 1));
}
