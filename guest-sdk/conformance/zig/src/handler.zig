//! The conformance handler: ../README.md says what each kind of event asks for.

const std = @import("std");
const pelton = @import("pelton");

const Kind = enum {
    fields,
    echo,
    emit,
    @"emit-refused",
    @"emit-many",
    state,
    count,
    transient,
    permanent,
    @"retry-after",
    trap,
    loop,
    log,
    config,
    checkpoint,
    call,
    typed,
};

pub fn handle(event: pelton.Event) pelton.Error!void {
    const kind = std.meta.stringToEnum(Kind, event.kind) orelse
        return pelton.permanent("unknown kind \"{s}\"", .{event.kind});
    const reason = event.header("reason") orelse "";
    switch (kind) {
        .fields => try fields(event),
        .echo => try pelton.emit("out", .{
            .kind = "echo",
            .key = event.key,
            .headers = event.headers,
            .payload = event.payload,
        }),
        .emit => try pelton.emit(event.header("stream") orelse "", .{
            .kind = "emit",
            .id = event.header("id"),
            .key = event.header("key"),
            .payload = event.payload,
        }),
        .@"emit-refused" => {
            const refusal = if (pelton.emit("forbidden", .{ .kind = "refused" })) "" else |_| pelton.lastReason();
            try pelton.emit("out", .{ .kind = "refused", .payload = refusal });
        },
        .@"emit-many" => for (0..number(event, "count")) |i| {
            try pelton.emit("out", .{ .kind = "many", .payload = pelton.print("{d}", .{i}) });
        },
        .state => for (event.headers) |header| try stateStep(header.value),
        .count => {
            const Count = struct { count: i64 };
            const before = try pelton.state.getJson(Count, "count") orelse Count{ .count = 0 };
            const after = Count{ .count = before.count + 1 };
            try pelton.state.setJson("count", after);
            try pelton.emit("out", .{ .kind = "count", .payload = pelton.toJson(after) });
        },
        .transient => {
            try lose();
            return pelton.transient("{s}", .{reason});
        },
        .permanent => {
            try lose();
            return pelton.permanent("{s}", .{reason});
        },
        .@"retry-after" => {
            try lose();
            return pelton.retryAfter(number(event, "ms"), "{s}", .{reason});
        },
        .trap => {
            try lose();
            @panic(reason);
        },
        .loop => while (true) std.mem.doNotOptimizeAway(event),
        .log => for (event.headers) |header| {
            const name, const message = split(header.value);
            const level = std.meta.stringToEnum(pelton.Level, if (std.mem.eql(u8, name, "error")) "err" else name);
            pelton.log.at(level.?, "{s}", .{message});
        },
        .config => for (event.headers) |header| {
            const setting = pelton.config.get(header.value);
            try pelton.emit("out", .{
                .kind = if (setting == null) "config-absent" else "config",
                .key = header.value,
                .payload = setting orelse "",
            });
        },
        .checkpoint => pelton.checkpoint.commit(),
        .call => try pelton.emit("out", .{
            .kind = "call",
            .id = pelton.print("call-{s}", .{event.id}),
            .headers = &.{.{ .name = "idempotency-key", .value = event.id }},
        }),
        .typed => {
            const order = try event.json(struct { customer: struct { name: pelton.Text }, amount: i64 });
            try pelton.emit("out", .{
                .kind = "typed",
                .key = order.customer.name,
                .payload = pelton.toJson(.{ .amount = 2 * order.amount }),
            });
        },
    }
}

fn fields(event: pelton.Event) pelton.Error!void {
    try pelton.emit("out", .{
        .kind = "fields",
        .key = event.key,
        .headers = &.{
            .{ .name = "id", .value = event.id },
            .{ .name = "stream", .value = event.stream },
            .{ .name = "kind", .value = event.kind },
            .{ .name = "partition", .value = pelton.print("{d}", .{event.partition}) },
            .{ .name = "offset", .value = pelton.print("{d}", .{event.offset}) },
            .{ .name = "time", .value = pelton.print("{d}", .{event.time_ms}) },
            .{ .name = "attempt", .value = pelton.print("{d}", .{event.attempt}) },
            .{ .name = "has-key", .value = if (event.key == null) "false" else "true" },
        },
        .payload = event.payload,
    });
}

/// Effects that must not stay, before the event fails.
fn lose() pelton.Error!void {
    try pelton.emit("out", .{ .kind = "lost" });
    try pelton.state.set("lost", "lost");
}

fn stateStep(step: pelton.Text) pelton.Error!void {
    const verb, const rest = split(step);
    if (std.mem.eql(u8, verb, "set")) {
        const key, const value = split(rest);
        try pelton.state.set(key, value);
    } else if (std.mem.eql(u8, verb, "delete")) {
        pelton.state.delete(rest);
    } else {
        const value = pelton.state.get(rest);
        try pelton.emit("out", .{
            .kind = if (value == null) "state-absent" else "state",
            .key = rest,
            .payload = value orelse "",
        });
    }
}

/// "WORD REST", split at the first space.
fn split(text: pelton.Text) struct { pelton.Text, pelton.Text } {
    const space = std.mem.findScalar(u8, text, ' ') orelse return .{ text, "" };
    return .{ pelton.print("{s}", .{text[0..space]}), text[space + 1 ..] };
}

fn number(event: pelton.Event, name: []const u8) u32 {
    return std.fmt.parseInt(u32, event.header(name) orelse "", 10) catch 0;
}
