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
    }
}
