//! Write event handlers for Pelton in Zig:
//!
//!     const pelton = @import("pelton");
//!
//!     pub fn handle(event: pelton.Event) pelton.Error!void {
//!         try pelton.emit("greetings", .{ .kind = "greeted", .key = event.key, .payload = "Hello!" });
//!     }
//!
//! What a handler emits and stores is committed together with the position of the event, or not at all: returning an
//! error throws it away. Memory from `allocator`, the event included, lives until the call returns; nothing is freed.
//!
//! The work is done by the C SDK. Its texts are C strings, hence the `[:0]`: no text of an event can hold a NUL character.

const std = @import("std");

pub const Text = [:0]const u8;

pub const Header = struct { name: Text, value: Text };

/// One event as it stands in its stream.
pub const Event = struct {
    /// The same at every delivery: the idempotency key for calls outside.
    id: Text,
    stream: Text,
    partition: u32,
    offset: u64,
    /// Events of one key arrive in order.
    key: ?Text,
    kind: Text,
    /// When it was appended, in milliseconds since the Unix epoch, UTC.
    time_ms: u64,
    headers: []const Header,
    payload: []const u8,
    /// 1 at the first delivery; one more for each attempt that failed.
    attempt: u32,

    /// The value of the first header of this name.
    pub fn header(event: Event, name: []const u8) ?Text {
        for (event.headers) |each| {
            if (std.mem.eql(u8, each.name, name)) return each.value;
        }
        return null;
    }

    /// The payload as a `T`. One that does not fit is a permanent error that names the path.
    pub fn json(event: Event, comptime T: type) Error!T {
        var document: c.Json = undefined;
        try check(c.pelton_json_parse("payload of kind", event.kind, .from(event.payload), &document));
        return read(T, document);
    }
};

/// Its class decides what the group's failure policy does next. Made by `transient`, `permanent` and `retryAfter`.
pub const Error = error{ Transient, RetryAfter, Permanent };

/// What the last failure of this call was. A success leaves it: the error may still be on its way out.
var reason: c.Result = .{ .outcome = .ok };

/// For root.zig: what was said in an earlier call is gone.
pub fn beginCall() void {
    reason = .{ .outcome = .ok };
}

/// Trying again may help.
pub fn transient(comptime format: []const u8, arguments: anytype) Error {
    reason = .{ .outcome = .transient, .reason = print(format, arguments) };
    return error.Transient;
}

/// As transient, but not before so many milliseconds.
pub fn retryAfter(delay_ms: u64, comptime format: []const u8, arguments: anytype) Error {
    reason = .{ .outcome = .retry_after, .reason = print(format, arguments), .delay_ms = delay_ms };
    return error.RetryAfter;
}

/// Trying again will not help.
pub fn permanent(comptime format: []const u8, arguments: anytype) Error {
    reason = .{ .outcome = .permanent, .reason = print(format, arguments) };
    return error.Permanent;
}

/// Why the last error of this call was made or returned: of a refusal that is not to fail the event.
pub fn lastReason() Text {
    return if (reason.reason) |some| text(some) else "";
}

/// An event to emit.
pub const NewEvent = struct {
    kind: Text,
    /// Events of one key keep their order. Without a key the id decides the partition.
    key: ?Text = null,
    /// Unique within the group; the host makes one if there is none.
    id: ?Text = null,
    headers: []const Header = &.{},
    payload: []const u8 = "",
};

/// Emits an event. It becomes visible when, and only when, the position of the event in hand is committed.
pub fn emit(stream: Text, event: NewEvent) Error!void {
    try checkText("stream of new event", stream);
    try checkText("kind of new event", event.kind);
    if (event.key) |key| try checkText("key of new event", key);
    if (event.id) |id| try checkText("id of new event", id);
    const headers = alloc(c.Header, event.headers.len);
    for (headers, event.headers) |*to, from| {
        try checkText("header of new event", from.name);
        try checkText("header of new event", from.value);
        to.* = .{ .name = from.name, .value = from.value };
    }
    try check(c.pelton_emit(stream, &.{
        .kind = event.kind,
        .key = optional(event.key),
        .id = optional(event.id),
        .headers = headers.ptr,
        .header_count = headers.len,
        .payload = .from(event.payload),
    }));
}

