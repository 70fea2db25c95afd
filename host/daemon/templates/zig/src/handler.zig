const pelton = @import("pelton");

const Visit = struct { name: []const u8 };

pub fn handle(event: pelton.Event) pelton.Error!void {
    const visit = try event.json(Visit);

    const counter = pelton.print("visits/{s}", .{event.key orelse visit.name});
    const visits = (try pelton.state.getJson(u64, counter) orelse 0) + 1;
    try pelton.state.setJson(counter, visits);

    pelton.log.info("{s} was greeted {d} times", .{ visit.name, visits });

    const greeting = pelton.config.get("greeting") orelse "Hello";
    const text = pelton.print("{s}, {s}! Visit {d}.", .{ greeting, visit.name, visits });
    try pelton.emit("greetings", .{ .kind = "greeted", .key = event.key, .payload = pelton.toJson(.{ .text = text }) });
}
