//! The root of a handler's module: exports what the C SDK calls. Which world it is, the handler says: by a function
//! `handle(event)` or a function `handleBatch(events)`.

const std = @import("std");
const pelton = @import("pelton");
const handler = @import("handler");

/// The reason of a panic goes to the host.
pub const panic = std.debug.FullPanic(struct {
    fn panic(message: []const u8, _: ?usize) noreturn {
        var buffer: [1024]u8 = undefined;
        var length = @min(message.len, buffer.len - 1);
        // Not inside a character.
        while (length > 0 and length < message.len and message[length] & 0xC0 == 0x80) length -= 1;
        @memcpy(buffer[0..length], message[0..length]);
        buffer[length] = 0;
        pelton.c.host_panic(buffer[0..length :0]);
    }
}.panic);

/// `std.log` writes log lines, too.
pub const std_options: std.Options = .{ .log_level = .debug, .logFn = log };

fn log(
    comptime level: std.log.Level,
    comptime scope: @EnumLiteral(),
    comptime format: []const u8,
    arguments: anytype,
) void {
    const prefix = if (scope == .default) "" else @tagName(scope) ++ ": ";
    pelton.log.at(@field(pelton.Level, @tagName(level)), prefix ++ format, arguments);
}

fn handle(event: *const pelton.c.Event) callconv(.c) pelton.c.Result {
    pelton.beginCall();
    return pelton.toC(handler.handle(pelton.fromC(event)));
}

fn handleBatch(events: [*]const pelton.c.Event, count: usize) callconv(.c) pelton.c.Result {
    pelton.beginCall();
    const batch = pelton.allocator.alloc(pelton.Event, count) catch unreachable;
    for (batch, events[0..count]) |*to, *from| to.* = pelton.fromC(from);
    return pelton.toC(handler.handleBatch(batch));
}

comptime {
    if (@hasDecl(handler, "handle")) @export(&handle, .{ .name = "pelton_handler_of_world_worker" });
    if (@hasDecl(handler, "handleBatch")) @export(&handleBatch, .{ .name = "pelton_handler_of_world_batch_worker" });
}