/// Key-value state of this group and partition, committed with the position. A handler reads what it wrote.
///
/// A key that holds a NUL character cannot be set, so there is never a value to get or delete.
pub const state = struct {
    pub fn get(key: Text) ?[]const u8 {
        if (holdsNul(key)) return null;
        var value: c.Bytes = undefined;
        return if (c.pelton_state_get(key, &value)) value.slice() else null;
    }

    pub fn set(key: Text, value: []const u8) Error!void {
        try checkText("state key", key);
        try check(c.pelton_state_set(key, .from(value)));
    }

    pub fn delete(key: Text) void {
        if (holdsNul(key)) return;
        c.pelton_state_delete(key);
    }

    pub fn getJson(comptime T: type, key: Text) Error!?T {
        try checkText("state key", key);
        var document: c.Json = undefined;
        try check(c.pelton_state_get_json(key, &document));
        return if (document.type == .absent) null else try read(T, document);
    }

    /// What holds NaN or an infinity, which JSON has no numbers for, is a permanent error that names the path.
    pub fn setJson(key: Text, value: anytype) Error!void {
        try checkText("state key", key);
        if (notFinite(value)) |found|
            return permanent("state {s}: {s}", .{ c.pelton_json_quote(key), found.said() });
        try set(key, stringify(value));
    }
};

/// Any value as JSON. One that holds NaN or an infinity, which JSON has no numbers for, ends the call as a panic does.
pub fn toJson(value: anytype) []const u8 {
    if (notFinite(value)) |found| @panic(print("toJson: {s}", .{found.said()}));
    return stringify(value);
}

fn stringify(value: anytype) []const u8 {
    return std.json.Stringify.valueAlloc(allocator, value, .{}) catch unreachable;
}

/// A float that is no number, and where it is.
const NotFinite = struct {
    number: f64,
    path: []const u8 = "",

    fn below(found: NotFinite, name: []const u8) NotFinite {
        const path = if (found.path.len == 0) name else print("{s}.{s}", .{ name, found.path });
        return .{ .number = found.number, .path = path };
    }

    fn said(found: NotFinite) Text {
        const colon = if (found.path.len == 0) "" else ": ";
        return print("{s}{s}expected a finite number, found {d}: JSON has no such number; leave it out, or make it an optional", .{
            found.path, colon, found.number,
        });
    }
};

/// The first one in a value. The standard library would write it as a text, or as no JSON at all. It is not looked for in
/// what a `jsonStringify` of its own writes.
fn notFinite(value: anytype) ?NotFinite {
    const T = @TypeOf(value);
    if (T == std.json.Value) switch (value) {
        .float => |number| return notFinite(number),
        .array => |items| return notFinite(items.items),
        .object => |members| {
            for (members.keys(), members.values()) |name, member| {
                if (notFinite(member)) |found| return found.below(name);
            }
            return null;
        },
        else => return null,
    };
    switch (@typeInfo(T)) {
        .float => return if (std.math.isFinite(value)) null else .{ .number = @floatCast(value) },
        .optional => return if (value) |some| notFinite(some) else null,
        .@"struct" => |info| {
            if (comptime std.meta.hasFn(T, "jsonStringify")) return null;
            inline for (info.field_names) |name| {
                if (notFinite(@field(value, name))) |found| return found.below(name);
            }
            return null;
        },
        .@"union" => {
            if (comptime std.meta.hasFn(T, "jsonStringify")) return null;
            switch (value) {
                inline else => |member, tag| return if (notFinite(member)) |found| found.below(@tagName(tag)) else null,
            }
        },
        .vector => |info| return notFinite(@as([info.len]info.child, value)),
        .array => return notFinite(@as([]const std.meta.Elem(T), &value)),
        .pointer => |info| switch (info.size) {
            .one => return notFinite(value.*),
            .many => return notFinite(std.mem.span(value)),
            else => {
                if (@typeInfo(info.child) == .int) return null;
                for (value, 0..) |item, i| {
                    if (notFinite(item)) |found| return found.below(print("{d}", .{i}));
                }
                return null;
            },
        },
        else => return null,
    }
}

