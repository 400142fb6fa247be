//! The guest's connections, carried by TSI.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::{fs, thread};

use anyhow::{Result, ensure};

use super::{Case, LONG, cases};
use crate::bed::Bed;
use crate::blob;
use crate::server::Server;

pub(super) fn cases() -> Vec<Case> {
    cases![LONG;
        tsi_token_is_there_by_default,
        vsock_is_absent_where_the_plan_says_so,
        vsock_asked_for_is_there,
        wget_reaches_a_server_on_the_host,
        wget_is_refused_what_the_policy_denies,
        port_that_nobody_listens_on_is_refused,
        half_closed_connection_still_brings_the_answer,
        many_connections_at_once_are_all_served,
        wget_fetches_64_mib_whole,
        wget_uploads_64_mib_whole,
        driver_unbound_and_bound_again_connects,
    ]
}

/// How many vsock devices (virtio 1.3, 5.10: device id 19) the guest has, and how many tokens of TSI.
const COUNT_VSOCK_AND_TOKENS: &str =
    "cat /sys/bus/virtio/devices/*/device | grep -c 0x0013; tr ' ' '\\n' </proc/cmdline | grep -c ^tsi_hijack$";

fn tsi_token_is_there_by_default(bed: &Bed) -> Result<()> {
    bed.shell(COUNT_VSOCK_AND_TOKENS).run()?.expect_text("1\n1\n")?;
    Ok(())
}

fn vsock_is_absent_where_the_plan_says_so(bed: &Bed) -> Result<()> {
    bed.shell(COUNT_VSOCK_AND_TOKENS)
        .with(["--net", "none"])
        .run()?
        .expect_text("0\n0\n")?;
    let plan = bed.guest(&["true"]).with(["--net", "none"]).plan_only().run()?;
    ensure!(
        !plan.expect_code(0)?.text().contains("tsi_hijack"),
        "the plan has a token of TSI"
    );
    Ok(())
}

fn vsock_asked_for_is_there(bed: &Bed) -> Result<()> {
    bed.shell(COUNT_VSOCK_AND_TOKENS)
        .with(["--net", "none", "--vsock", "on"])
        .run()?
        .expect_text("1\n0\n")?;
    Ok(())
}

fn wget_reaches_a_server_on_the_host(bed: &Bed) -> Result<()> {
    let server = Server::start(b"a page of the host\n".to_vec())?;
    let url = format!("http://{}/", server.address());
    let outcome = bed
        .guest(&["wget", "-qO-", &url])
        .with(["--tsi-allow", &server.address()])
        .run()?;
    outcome.expect_code(0)?.expect_text("a page of the host\n")?;
    Ok(())
}

fn wget_is_refused_what_the_policy_denies(bed: &Bed) -> Result<()> {
    let server = Server::start(b"not for guests\n".to_vec())?;
    let url = format!("http://{}/", server.address());
    let guest = bed.guest(&["wget", "-O-", "--tries=1", &url]);
    let outcome = guest.with(["--tsi-deny", &server.address()]).run()?;
    outcome.expect_error(&["Permission denied"])?.expect_text("")?;
    Ok(())
}

fn port_that_nobody_listens_on_is_refused(bed: &Bed) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?.to_string();
    drop(listener);
    let url = format!("http://{address}/");
    let outcome = bed
        .guest(&["wget", "-O-", "--tries=1", &url])
        .with(["--tsi-allow", &address])
        .run()?;
    ensure!(
        outcome.stderr.contains("Connection refused"),
        "wget does not say that the connection was refused"
    );
    Ok(())
}

/// A server that answers each connection, once its peer has no more to say, with the number of bytes it said.
fn byte_counter() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let count = io::copy(&mut stream, &mut io::sink()).unwrap_or_default();
                let _ = writeln!(stream, "{count}");
            });
        }
    });
    Ok(address)
}

fn half_closed_connection_still_brings_the_answer(bed: &Bed) -> Result<()> {
    let server = byte_counter()?;
    let line = format!("head -c 300000 /dev/zero | nc {} {}", server.ip(), server.port());
    let outcome = bed.shell(&line).with(["--tsi-allow", &server.to_string()]).run()?;
    outcome.expect_code(0)?.expect_text("300000\n")?;
    Ok(())
}

fn many_connections_at_once_are_all_served(bed: &Bed) -> Result<()> {
    let server = byte_counter()?;
    let (ip, port) = (server.ip(), server.port());
    let line = format!(
        "for n in $(seq 1 40); do (head -c $((n * 1000)) /dev/zero | nc {ip} {port} >/tmp/answer-$n) & done; wait; \
         for n in $(seq 1 40); do cat /tmp/answer-$n; rm /tmp/answer-$n; done"
    );
    let outcome = bed.shell(&line).with(["--tsi-allow", &server.to_string()]).run()?;
    let wanted: String = (1..=40).map(|number| format!("{}\n", number * 1000)).collect();
    outcome.expect_code(0)?.expect_text(&wanted)?;
    Ok(())
}

fn wget_fetches_64_mib_whole(bed: &Bed) -> Result<()> {
    let bytes = blob::bytes(blob::LARGE);
    let sum = blob::sha256(&bytes);
    let server = Server::start(bytes)?;
    let line = format!(
        "wget -qO- http://{}/ | sha256sum; tr ' ' '\\n' </proc/cmdline | grep -x tsi_hijack",
        server.address()
    );
    let outcome = bed.shell(&line).with(["--tsi-allow", &server.address()]).run()?;
    outcome
        .expect_code(0)?
        .expect_text(&format!("{sum}  -\ntsi_hijack\n"))?;
    Ok(())
}

fn wget_uploads_64_mib_whole(bed: &Bed) -> Result<()> {
    let bytes = blob::bytes(blob::LARGE);
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("blob"), &bytes)?;
    let server = Server::start(Vec::new())?;
    let url = format!("http://{}/", server.address());
    let share = format!("{}:/data", folder.path().display());
    let guest = bed.guest(&["wget", "-qO-", "--tries=1", "--post-file=/data/blob", &url]);
    guest
        .with(["-v", &share, "--tsi-allow", &server.address()])
        .run()?
        .expect_code(0)?;
    let posted = server.posted();
    ensure!(posted.len() == 1, "{} posts arrived", posted.len());
    ensure!(
        blob::sha256(&posted[0]) == blob::sha256(&bytes),
        "the {} bytes that arrived differ",
        posted[0].len()
    );
    Ok(())
}

/// The driver resets the device and sets it up again, with a connection open; a host's client sees its end.
fn driver_unbound_and_bound_again_connects(bed: &Bed) -> Result<()> {
    let server = Server::start(b"served\n".to_vec())?;
    let counter = byte_counter()?;
    let line = format!(
        "driver=/sys/bus/virtio/drivers/vmw_vsock_virtio_transport; device=$(ls $driver | grep ^virtio); \
         for n in 1 2 3; do \
           wget -qO- http://{served}/; (sleep 60 | nc {ip} {port} >/dev/null) & sleep 1; \
           echo $device >$driver/unbind; wget -qO- --timeout=5 --tries=1 http://{served}/ 2>/dev/null && echo reached; \
           echo $device >$driver/bind; \
         done; wget -qO- http://{served}/",
        served = server.address(),
        ip = counter.ip(),
        port = counter.port(),
    );
    let outcome = bed.shell(&line).with(["--tsi-allow", "127.0.0.0/8"]).run()?;
    outcome.expect_code(0)?.expect_text(&"served\n".repeat(4))?;
    Ok(())
}
