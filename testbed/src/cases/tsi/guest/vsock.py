# Plain vsock ports that lead to UNIX sockets of the host, without TSI.
TO_HOST, NOBODY, FROM_HOST, UNROUTED = int(HOST["to_host"]), int(HOST["nobody"]), int(HOST["from_host"]), 4999
PATH = HOST["path"]


def vsock(port=None):
    stream = socket.socket(socket.AF_VSOCK)
    if port is not None:
        stream.bind((socket.VMADDR_CID_ANY, port))
    return stream


def connected(port=None):
    stream = vsock(port)
    stream.connect((socket.VMADDR_CID_HOST, TO_HOST))
    return stream


def dialed(what):
    return background(answer, "dial unix:%s %s" % (PATH, what))


@check
def vsock_port_of_a_route_echoes():
    echoes(connected)


@check
def vsock_read_that_waits_does_not_hold_up_a_write():
    with ask("echo") as stream:
        received = background(stream.recv, 5)
        time.sleep(0.5)
        stream.sendall(b"hello")
        same(received(), b"hello")


@check
def vsock_one_write_of_65536_bytes_arrives():
    carries_writes(connected, "vsock-one", 65536, 65536)


@check
def vsock_1_mib_in_16_kib_writes_arrives():
    carries_writes(connected, "vsock-1-MiB", 1 << 20, 16384)


@check
def vsock_host_that_closes_at_once_loses_nothing():
    for pause in (0, 0.5):
        carries_host_writes(connected, 150_000, 150_000, pause)


@check
def vsock_1500_small_host_writes_wait_for_a_reader_who_sleeps():
    carries_host_writes(connected, 225_000, 150, pause=4)


@check
def vsock_half_closed_by_the_guest_brings_the_answer():
    half_closed_by_guest(connected, "vsock-guest-ends")


@check
def vsock_half_closed_by_the_host_still_takes_data():
    half_closed_by_host(connected, "vsock-host-ends")


@check
def vsock_slow_host_gets_16_mib_and_holds_up_nobody():
    slow_host_gets_all(connected, "vsock-stalled", 16 << 20)


@check
def vsock_slow_guest_gets_16_mib():
    slow_guest_gets_all(connected, 16 << 20, 65536)


@check
def vsock_port_without_a_route_is_reset_within_50_ms():
    for port in (UNROUTED, FROM_HOST, NOBODY):
        def refused():
            with vsock() as stream:
                fails_with(errno.ECONNRESET, stream.connect, (socket.VMADDR_CID_HOST, port))

        took = fastest(refused)
        assert took < 0.05, "port %d took %.3f s" % (port, took)


@check
def vsock_connection_from_the_same_port_works_again():
    for _ in range(10):
        with connected(9999) as stream:
            stream.sendall(b"name\n")
            same(read_all(stream), b"unix")


@check
def vsock_closed_by_the_guest_with_unread_data_reaches_the_host():
    stream = connected()
    stream.sendall(b"bye vsock-gone\n")
    # The host's word is here, and stays unread.
    stream.recv(1, socket.MSG_PEEK)
    stream.close()
    assert answer("note vsock-gone").startswith("0 ")


@check
def vsock_listener_of_the_guest_is_reached_from_the_host():
    with vsock(FROM_HOST) as listener:
        listener.listen()
        for number in range(3):
            said = dialed("talk hello %d" % number)
            stream, address = listener.accept()
            with stream:
                same(address[0], socket.VMADDR_CID_HOST)
                stream.sendall(b"answer to " + read_all(stream))
            same(said().strip(), "answer to hello %d" % number)


@check
def vsock_host_client_that_closes_at_once_loses_nothing():
    with vsock(FROM_HOST) as listener:
        listener.listen()
        said = dialed("send 150000")
        stream, _ = listener.accept()
        with stream:
            time.sleep(0.5)
            same(hashlib.sha256(read_all(stream)).hexdigest(), said())


@check
def vsock_host_client_reads_2_mib():
    with vsock(FROM_HOST) as listener:
        listener.listen()
        said, data = dialed("read"), noise(2 << 20)
        stream, _ = listener.accept()
        with stream:
            stream.sendall(data)
        same(said(), summary(data))


@check
def vsock_host_client_of_a_port_that_does_not_listen_is_closed_within_50_ms():
    took = min(int(dialed("wait")()) for _ in range(5))
    assert took < 50, "it took %d ms" % took


@check
def vsock_only_device_leaves_inet_to_the_guest():
    fails_with(errno.ENETUNREACH, socket.create_connection, ("192.0.2.1", 80))