/// The configuration and secrets that `workers.toml` gives the handler.
pub const config = struct {
    pub fn get(key: Text) ?Text {
        if (holdsNul(key)) return null;
        return text(c.pelton_config_get(key) orelse return null);
    }
};

pub const Level = enum(c_int) { trace, debug, info, warn, err, critical };

/// Log lines.
pub const log = struct {
    pub fn at(level: Level, comptime format: []const u8, arguments: anytype) void {
        c.pelton_log_in("handler.zig", level, "%s", print(format, arguments).ptr);
    }
    pub fn trace(comptime format: []const u8, arguments: anytype) void {
        at(.trace, format, arguments);
    }
    pub fn debug(comptime format: []const u8, arguments: anytype) void {
        at(.debug, format, arguments);
    }
    pub fn info(comptime format: []const u8, arguments: anytype) void {
        at(.info, format, arguments);
    }
    pub fn warn(comptime format: []const u8, arguments: anytype) void {
        at(.warn, format, arguments);
    }
    pub fn err(comptime format: []const u8, arguments: anytype) void {
        at(.err, format, arguments);
    }
    pub fn critical(comptime format: []const u8, arguments: anytype) void {
        at(.critical, format, arguments);
    }
};

/// For groups with `commit = "manual"`, in the world `worker`.
pub const checkpoint = struct {
    pub fn commit() void {
        c.pelton_checkpoint_commit();
    }
};

/// In the world `batch-worker`: the first `count` events are handled, and the effects made so far are theirs.
pub const progress = struct {
    pub fn handled(count: usize) void {
        c.pelton_progress_handled(count);
    }
};

/// C would take such a text for the part before the character, and one state key for another.
fn holdsNul(some: Text) bool {
    return std.mem.indexOfScalar(u8, some, 0) != null;
}

fn checkText(comptime what: []const u8, some: Text) Error!void {
    if (holdsNul(some)) return permanent(what ++ " holds a NUL character, which no store can keep as text; remove it", .{});
}

/// A text until the call returns.
pub fn print(comptime format: []const u8, arguments: anytype) Text {
    return std.fmt.allocPrintSentinel(allocator, format, arguments, 0) catch unreachable;
}

/// Memory until the call returns. It does not fail: a call that needs more than it may have is ended.
pub const allocator: std.mem.Allocator = .{ .ptr = undefined, .vtable = &.{
    .alloc = allocBytes,
    .resize = std.mem.Allocator.noResize,
    .remap = std.mem.Allocator.noRemap,
    .free = std.mem.Allocator.noFree,
} };

fn allocBytes(_: *anyopaque, bytes: usize, alignment: std.mem.Alignment, _: usize) ?[*]u8 {
    std.debug.assert(alignment.toByteUnits() <= 16);
    return c.pelton_alloc(bytes);
}

fn alloc(comptime T: type, count: usize) []T {
    return allocator.alloc(T, count) catch unreachable;
}

fn text(pointer: [*:0]const u8) Text {
    return std.mem.span(pointer);
}

fn optional(maybe: ?Text) ?[*:0]const u8 {
    return if (maybe) |some| some.ptr else null;
}

fn check(result: c.Result) Error!void {
    if (result.outcome == .ok) return;
    reason = result;
    switch (result.outcome) {
        .ok => unreachable,
        .transient => return error.Transient,
        .retry_after => return error.RetryAfter,
        .permanent => return error.Permanent,
    }
}

