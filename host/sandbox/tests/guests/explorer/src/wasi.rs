//! WASI, as far as a handler might reach for it.

use crate::bindings::wasi::{
    cli::{environment, stdin, stdout},
    clocks::{monotonic_clock, wall_clock},
    filesystem::preopens,
    random::{insecure, insecure_seed, random as secure},
    sockets::{
        instance_network::instance_network,
        ip_name_lookup,
        network::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress},
        tcp_create_socket::create_tcp_socket,
        udp_create_socket::create_udp_socket,
    },
};

/// What both clocks show.
pub(crate) fn time() -> String {
    let wall_clock::Datetime { seconds, nanoseconds } = wall_clock::now();
    format!("{seconds}.{nanoseconds:09} {}", monotonic_clock::now())
}

pub(crate) fn sleep(ms: u64) -> String {
    monotonic_clock::subscribe_duration(ms * 1_000_000).block();
    monotonic_clock::subscribe_instant(monotonic_clock::now() + ms * 1_000_000).block();
    "slept".into()
}

pub(crate) fn random() -> String {
    format!(
        "{:?} {} {:?} {} {:?}",
        secure::get_random_bytes(40),
        secure::get_random_u64(),
        insecure::get_insecure_random_bytes(40),
        insecure::get_insecure_random_u64(),
        insecure_seed::insecure_seed(),
    )
}

pub(crate) fn surroundings() -> String {
    let input = stdin::get_stdin().blocking_read(100).map_or(0, |read| read.len());
    format!(
        "{} files, {} variables, {} arguments, folder {:?}, {input} bytes of input",
        preopens::get_directories().len(),
        environment::get_environment().len(),
        environment::get_arguments().len(),
        environment::initial_cwd(),
    )
}

/// An address that would answer, if it could be asked: the test host's own.
fn somewhere() -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 53, address: (127, 0, 0, 1) })
}

pub(crate) fn tcp() -> String {
    let socket = match create_tcp_socket(IpAddressFamily::Ipv4) {
        Ok(socket) => socket,
        Err(code) => return format!("create: {code:?}"),
    };
    let bound = socket.start_bind(&instance_network(), somewhere()).and_then(|()| {
        socket.subscribe().block();
        socket.finish_bind()
    });
    let socket = match create_tcp_socket(IpAddressFamily::Ipv4) {
        Ok(socket) => socket,
        Err(code) => return format!("create: {code:?}"),
    };
    let connected = socket.start_connect(&instance_network(), somewhere()).and_then(|()| {
        socket.subscribe().block();
        socket.finish_connect()
    });
    format!("bind: {bound:?}, connect: {:?}", connected.map(|_| ()))
}

pub(crate) fn udp() -> String {
    let socket = match create_udp_socket(IpAddressFamily::Ipv4) {
        Ok(socket) => socket,
        Err(code) => return format!("create: {code:?}"),
    };
    let bound = socket.start_bind(&instance_network(), somewhere()).and_then(|()| {
        socket.subscribe().block();
        socket.finish_bind()
    });
    format!("bind: {bound:?}, send: {:?}", socket.stream(Some(somewhere())).map(|_| ()))
}

pub(crate) fn resolve(name: &str) -> String {
    match ip_name_lookup::resolve_addresses(&instance_network(), name) {
        Ok(stream) => {
            stream.subscribe().block();
            format!("{:?}", stream.resolve_next_address())
        }
        Err(code) => format!("{code:?}"),
    }
}

/// Writes to standard output, so many bytes at a time.
pub(crate) fn print(text: &str, bytes: usize) {
    let output = stdout::get_stdout();
    for part in text.as_bytes().chunks(bytes) {
        let _ = output.blocking_write_and_flush(part);
    }
}
