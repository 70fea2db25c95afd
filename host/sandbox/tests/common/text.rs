//! Handlers in WebAssembly's text form, for what no compiler of a language would make.

/// A handler whose core module has these definitions and does this with an event of kind `attack`. Every other event is
/// handled. In `body` the event lies at `$event`; `$log` and `$emit` are to be called; an `i32` may be had as `$i`.
pub(crate) fn handler(definitions: &str, body: &str) -> Vec<u8> {
    handler_with("", definitions, body)
}

/// The same with more in the component itself.
pub(crate) fn handler_with(component: &str, definitions: &str, body: &str) -> Vec<u8> {
    encode(&format!("(component {IMPORTS} {component} {} {EXPORTS})", core(definitions, body)))
}

pub(crate) fn encode(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Logs the four bytes `line`.
pub(crate) const LOG: &str = "(call $log (i32.const 2) (i32.const 16) (i32.const 4) (i32.const 16) (i32.const 4))";

/// Emits an event of kind `line` and nothing else to stream `out`.
pub(crate) const EMIT: &str =
    "(call $emit (i32.const 24) (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
    (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
    (i32.const 32))";

const IMPORTS: &str = r#"
    (import "wasi:logging/logging@0.1.0-draft" (instance $logging
        (type $l (enum "trace" "debug" "info" "warn" "error" "critical"))
        (export "level" (type $level (eq $l)))
        (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
    (import "pelton:worker/outbox@0.1.0" (instance $outbox
        (type $headers (list (tuple string string)))
        (type $n (record (field "id" (option string)) (field "key" (option string)) (field "kind" string)
            (field "headers" $headers) (field "payload" (list u8))))
        (export "new-event" (type $new-event (eq $n)))
        (export "emit" (func (param "stream" string) (param "event" $new-event) (result (result (error string)))))))
"#;

fn core(definitions: &str, body: &str) -> String {
    format!(
        r#"
    (core module $libc
        (memory (export "memory") 2)
        (data (i32.const 16) "line    out")
        (global $begin (export "begin") (mut i32) (i32.const 4096))
        (global $next (export "next") (mut i32) (i32.const 4096))
        ;; What is allocated in a call is free again in the next one, unless somebody moves $begin.
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
            (global.set $next (i32.add (local.get $at) (local.get 3)))
            (block $room
                (br_if $room (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
                (br_if $room (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))
                unreachable)
            (local.get $at)))
    (core instance $libc (instantiate $libc))
    (core func $log (canon lower (func $logging "log") (memory $libc "memory")))
    (core func $emit (canon lower (func $outbox "emit") (memory $libc "memory") (realloc (func $libc "realloc"))))
    (core instance $host (export "log" (func $log)) (export "emit" (func $emit)))
    (core module $main
        (import "libc" "memory" (memory 2))
        (import "libc" "begin" (global $begin (mut i32)))
        (import "libc" "next" (global $next (mut i32)))
        (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
        (import "host" "emit" (func $emit (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
        {definitions}
        (func $attack (param $event i32) (local $i i32)
            {body})
        (func (export "handle") (param $event i32) (result i32)
            ;; The length of "attack".
            (if (i32.eq (i32.load offset=48 (local.get $event)) (i32.const 6))
                (then (call $attack (local.get $event))))
            (global.set $next (global.get $begin))
            ;; There is nothing but zeros there, which is success.
            (i32.const 0)))
    (core instance $main (instantiate $main (with "libc" (instance $libc)) (with "host" (instance $host))))
"#
    )
}

const EXPORTS: &str = r#"
    (type $e (variant (case "transient" string) (case "retry-after" (tuple u64 string)) (case "permanent" string)))
    (export $error "error" (type $e))
    (type $v (record (field "id" string) (field "stream" string) (field "partition" u32) (field "offset" u64)
        (field "key" (option string)) (field "kind" string) (field "time" u64)
        (field "headers" (list (tuple string string))) (field "payload" (list u8)) (field "attempt" u32)))
    (export $event "event" (type $v))
    (func $handle (param "event" $event) (result (result (error $error)))
        (canon lift (core func $main "handle") (memory $libc "memory") (realloc (func $libc "realloc"))))
    (instance $handler (export "event" (type $event)) (export "error" (type $error)) (export "handle" (func $handle)))
    (export "pelton:worker/handler@0.1.0" (instance $handler))
"#;
