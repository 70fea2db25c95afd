//! What becomes of errors, and of lists.

const std = @import("std");
const pelton = @import("pelton");

const Kind = enum {
    @"refused, then a success",
    @"refused, then another error",
    @"literal permanent",
    @"literal transient",
    @"literal retry-after",
    @"retry-after, then a success",
    @"reason of the call before",
    @"panic inside a character",
    list,
    lines,
    count,
    float,
    @"set as json",
    @"to json",
    number,
    @"keys with NUL",
    @"emit with NUL",
};

const Reading = struct {
    celsius: f32,
    of: ?struct { rates: []const f64 } = null,
    by: union(enum) { nobody, weight: f16 } = .nobody,
};

const Line = struct { n: ?i64, @"a.b": u8 = 1, tags: []const pelton.Text = &.{} };

pub fn handle(event: pelton.Event) pelton.Error!void {
    switch (std.meta.stringToEnum(Kind, event.kind).?) {
        .@"refused, then a success" => pelton.emit("forbidden", .{ .kind = "x" }) catch |err| {
            try pelton.emit("out", .{ .kind = "lost" });
            return err;
        },
        .@"refused, then another error" => {
            pelton.emit("forbidden", .{ .kind = "x" }) catch {};
            return error.Transient;
        },
        .@"literal permanent" => {
            try pelton.emit("out", .{ .kind = "lost" });
            return error.Permanent;
        },
        .@"literal transient" => return error.Transient,
        .@"literal retry-after" => return error.RetryAfter,
        .@"retry-after, then a success" => {
            const later = pelton.retryAfter(1234, "later", .{});
            try pelton.emit("out", .{ .kind = "lost" });
            return later;
        },
        .@"reason of the call before" => try pelton.emit("out", .{
            .kind = "reason",
            .payload = pelton.toJson(pelton.lastReason()),
        }),
        .@"panic inside a character" => @panic(comptime &@as([1022]u8, @splat('x')) ++ "€"),
        .list => {
            const list = try event.json([]const i64);
            var sum: i64 = 0;
            for (list) |n| sum += n;
            try pelton.emit("out", .{ .kind = "sum", .payload = pelton.toJson(.{ list.len, sum }) });
        },
        .lines => try pelton.emit("out", .{ .kind = "lines", .payload = pelton.toJson(try event.json([]const Line)) }),
        .count => _ = try event.json(struct { n: u8, of: u64 = 0 }),
        .float => {
            const read = try event.json(struct { f64: f64 = 0, f32: f32 = 0, f16: f16 = 0 });
            try pelton.state.setJson("read", read);
        },
        .@"set as json" => try pelton.state.setJson(event.id, notFinite(event.id)),
        .@"to json" => try pelton.emit("out", .{ .kind = "x", .payload = pelton.toJson(notFinite(event.id)) }),
        .@"keys with NUL" => try keysWithNul(event.id),
        .@"emit with NUL" => try emitWithNul(event.id),
        .number => {
            const numbers = try event.json(struct { u64: ?u64 = null, u128: ?u128 = null, i64: ?i64 = null, i8: ?i8 = null });
            try pelton.state.setJson("numbers", numbers);
            const again = (try pelton.state.getJson(@TypeOf(numbers), "numbers")).?;
            if (!std.meta.eql(numbers, again)) @panic("what was read back is something else");
        },
    }
}

/// Texts that are the same up to a NUL character are not one text.
fn keysWithNul(operation: []const u8) pelton.Error!void {
    try pelton.state.set("k/a", "kept");
    const key = "k/a\x00one";
    pelton.state.delete(key);
    if (pelton.state.get(key) != null or pelton.config.get("setting\x00") != null) @panic("found by another name");
    if (std.mem.eql(u8, operation, "set")) try pelton.state.set(key, "1");
    if (std.mem.eql(u8, operation, "setJson")) try pelton.state.setJson(key, 1);
    if (std.mem.eql(u8, operation, "getJson")) _ = try pelton.state.getJson(u8, key);
}

fn emitWithNul(part: []const u8) pelton.Error!void {
    var stream: pelton.Text = "out";
    var new: pelton.NewEvent = .{ .kind = "x" };
    if (std.mem.eql(u8, part, "stream")) stream = "out\x00";
    if (std.mem.eql(u8, part, "kind")) new.kind = "x\x00";
    if (std.mem.eql(u8, part, "key")) new.key = "\x00";
    if (std.mem.eql(u8, part, "id")) new.id = "a\x00b";
    if (std.mem.eql(u8, part, "header name")) new.headers = &.{ .{ .name = "a", .value = "b" }, .{ .name = "\x00", .value = "" } };
    if (std.mem.eql(u8, part, "header value")) new.headers = &.{.{ .name = "a", .value = "\x00" }};
    try pelton.emit(stream, new);
}

/// Where a float that is no number lies.
fn notFinite(where: []const u8) Reading {
    var found: Reading = .{ .celsius = 1.5, .of = .{ .rates = &.{ 1, 0.25 } }, .by = .{ .weight = 2 } };
    if (std.mem.eql(u8, where, "celsius")) found.celsius = std.math.nan(f32);
    if (std.mem.eql(u8, where, "of.rates.1")) found.of.?.rates = &.{ 1, -std.math.inf(f64) };
    if (std.mem.eql(u8, where, "by.weight")) found.by = .{ .weight = std.math.inf(f16) };
    return found;
}
