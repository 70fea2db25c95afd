//! The conformance handler for batches: ../README.md says what each kind of event asks for.

const std = @import("std");
const pelton = @import("pelton");

const Kind = enum { echo, state, transient, permanent, @"retry-after", trap };

pub fn handleBatch(events: []const pelton.Event) pelton.Error!void {
    const tells_progress = !std.mem.eql(u8, events[0].header("progress") orelse "", "no");
    for (events, 1..) |event, done| {
        try handleOne(event);
        if (tells_progress) pelton.progress.handled(done);
    }
}

fn handleOne(event: pelton.Event) pelton.Error!void {
    const kind = std.meta.stringToEnum(Kind, event.kind) orelse
        return pelton.permanent("unknown kind \"{s}\"", .{event.kind});
    const reason = event.header("reason") orelse "";
    switch (kind) {
        .echo => try pelton.emit("out", .{
            .kind = "echo",
            .key = event.key,
            .headers = event.headers,
            .payload = event.payload,
        }),
        .state => for (event.headers) |header| try stateStep(header.value),
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
    }
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