/// A value as a `T`: a struct's fields are an object's members, in which those that have a default, or are optional, may
/// be missing. Each list and object is gone through once.
fn read(comptime T: type, in: c.Json) Error!T {
    switch (@typeInfo(T)) {
        .bool => {
            var value: bool = undefined;
            try check(c.pelton_json_bool(in, "", &value));
            return value;
        },
        .int => {
            try check(c.pelton_json_expect(in, "", .number));
            const written = in.raw.slice();
            return std.fmt.parseInt(T, written, 10) catch |err| unfit(in, switch (err) {
                error.InvalidCharacter => "a whole number",
                error.Overflow => "a number of type " ++ @typeName(T),
            }, written);
        },
        .float => {
            var number: f64 = undefined;
            try check(c.pelton_json_double(in, "", &number));
            const value: T = @floatCast(number);
            return if (std.math.isFinite(value)) value else unfit(in, "a number of type " ++ @typeName(T), in.raw.slice());
        },
        .optional => |info| return if (in.type == .absent or in.type == .null) null else try read(info.child, in),
        .@"struct" => |info| {
            var walk: c.JsonWalk = undefined;
            try check(c.pelton_json_members(in, "", &walk));
            var members: [info.field_names.len]?c.Json = @splat(null);
            while (c.pelton_json_next(&walk)) {
                inline for (info.field_names, 0..) |name, i| {
                    if (std.mem.eql(u8, walk.name.slice(), name)) members[i] = walk.value;
                }
            }
            var value: T = undefined;
            inline for (info.field_names, info.field_types, info.field_attrs, 0..) |name, Field, attributes, i| {
                @field(value, name) = if (members[i]) |member|
                    try read(Field, member)
                else if (attributes.defaultValue(Field)) |default|
                    default
                else
                    try read(Field, absent(in, name));
            }
            return value;
        },
        .pointer => |info| {
            if (T == Text or T == []const u8) {
                var value: [*:0]const u8 = undefined;
                try check(c.pelton_json_text(in, "", &value));
                return text(value);
            }
            var walk: c.JsonWalk = undefined;
            try check(c.pelton_json_items(in, "", &walk));
            var items: std.ArrayList(info.child) = .empty;
            while (c.pelton_json_next(&walk)) {
                items.append(allocator, try read(info.child, walk.value)) catch unreachable;
            }
            return items.items;
        },
        else => @compileError("no JSON is read as " ++ @typeName(T)),
    }
}

fn unfit(in: c.Json, expected: []const u8, found: []const u8) Error {
    const path = if (in.path) |path| print("{s}: ", .{path}) else "";
    const name = c.pelton_json_quote(in.name);
    return permanent("{s} {s}: {s}expected {s}, found {s}", .{ in.source, name, path, expected, found });
}

/// The member that an object does not have.
fn absent(in: c.Json, name: Text) c.Json {
    const path = if (in.path) |path| print("{s}.{s}", .{ path, name }) else name;
    return .{ .type = .absent, .raw = .from(""), .path = path, .source = in.source, .name = in.name };
}

/// For root.zig: takes the event over from C.
pub fn fromC(event: *const c.Event) Event {
    const headers = alloc(Header, event.header_count);
    for (headers, event.headers) |*to, from| to.* = .{ .name = text(from.name), .value = text(from.value) };
    return .{
        .id = text(event.id),
        .stream = text(event.stream),
        .partition = event.partition,
        .offset = event.offset,
        .key = if (event.key) |key| text(key) else null,
        .kind = text(event.kind),
        .time_ms = event.time_ms,
        .headers = headers,
        .payload = event.payload.slice(),
        .attempt = event.attempt,
    };
}

