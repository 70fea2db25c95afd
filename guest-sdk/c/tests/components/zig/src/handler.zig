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
        .number => {
            const numbers = try event.json(struct { u64: ?u64 = null, u128: ?u128 = null, i64: ?i64 = null, i8: ?i8 = null });
            try pelton.state.setJson("numbers", numbers);
            const again = (try pelton.state.getJson(@TypeOf(numbers), "numbers")).?;
            if (!std.meta.eql(numbers, again)) @panic("what was read back is something else");
        },
    }
}

/// Where a float that is no number lies.
fn notFinite(where: []const u8) Reading {
    var found: Reading = .{ .celsius = 1.5, .of = .{ .rates = &.{ 1, 0.25 } }, .by = .{ .weight = 2 } };
    if (std.mem.eql(u8, where, "celsius")) found.celsius = std.math.nan(f32);
    if (std.mem.eql(u8, where, "of.rates.1")) found.of.?.rates = &.{ 1, -std.math.inf(f64) };
    if (std.mem.eql(u8, where, "by.weight")) found.by = .{ .weight = std.math.inf(f16) };
    return found;
}