/// For root.zig: what the handler returned, for C. The error says what it is; text and delay are those that were given
/// with the last error of this call, if that was one of the same class.
pub fn toC(result: Error!void) c.Result {
    result catch |err| {
        const outcome: c.Outcome = switch (err) {
            error.Transient => .transient,
            error.RetryAfter => .retry_after,
            error.Permanent => .permanent,
        };
        return if (reason.outcome == outcome) reason else .{ .outcome = outcome, .reason = @errorName(err) };
    };
    return .{ .outcome = .ok };
}

/// What `pelton.h` declares.
pub const c = struct {
    pub const Outcome = enum(c_int) { ok, transient, retry_after, permanent };
    pub const Result = extern struct { outcome: Outcome, reason: ?[*:0]const u8 = null, delay_ms: u64 = 0 };
    pub const Bytes = extern struct {
        data: [*]const u8,
        length: usize,

        fn from(bytes: []const u8) Bytes {
            return .{ .data = bytes.ptr, .length = bytes.len };
        }
        fn slice(bytes: Bytes) []const u8 {
            return bytes.data[0..bytes.length];
        }
    };
    pub const Header = extern struct { name: [*:0]const u8, value: [*:0]const u8 };
    pub const Event = extern struct {
        id: [*:0]const u8,
        stream: [*:0]const u8,
        partition: u32,
        offset: u64,
        key: ?[*:0]const u8,
        kind: [*:0]const u8,
        time_ms: u64,
        headers: [*]const c.Header,
        header_count: usize,
        payload: Bytes,
        attempt: u32,
    };
    const NewEvent = extern struct {
        kind: [*:0]const u8,
        key: ?[*:0]const u8,
        id: ?[*:0]const u8,
        headers: [*]const c.Header,
        header_count: usize,
        text: ?[*:0]const u8 = null,
        payload: Bytes,
    };
    const JsonType = enum(c_int) { absent, null, bool, number, text, list, object };
    const Json = extern struct {
        type: JsonType,
        raw: Bytes,
        path: ?[*:0]const u8,
        source: [*:0]const u8,
        name: [*:0]const u8,
    };

    const JsonWalk = extern struct { value: Json, name: Bytes, passed: usize, of: Json, at: ?[*]const u8 };

    extern fn pelton_emit(stream: [*:0]const u8, event: *const c.NewEvent) Result;
    extern fn pelton_state_get(key: [*:0]const u8, value: *Bytes) bool;
    extern fn pelton_state_set(key: [*:0]const u8, value: Bytes) Result;
    extern fn pelton_state_delete(key: [*:0]const u8) void;
    extern fn pelton_state_get_json(key: [*:0]const u8, document: *Json) Result;
    extern fn pelton_config_get(key: [*:0]const u8) ?[*:0]const u8;
    extern fn pelton_log_in(context: [*:0]const u8, level: Level, format: [*:0]const u8, ...) void;
    extern fn pelton_checkpoint_commit() void;
    extern fn pelton_progress_handled(count: usize) void;
    extern fn pelton_alloc(bytes: usize) [*]u8;
    extern fn pelton_json_parse(source: [*:0]const u8, name: [*:0]const u8, bytes: Bytes, document: *Json) Result;
    extern fn pelton_json_items(in: Json, path: [*:0]const u8, walk: *JsonWalk) Result;
    extern fn pelton_json_members(in: Json, path: [*:0]const u8, walk: *JsonWalk) Result;
    extern fn pelton_json_next(walk: *JsonWalk) bool;
    extern fn pelton_json_text(in: Json, path: [*:0]const u8, value: *[*:0]const u8) Result;
    extern fn pelton_json_expect(in: Json, path: [*:0]const u8, type: JsonType) Result;
    extern fn pelton_json_double(in: Json, path: [*:0]const u8, value: *f64) Result;
    extern fn pelton_json_bool(in: Json, path: [*:0]const u8, value: *bool) Result;
    extern fn pelton_json_quote(text: [*:0]const u8) [*:0]const u8;
    pub extern fn host_panic(message: [*:0]const u8) noreturn;
};
